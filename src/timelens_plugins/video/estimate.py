"""How large a clip will be to a model, told before it is read: for sharing work, and for taking the largest first."""

from __future__ import annotations

import math
import os

from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.sampling import FRAMES_PER_PATCH, FrameSampling
from timelens_plugins.video.source import local_path, read_header

__all__ = ["expected_tokens"]

_RATE = 25.0  # frames a second, where a header states none
_SIZE = 1280, 720  # pixels, where a header states none


def expected_tokens(
    path: str | os.PathLike[str],
    sampling: FrameSampling,
    video_start: float | None = None,
    video_end: float | None = None,
) -> float:
    """Vision tokens of a clip by the header of its file, which may be wrong; arguments as of ``sample_frames``.

    Infinite where the clip cannot be read as asked, as far as the header tells.
    """
    try:
        header = read_header(local_path(path))
        rate = header.rate or _RATE
        width, height = (header.width, header.height) if header.width and header.height else _SIZE
        end = header.seconds if video_end is None else min(video_end, header.seconds)
        shown = max(1, round((end - (video_start or 0.0)) * rate))
        frames = len(sampling.frame_indices(0, shown - 1, rate))
        rows, columns = sampling.frame_size(height, width, frames)
    except (VideoError, ValueError):
        return math.inf
    return frames / FRAMES_PER_PATCH * rows * columns / sampling.pixel_factor**2
