"""Small clips and processors for the tests of time encodings."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# qwen-vl-utils reads it when imported: its first choice, torchcodec, may be installed without FFmpeg.
os.environ.setdefault("FORCE_QWENVL_VIDEO_READER", "decord")

import numpy as np
import pytest
import torch

from timelens_plugins.encodings import ENCODINGS, InterleavedTimestampsMixin, load_processor
from timelens_plugins.video import VideoClip

FACTORS = {"qwen3_vl": 32, "qwen2_5_vl": 28}


@pytest.fixture(params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def processor(family: str, encoding: str, tiny_checkpoints: dict[str, Path]) -> InterleavedTimestampsMixin:
    """A tiny processor of either family in each encoding."""
    return load_processor(tiny_checkpoints[family], encoding)


@pytest.fixture
def make_clip(family: str) -> Callable[..., VideoClip]:
    """A clip of ``pairs`` frame pairs, each of another colour, sampled at 2 fps from 10."""

    def make(pairs: int, rows: int = 2, columns: int = 3, seed: int = 0, **changes: Any) -> VideoClip:
        generator = torch.Generator().manual_seed(seed)
        size = FACTORS[family]
        colours = torch.randint(0, 256, (2 * pairs, 3, rows, columns), generator=generator, dtype=torch.uint8)
        frames = colours.repeat_interleave(size, 2).repeat_interleave(size, 3)
        indices = np.arange(2 * pairs) * 5
        fields: dict[str, Any] = {
            "path": f"made-{seed}.mp4",
            "frames": frames,
            "frame_indices": indices,
            "times": indices / 10,
            "fps": 10.0,
            "total_frames": 10 * pairs,
            "duration": float(pairs),
            "backend": "made",
        }
        return VideoClip(**(fields | changes))

    return make


@pytest.fixture
def shown() -> Callable[[Any, Any], list[str]]:
    """Single tokens as text, runs of pads as one entry: ``<|video_pad|>×66``."""

    def show(processor: Any, ids: Any) -> list[str]:
        out: list[str] = []
        counts: list[int] = []
        for token in (processor.tokenizer.decode([i]) for i in torch.as_tensor(ids).tolist()):
            if token.endswith("_pad|>") and out and out[-1] == token:
                counts[-1] += 1
            else:
                out.append(token)
                counts.append(1)
        return [f"{t}×{n}" if t.endswith("_pad|>") else t for t, n in zip(out, counts, strict=True)]

    return show
