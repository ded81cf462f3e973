"""A small clip made of numbers, for checks that need no file."""

from __future__ import annotations

import numpy as np
import torch

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.video import VideoClip

__all__ = ["QUERY", "made_clip"]

QUERY = "a red square appears"


def made_clip(processor: InterleavedTimestampsMixin, seed: int = 0) -> VideoClip:
    """Eight frames of random colours at 2 fps, of four by four tokens."""
    side = 4 * processor.frame_sampling.pixel_factor
    generator = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (8, 3, 4, 4), generator=generator, dtype=torch.uint8)
    frames = colours.repeat_interleave(side // 4, 2).repeat_interleave(side // 4, 3)
    indices = np.arange(8) * 15
    return VideoClip(
        path="made",
        frames=frames,
        frame_indices=indices,
        times=indices / 30,
        fps=30.0,
        total_frames=120,
        duration=4.0,
        backend="made",
    )
