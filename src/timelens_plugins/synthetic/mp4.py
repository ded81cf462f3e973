"""Frames to real mp4 files: H.264, constant frame rate, the same bytes for the same frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from timelens_plugins.atomic import replacing

__all__ = ["write_mp4"]

# Constant rate factor 16: small coloured shapes keep their colour through the 4:2:0 chroma of common players.
# One thread: the encoder's bytes must not depend on the number of cores. No macroblock tree: for frames as small as
# these, its look-ahead depends on what the memory held before.
_ENCODER = {"preset": "veryfast", "crf": "16", "threads": "1", "g": "16", "x264-params": "mbtree=0"}


def write_mp4(path: str | Path, frames: NDArray[np.uint8], fps: float) -> None:
    """Encode frames to an mp4 file, which appears under its name only when it is complete.

    Args:
        path: of the file; an existing one is replaced.
        frames: RGB of shape ``(n, height, width, 3)``, sides even.
        fps: constant frame rate.

    Raises:
        ValueError: frames of another shape or type.
    """
    path = Path(path)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"{path}: expected uint8 frames of shape (n, height, width, 3), got {frames.shape}")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise ValueError(f"{path}: H.264 needs even sides, got {frames.shape[2]}x{frames.shape[1]}")
    with replacing(path) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=_ENCODER)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
