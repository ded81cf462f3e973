"""Frame counts, frame choice and pixel budget are those of qwen-vl-utils, called here as the reference."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("FORCE_QWENVL_VIDEO_READER", "decord")  # read when qwen_vl_utils is imported

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qwen_vl_utils import vision_process

from timelens_plugins.video import FrameSampling, sample_frames


def upstream_request(sampling: FrameSampling) -> dict[str, Any]:
    token = (2 * sampling.patch_size) ** 2
    return {
        "fps": sampling.fps,
        "min_frames": sampling.min_frames,
        "max_frames": sampling.max_frames,
        "min_pixels": sampling.min_tokens * token,
        "total_pixels": sampling.total_tokens * token,
    } | ({} if sampling.max_pixels is None else {"max_pixels": sampling.max_pixels})


def upstream_size(
    sampling: FrameSampling, height: int, width: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """The size `fetch_video` resizes to, without decoding or resizing anything."""
    read = (torch.empty(frames, 3, height, width, device="meta"), {}, 2.0)
    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, vision_process.get_video_reader_backend(), lambda _: read)
    monkeypatch.setattr(
        vision_process.transforms.functional, "resize", lambda video, size, **_: torch.empty(0, *size, device="meta")
    )
    request = {"video": "unread", **upstream_request(sampling)}
    return tuple(vision_process.fetch_video(request, image_patch_size=sampling.patch_size).shape[-2:])


SIZES = [(270, 480), (480, 270), (360, 640), (720, 1280), (1080, 1920), (2160, 3840), (128, 128), (33, 47), (10, 1990)]
BUDGETS = [
    FrameSampling(),
    FrameSampling(max_frames=448),
    FrameSampling(patch_size=14),
    FrameSampling(patch_size=14, total_tokens=3584, min_tokens=16),
    FrameSampling(total_tokens=200, min_tokens=64),
    FrameSampling(total_tokens=10**6, min_tokens=1),
    FrameSampling(min_tokens=900),
    FrameSampling(min_tokens=1, total_tokens=128_000, max_pixels=640**2),
    FrameSampling(min_tokens=1, total_tokens=128_000, max_pixels=480**2, patch_size=14),
    FrameSampling(max_pixels=1000**2),
]


@pytest.mark.parametrize("sampling", BUDGETS, ids=str)
def test_frame_size_equals_fetch_video(sampling: FrameSampling, monkeypatch: pytest.MonkeyPatch) -> None:
    for (height, width), frames in itertools.product(SIZES, (2, 4, 62, 100, 298, 448, 768)):
        expected = upstream_size(sampling, height, width, frames, monkeypatch)
        if 0 in expected:  # what upstream would then fail to resize to
            with pytest.raises(ValueError, match="too long and narrow"):
                sampling.frame_size(height, width, frames)
        else:
            assert sampling.frame_size(height, width, frames) == expected, (height, width, frames)


@given(
    total=st.integers(2, 200_000),
    rate=st.floats(0.5, 240),
    fps=st.floats(0.1, 60),
    low=st.integers(1, 40),
    high=st.integers(0, 1000),
)
@example(total=335, rate=10000 / 1049, fps=2.0, low=4, high=764)
@example(total=3, rate=30.0, fps=2.0, low=4, high=764)
@settings(max_examples=300, deadline=None)
def test_frame_count_and_choice_equal_upstream(total: int, rate: float, fps: float, low: int, high: int) -> None:
    sampling = FrameSampling(fps=fps, min_frames=low, max_frames=low + high + 1)
    count = vision_process.smart_nframes(upstream_request(sampling), total, rate)
    assert sampling.frame_count(total, rate) == count
    chosen = torch.linspace(0, total - 1, count).round().long().tolist()
    assert sampling.frame_indices(0, total - 1, rate).tolist() == chosen


TIMELENS2 = {"max_frames": 2048, "min_tokens": 1, "total_tokens": 128_000}
BENCH, SETS = {"fps": 4.0, "max_pixels": 640**2}, {"fps": 1.0, "max_pixels": 480**2}


@pytest.mark.parametrize(
    ("settings", "clip", "frames", "size", "tokens"),
    [
        # clip: frames, frames a second, height, width; tokens: those of all pairs
        (BENCH, (930, 30.0, 270, 480), 124, (256, 480), 62 * 8 * 15),  # 31.0 s x 4; 122,880 pixels are within bounds
        (BENCH, (335, 10_000 / 1049, 360, 640), 140, (352, 640), 70 * 11 * 20),  # 35.14 s x 4 = 140.6
        (BENCH, (100, 10.0, 720, 1280), 40, (480, 832), 20 * 15 * 26),  # 921,600 / 640^2 = 1.5^2: 480 x 853.3
        (SETS, (100, 10.0, 720, 1280), 10, (352, 640), 5 * 11 * 20),  # 921,600 / 480^2 = 2^2: 360 x 640
        (SETS, (90_000, 25.0, 360, 640), 2048, (256, 448), 1024 * 8 * 14),  # 128,000 / 1024 = 125 tokens a pair
        (BENCH, (100, 10.0, 128, 128), 40, (128, 128), 20 * 4 * 4),  # nothing is enlarged
    ],
)
def test_the_protocol_of_timelens2_by_hand(
    settings: dict[str, Any], clip: tuple[int, float, int, int], frames: int, size: tuple[int, int], tokens: int
) -> None:
    total, rate, height, width = clip
    sampling = FrameSampling(**TIMELENS2, **settings)
    assert sampling.frame_count(total, rate) == frames
    assert (found := sampling.frame_size(height, width, frames)) == size
    assert frames // 2 * (found[0] // 32) * (found[1] // 32) == tokens <= 128_000


def test_the_protocol_of_timelens2_on_real_clips(real_data: Path) -> None:
    """The three clips as they come out of the decoder; tokens of 28 pixels need the bound at 640 x 360."""
    expected = {
        ("charades/3MSZA.mp4", 16): (124, 3, 256, 480),
        ("charades/OHOFG.mp4", 14): (140, 3, 336, 616),  # 13 x 23 tokens are 234,416 pixels; 480^2 is 360 x 640
        ("media/nasa_13013.mp4", 16): (52, 3, 256, 480),  # 13.0 s x 4; of its two streams that of 480 x 270 is the best
    }
    for (name, patch), shape in expected.items():
        sampling = FrameSampling(**TIMELENS2, fps=4.0, max_pixels=480**2, patch_size=patch)
        assert sample_frames(real_data / name, sampling).frames.shape == shape


def test_a_single_frame_fills_a_pair() -> None:
    assert FrameSampling().frame_indices(7, 7, 30.0).tolist() == [7, 7]


def test_extreme_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"2001x10 pixels.*more than 200 times"):
        FrameSampling().frame_size(10, 2001, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fps": 0}, "fps must be a positive number"),
        ({"fps": math.nan}, "fps must be a positive number"),
        ({"fps": "2"}, "fps must be a positive number"),
        ({"max_frames": 1}, "max_frames must be at least 2"),
        ({"max_frames": 2.5}, "max_frames must be a positive whole number"),
        ({"min_frames": 9, "max_frames": 9}, "min_frames must not exceed max_frames"),
        ({"min_tokens": 65, "total_tokens": 64}, "min_tokens, .* must not exceed total_tokens, .*, got 65 and 64"),
        ({"min_tokens": True}, "min_tokens must be a positive whole number"),
        ({"patch_size": -14}, "patch_size must be a positive whole number"),
        ({"times": "pts"}, "times must be one of index, stream"),
        ({"max_pixels": 0}, "max_pixels must be a positive whole number"),
        ({"max_pixels": 65_535}, "max_pixels=65535 is less than min_tokens=64 tokens are, 65536 pixels"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FrameSampling(**settings)


def test_min_tokens_ask_for_no_larger_a_picture_than_may_be_read() -> None:
    assert FrameSampling(min_tokens=60_000, total_tokens=60_000).frame_size(64, 64, 8) == (7840, 7840)
    with pytest.raises(ValueError, match=r"min_tokens=99999999 asks for frames of 320000x320000, more than 67,108,864"):
        FrameSampling(min_tokens=99_999_999, total_tokens=99_999_999).frame_size(64, 64, 8)
