"""How large a clip will be, told by its header, beside what it is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from made_clips import write_clip

from timelens_plugins.video import FRAMES_PER_PATCH, FrameSampling, expected_tokens, sample_frames

SAMPLING = FrameSampling(fps=4.0, min_tokens=2, total_tokens=200)


def tokens(path: Path, sampling: FrameSampling, **window: Any) -> float:
    frames = sample_frames(path, sampling, **window).frames
    height, width = frames.shape[-2:]
    return len(frames) / FRAMES_PER_PATCH * height * width / sampling.pixel_factor**2


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_the_header_says_about_what_there_is(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, frames=240, codec="mpeg4" if name.endswith("avi") else "libx264")
    for sampling in (SAMPLING, FrameSampling(total_tokens=40, min_tokens=1), FrameSampling(max_frames=4)):
        assert expected_tokens(path, sampling) == tokens(path, sampling)
    assert expected_tokens(path, SAMPLING, 1.0, 4.0) == pytest.approx(
        tokens(path, SAMPLING, video_start=1.0, video_end=4.0), rel=0.1
    )
    assert expected_tokens(path, SAMPLING, 1.0, 4.0) < expected_tokens(path, SAMPLING)


def test_real_clips(real_data: Path) -> None:
    for path in (real_data / "charades" / "3MSZA.mp4", real_data / "charades" / "OHOFG.mp4"):
        assert expected_tokens(path, FrameSampling()) == pytest.approx(tokens(path, FrameSampling()), rel=0.05)


def test_what_cannot_be_read_is_infinite(tmp_path: Path, plain_clip: Path) -> None:
    (tmp_path / "text.mp4").write_bytes(b"not a video")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(plain_clip.read_bytes()[:200])
    for path in (tmp_path / "text.mp4", tmp_path / "missing.mp4", tmp_path, cut):
        assert expected_tokens(path, SAMPLING) == math.inf
    assert expected_tokens(plain_clip, SAMPLING) < math.inf
