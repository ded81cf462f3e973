"""Run by torchrun on two processes, sharded: draws by online difficulty, stops at a plateau, saves the plateau's model.

``torchrun distributed_online_run.py CHECKPOINT ANNOTATIONS OUTPUT``. Each process writes what it saw to
``OUTPUT/process-<number>.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import grpo_runs
import torch
from accelerate.state import AcceleratorState
from distributed_run import FSDP2, shard_on_cpus

from timelens_plugins.plateau.best import save_final_model
from timelens_plugins.plateau.callback import RewardPlateauCallback
from timelens_plugins.recipe import settings_of_run


def settings(processes: int) -> dict[str, Any]:
    """The same generation batch of four prompts on any number of processes."""
    return {
        "per_device_train_batch_size": 2 * grpo_runs.GENERATIONS // processes,
        "gradient_accumulation_steps": 2,
        "vision": "full",
        "max_steps": 12,
        "save_strategy": "steps",
        "save_steps": 2,
        "lr_scheduler_type": "constant",
        "online": {"half_life": 8},
    }


def plateau() -> RewardPlateauCallback:
    """Watches what is flat from the start: one that stops at the first look."""
    return RewardPlateauCallback(patience=4, min_steps=7, reward_key="learning_rate", spread_key="learning_rate")


def report(trainer: Any, callback: RewardPlateauCallback, diary: grpo_runs.Diary) -> dict[str, Any]:
    """What has to be the same on every process, and with any number of them."""
    online = trainer._online
    return {
        "asked": diary.batches,
        "estimates": online.difficulty.state_dict(),
        "drawn": online.sampler.state_dict()["drawn"],
        "step": trainer.state.global_step,
        "best": Path(trainer.state.best_model_checkpoint).name,
        "decision": callback.decision,
    }


if __name__ == "__main__":
    checkpoint, annotations, output = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    AcceleratorState.__init__ = shard_on_cpus  # type: ignore[method-assign]
    callback, diary = plateau(), grpo_runs.Diary()
    trainer = grpo_runs.make_trainer(
        checkpoint,
        grpo_runs.training_moments(annotations),
        output,
        callbacks=[callback],
        reward=diary,
        **settings(2),
        **FSDP2,
    )
    assert trainer.accelerator.is_fsdp2
    assert trainer.accelerator.num_processes == 2
    model = trainer.accelerator.unwrap_model(trainer.model)
    if not trainer.accelerator.is_main_process:  # as where only the first process loads the weights
        other = {name: torch.zeros_like(p) for name, p in model.state_dict().items()}
        kept = {name: p.clone() for name, p in model.state_dict().items()}
        model.load_state_dict(other)
    found = settings_of_run(model, trainer.processing_class)
    if not trainer.accelerator.is_main_process:
        model.load_state_dict(kept)
    trainer.train()
    save_final_model(trainer, callback)
    seen = report(trainer, callback, diary) | {"settings": found}
    (output / f"process-{trainer.accelerator.process_index}.json").write_text(json.dumps(seen))
