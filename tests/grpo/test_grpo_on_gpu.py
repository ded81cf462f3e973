"""GRPO on a GPU: whole steps, resumed exactly, with settings that change where things are computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import history

from timelens_plugins.grpo import TimeLensGRPOTrainer

pytestmark = pytest.mark.gpu

MakeTrainer = Callable[..., TimeLensGRPOTrainer]
NAMES = ("reward", "grad_norm", "completions/mean_length")
ON_GPU: dict[str, Any] = {"use_cpu": False, "max_steps": 4}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bf16": True, "gradient_checkpointing": True},
        {"bf16": True, "dtype": torch.bfloat16, "queries_per_video": 2},
        {"keep_prefill": True, "queries_per_video": 2},
        {"share_prefix": False},
        {"beta": 0.1, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_5"])
def test_a_run_and_its_resume(make_trainer: MakeTrainer, tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    settings = ON_GPU | settings
    whole = make_trainer(family, output_dir=tmp_path / "whole", save_strategy="steps", save_steps=2, **settings)
    whole.train()
    assert whole.model.device.type == "cuda"
    found = history(whole, *NAMES)
    assert all(math.isfinite(value) for step in found for value in step)
    assert any(step[1] > 0 for step in found)
    resumed = make_trainer(family, output_dir=tmp_path / "resumed", **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    again = history(resumed, *NAMES)
    for step, expected in zip(again, found[-len(again) :], strict=True):
        assert step == pytest.approx(expected, rel=2e-2 if settings.get("bf16") else 1e-3, abs=1e-3)


def test_training_agrees_with_sampling(make_trainer: MakeTrainer) -> None:
    """In single precision the first step's ratio of new to old probabilities is one."""
    trainer = make_trainer(use_cpu=False, max_steps=1, loss_type="grpo", epsilon=1e-4, num_iterations=1)
    trainer.train()
    [step] = history(trainer, "clip_ratio/region_mean")
    assert step[0] == 0.0
