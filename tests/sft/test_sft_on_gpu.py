"""Supervised fine-tuning on a GPU: the losses of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from timelens_plugins.sft import TimeLensSFTTrainer

pytestmark = pytest.mark.gpu


def losses(trainer: TimeLensSFTTrainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_5"])
@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"bf16": False}, 1e-3),
        ({"bf16": False, "gradient_checkpointing": True, "vision": "merger"}, 1e-3),
        ({"bf16": True}, 3e-2),
    ],
    ids=str,
)
def test_losses_are_those_of_the_cpu(
    make_trainer: Callable[..., TimeLensSFTTrainer], family: str, settings: dict[str, Any], near: float
) -> None:
    expected = losses(make_trainer(family, **settings | {"bf16": False}))
    there = make_trainer(family, use_cpu=False, **settings)
    found = losses(there)
    assert there.model.device.type == "cuda"
    assert len(found) == 3
    assert found == pytest.approx(expected, rel=near)
