"""Run by torchrun: short runs of both trainers under DeepSpeed; the first process prints what each logs, as JSON.

``torchrun deepspeed_run.py CHECKPOINT ANNOTATIONS OUTPUT STAGE…``, with ``tests/grpo`` and ``tests/sft`` on the path.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, GradientState

METHODS = ("sft", "grpo", "grpo_videos")
STEPS = 3
SETTINGS: dict[str, Any] = {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}
ON_CPUS = {"use_cpu": False, "ddp_backend": "gloo"}  # accelerate leaves DeepSpeed out where it is told to use CPUs
LOGGED = {
    "sft": ("loss", "grad_norm", "queries", "answer_tokens"),
    "grpo": ("loss", "grad_norm", "reward", "entropy", "sharing/saved_tokens"),
    # without the entropy, whose mean over micro-steps has twice as many on one process
    "grpo_videos": ("loss", "grad_norm", "reward", "queries_per_video", "sharing/saved_tokens"),
}


def sft(checkpoint: Path, annotations: Path, output: Path, processes: int, **settings: Any) -> Any:
    """Two videos a step on any number of processes."""
    from transformers import AutoModelForImageTextToText

    from timelens_plugins.encodings import load_processor
    from timelens_plugins.moments import load_moments
    from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
    from timelens_plugins.training.dataset import moments_dataset

    args = TimeLensSFTConfig(  # before the model, as the recipes have it: ZeRO-3 then shards it while it is loaded
        output_dir=str(output),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2 // processes,
        train_sampling_strategy="sequential",
        learning_rate=1e-3,
        adam_epsilon=1e-3,
        weight_decay=0.1,
        merger_learning_rate=5e-4,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        clip_workers=1,
        **SETTINGS | settings,
    )
    processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
    moments = list(load_moments(annotations, video_root=annotations.parent / "videos"))
    return TimeLensSFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32),
        args=args,
        train_dataset=moments_dataset(moments, processor.encoding),
        processing_class=processor,
    )


def grpo(checkpoint: Path, annotations: Path, output: Path, processes: int, **settings: Any) -> Any:
    """Two prompts of four completions a generation batch, used twice, so that a checkpoint falls into its middle."""
    import grpo_runs

    return grpo_runs.make_trainer(
        checkpoint,
        grpo_runs.training_moments(annotations),
        output,
        **SETTINGS
        | {
            "per_device_train_batch_size": 2 * grpo_runs.GENERATIONS // processes,
            "num_iterations": 2,
            "shuffle_dataset": False,
            "weight_decay": 0.1,
            "merger_learning_rate": 5e-4,
        }
        | settings,
    )


def grpo_videos(checkpoint: Path, annotations: Path, output: Path, processes: int, **settings: Any) -> Any:
    """Two queries of each of two videos a generation batch, used twice; a video with its queries is on one process."""
    import grpo_runs

    return grpo(
        checkpoint,
        annotations,
        output,
        processes,
        queries_per_video=2,
        per_device_train_batch_size=2 * grpo_runs.GENERATIONS,
        gradient_accumulation_steps=2 // processes,
        **settings,
    )


def logged(trainer: Any, method: str) -> list[list[Any]]:
    """What a run logged at each step."""
    return [[entry.get(name) for name in LOGGED[method]] for entry in trainer.state.log_history if "loss" in entry]


def main() -> None:
    checkpoint, annotations, output = map(Path, sys.argv[1:4])
    torch.set_num_threads(1)
    for stage in sys.argv[4:]:
        os.environ |= {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_DEEPSPEED_ZERO_STAGE": stage,
            "ACCELERATE_DEEPSPEED_ZERO3_INIT": str(stage == "3").lower(),
            "ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL": "true",
        }
        for method in METHODS:
            folder = output / f"{method}{stage}"
            for resumed in (False, True):
                AcceleratorState._reset_state()
                GradientState._reset_state()
                trainer = globals()[method](checkpoint, annotations, folder, 2, **ON_CPUS)
                assert trainer.accelerator.state.deepspeed_plugin.zero_stage == int(stage)
                assert trainer.accelerator.num_processes == 2
                trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2") if resumed else None)
                assert type(trainer.model_wrapped).__name__ == "DeepSpeedEngine"
                if not resumed:
                    trainer.save_model()
                if trainer.accelerator.is_main_process:
                    result = {"stage": stage, "method": method, "resumed": resumed, "log": logged(trainer, method)}
                    print("RESULT", json.dumps(result), flush=True)
                trainer.model_wrapped.destroy()
                del trainer
                gc.collect()


if __name__ == "__main__":
    main()
