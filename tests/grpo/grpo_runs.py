"""Short runs of the trainer on tiny models: used by the tests, and by the processes that they start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from timelens_plugins.difficulty import OnlineDifficulty
from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.training.checkpoints import last_checkpoint
from timelens_plugins.training.dataset import moments_dataset

SAMPLING: dict[str, Any] = {"fps": 1.0, "min_tokens": 4, "total_tokens": 64}
GENERATIONS = 4


def letters_reward(completions: list[Any], **columns: Any) -> list[float]:
    """Something that differs between the answers of a random model, which state no span."""
    return [len(set(completion[0]["content"])) / 50 for completion in completions]


class Diary:
    """A reward that notes which moments it was asked about: ``batches`` has those of each generation batch."""

    __name__ = "letters"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, completions: list[Any], **columns: Any) -> list[float]:
        self.batches.append(list(dict.fromkeys(columns["id"])))
        return letters_reward(completions)


def training_moments(annotations: Path) -> list[Moment]:
    return list(load_moments(annotations, video_root=annotations.parent / "videos"))


def make_trainer(
    checkpoint: Path,
    moments: list[Moment],
    output_dir: Path,
    *,
    encoding: str | None = None,
    peft_config: Any = None,
    reward: Any = letters_reward,
    sampling: dict[str, Any] = SAMPLING,
    callbacks: Any = None,
    with_eval: bool = False,
    online: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> TimeLensGRPOTrainer:
    """A trainer on the CPU for three steps of two prompts, four completions of ten tokens each.

    ``online``: options of ``OnlineDifficulty``, to draw the prompts by it.
    """
    defaults: dict[str, Any] = {
        "output_dir": str(output_dir),
        "per_device_train_batch_size": 2 * GENERATIONS,
        "num_generations": GENERATIONS,
        "max_completion_length": 10,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "adam_epsilon": 1e-3,  # Adam turns rounding noise on tiny gradients into whole steps
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "clip_workers": 1,
        "seed": 3,
    }
    processor = load_processor(checkpoint, encoding, **sampling)
    dataset = moments_dataset(moments, processor.encoding)
    return TimeLensGRPOTrainer(
        model=AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=dtype),
        reward_funcs=reward,
        args=TimeLensGRPOConfig(**(defaults | settings)),
        train_dataset=dataset,
        eval_dataset=dataset.select(range(4)) if with_eval else None,
        processing_class=processor,
        peft_config=peft_config,
        callbacks=callbacks,
        difficulty=None if online is None else OnlineDifficulty(dataset["id"], **online),
    )


def killed_beside(whole: Any, checkpoint: Path, annotations: Path, folder: Path, *how: str) -> str | None:
    """The last whole checkpoint of a run of ``killed_online_run.py`` into ``folder``; ``whole`` trains meanwhile.

    ``how``: further arguments of that run.
    """
    script = Path(__file__).with_name("killed_online_run.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(checkpoint), str(annotations), str(folder), *how],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    whole.train()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -9, errors[-2000:]
    return last_checkpoint(folder)


def history(trainer: Any, *names: str) -> list[tuple[Any, ...]]:
    """What a run logged under ``names`` at each step."""
    return [tuple(entry.get(name) for name in names) for entry in trainer.state.log_history if "loss" in entry]
