"""Clips that are announced for generation batches, and what is let go where another batch comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grpo_runs import SAMPLING

from timelens_plugins.grpo.prompts import PromptSource, clip_of
from timelens_plugins.moments import Moment
from timelens_plugins.timestamps import load_processor
from timelens_plugins.training.clips import ClipLoader
from timelens_plugins.training.dataset import moments_dataset


@pytest.fixture
def batches(moments: list[Moment]) -> list[list[dict[str, Any]]]:
    """Three generation batches of two clips each."""
    rows = list(moments_dataset(list({m.video: m for m in moments}.values())))
    return [rows[0:2], rows[2:4], rows[4:6]]


def test_announced_batches_are_known_in_any_order_and_passed_ones_let_go(
    batches: list[list[dict[str, Any]]], tiny_checkpoints: dict[str, Path]
) -> None:
    first, second, third = batches
    with ClipLoader(load_processor(tiny_checkpoints["qwen3_vl"], **SAMPLING), workers=0) as clips:
        source = PromptSource(clips, generations=1)
        for batch in (first, first, second):  # a batch comes once for every part that is used of it
            assert source.announce(batch) is batch
        assert dict(clips._wanted) == {clip_of(row["prompt"]): 1 for row in (*first, *second)}
        source.expect([row["prompt"] for row in reversed(first)])
        assert len(clips._wanted) == 4, "nothing is requested twice"
        for row in reversed(first):
            assert source.group(row).kept
        source.announce(third)
        source.expect([row["prompt"] for row in third])
        assert dict(clips._wanted) == {clip_of(row["prompt"]): 1 for row in third}, "the second did not come"
        source.expect([first[0]["prompt"]])  # never announced
        assert set(clips._wanted) == {clip_of(row["prompt"]) for row in (*third, first[0])}
