"""Clips that are announced for generation batches, and what is let go where another batch comes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from grpo_runs import SAMPLING

from timelens_plugins.clips import ClipKey, ClipLoader
from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import resume
from timelens_plugins.grpo.prompts import PromptSource, clip_of
from timelens_plugins.moments import Moment
from timelens_plugins.training.dataset import clips_of, moments_dataset


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
        assert dict(clips._wanted) == {clip_of(row): 1 for row in (*first, *second)}
        source.expect(list(reversed(first)))
        assert len(clips._wanted) == 4, "nothing is requested twice"
        for row in reversed(first):
            assert source.group(row).kept
        source.announce(third)
        source.expect(third)
        assert dict(clips._wanted) == {clip_of(row): 1 for row in third}, "the second did not come"
        source.expect([first[0]])  # never announced
        assert set(clips._wanted) == {clip_of(row) for row in (*third, first[0])}


def test_windows_are_exact_on_all_roads(moments: list[Moment]) -> None:
    """The data set rounds the numbers in a prompt; the clip that is read is the one the row's columns name."""
    window = (100 / 29.97, 400 / 29.97)
    exact = replace(moments[0], video_start=window[0], video_end=window[1], duration=window[1] - window[0])
    [row] = moments_dataset([exact])
    [part, _] = row["prompt"][0]["content"]
    assert part["video_start"] != window[0], "or this test shows nothing"
    key = ClipKey(exact.video, *window)
    assert clip_of(row) == ClipKey.of(row) == key
    assert clips_of(moments_dataset([exact])) == [key]
    kept = json.loads(json.dumps({name: row[name] for name in resume._KEPT_COLUMNS}))
    assert clip_of(kept) == key, "in a checkpoint, too"
    assert clip_of({"prompt": row["prompt"]}).video_start == part["video_start"], "one's own data set"
    with pytest.raises(ValueError, match=r"prompt asks for .*, its columns name"):
        clip_of(row | {"video_start": 0.0})
    with pytest.raises(ValueError, match=r"prompt asks for .*, its columns name"):
        clip_of(row | {"video": "another.mp4"})
