"""Run by torchrun on two processes: the losses of a run under DDP, written by the first process.

two_processes.py CHECKPOINT ANNOTATIONS OUTPUT BROKEN_VIDEO
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sft_runs import history
from transformers import AutoModelForImageTextToText

from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.timestamps import load_processor
from timelens_plugins.training.dataset import moments_dataset

SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "train_sampling_strategy": "sequential",
    "on_bad_video": "skip",
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "clip_workers": 1,
}


def losses(
    checkpoint: str, moments: list[Moment], output: str, **settings: Any
) -> tuple[list[tuple[float, ...]], dict[str, float]]:
    """Logged losses, gradient norms and counts of a short run, and its evaluation afterwards."""
    processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
    dataset = moments_dataset(moments, processor.encoding)
    trainer = TimeLensSFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32),
        args=TimeLensSFTConfig(output_dir=output, **(SETTINGS | settings)),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
    )
    trainer.train()
    return history(trainer, "loss", "grad_norm", "queries", "answer_tokens"), trainer.evaluate()


def with_broken(moments: list[Moment], broken: str) -> list[Moment]:
    """The second video cannot be read: on two processes with one video each, the second one has nothing to compute."""
    second = list(dict.fromkeys(m.video for m in moments))[1]
    return [replace(m, video=broken) if m.video == second else m for m in moments]


def main() -> None:
    checkpoint, annotations, output, broken = sys.argv[1:]
    torch.set_num_threads(1)
    moments = list(load_moments(annotations, video_root=Path(annotations).parent / "videos"))
    small = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 4}
    plain = losses(checkpoint, moments, output, **small)
    skipping = losses(checkpoint, with_broken(moments, broken), output, **small)
    if torch.distributed.get_rank() == 0:
        Path(output, "losses.json").write_text(json.dumps([plain, skipping]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
