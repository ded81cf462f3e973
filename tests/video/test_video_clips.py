"""Clips as models get them: equal to qwen-vl-utils pixel for pixel, with the times the file or the protocol says."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("FORCE_QWENVL_VIDEO_READER", "decord")  # read when qwen_vl_utils is imported

import numpy as np
import pytest
import torch
from made_clips import number_of, set_display_matrix, write_clip
from qwen_vl_utils.vision_process import calculate_video_frame_range, fetch_video

from timelens_plugins.video import FrameSampling, VideoError, sample_frames


def shown_numbers(frames: torch.Tensor) -> list[int]:
    return [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames]


@pytest.mark.parametrize("patch_size", [14, 16])
@pytest.mark.parametrize("name", ["charades/3MSZA.mp4", "charades/OHOFG.mp4", "media/nasa_13013.mp4"])
def test_equals_qwen_vl_utils(name: str, patch_size: int, real_data: Path) -> None:
    sampling = FrameSampling(patch_size=patch_size)
    clip = sample_frames(real_data / name, sampling)
    token = (2 * patch_size) ** 2
    request = {
        "video": str(real_data / name),
        "fps": 2.0,
        "max_frames": 768,
        "min_pixels": 64 * token,
        "total_pixels": 14336 * token,
    }
    (frames, metadata), sample_fps = fetch_video(
        request, image_patch_size=patch_size, return_video_metadata=True, return_video_sample_fps=True
    )
    assert clip.frames.dtype == torch.uint8
    assert torch.equal(clip.frames.float(), frames)
    assert clip.frame_indices.tolist() == metadata["frames_indices"]
    assert (clip.fps, clip.total_frames) == (metadata["fps"], metadata["total_num_frames"])
    assert clip.sample_fps == sample_fps
    told = clip.metadata()
    assert told.frames_indices == metadata["frames_indices"]
    assert np.array_equal(told.timestamps, clip.times)
    assert told.sampled_fps == pytest.approx(sample_fps, rel=1e-12)


def test_pixel_values_equal_qwen_vl_utils(real_data: Path) -> None:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    video = real_data / "media" / "nasa_13013.mp4"
    clip = sample_frames(video)
    request = {"video": str(video), "fps": 2.0, "min_pixels": 64 * 1024, "total_pixels": 14336 * 1024}
    frames, metadata = fetch_video(request, image_patch_size=16, return_video_metadata=True)
    processor = Qwen3VLVideoProcessor()
    settings = {"do_resize": False, "do_sample_frames": False, "return_tensors": "pt"}
    ours = processor(videos=[clip.frames], video_metadata=[clip.metadata()], **settings)
    theirs = processor(videos=[frames], video_metadata=[metadata], **settings)
    assert torch.equal(ours["pixel_values_videos"], theirs["pixel_values_videos"])
    assert torch.equal(ours["video_grid_thw"], theirs["video_grid_thw"])


@pytest.mark.parametrize(
    ("start", "end"), [(None, None), (0.0, 1.0), (0.51, 1.49), (1.0, None), (None, 0.7), (0.4, 99)]
)
def test_window_is_upstreams(plain_clip: Path, start: float | None, end: float | None) -> None:
    clip = sample_frames(plain_clip, fps=10, video_start=start, video_end=end)
    first, last, count = calculate_video_frame_range({"video_start": start, "video_end": end}, 60, 30.0)
    assert (clip.frame_indices[0], clip.frame_indices[-1], clip.total_frames) == (first, last, count)
    assert shown_numbers(clip.frames) == clip.frame_indices.tolist()
    assert clip.times == pytest.approx(clip.frame_indices / 30.0 - (start or 0.0), abs=1e-9)
    assert clip.metadata().timestamps == pytest.approx(clip.times, abs=1e-12)
    assert clip.duration == pytest.approx(min(end or 2.0, 2.0) - (start or 0.0))
    assert clip.video_start == (start or 0.0)
    by_stream = sample_frames(plain_clip, fps=10, video_start=start, video_end=end, times="stream")
    assert by_stream.frame_indices.tolist() == clip.frame_indices.tolist()
    assert by_stream.times == pytest.approx(clip.times, abs=1e-9)


def test_window_without_a_frame(plain_clip: Path) -> None:
    with pytest.raises(VideoError, match=r"plain.mp4: no frame between video_start=1.5 and video_end=1.2"):
        sample_frames(plain_clip, video_start=1.5, video_end=1.2)
    with pytest.raises(VideoError, match=r"the video lasts 2.00 s"):
        sample_frames(plain_clip, video_start=7.0)
    with pytest.raises(ValueError, match="video_end must be a number of seconds"):
        sample_frames(plain_clip, video_end=-1.0)


def test_one_frame_is_shown_twice(tmp_path: Path, backend: str) -> None:
    clip = sample_frames(write_clip(tmp_path / "one.mp4", frames=1), backend=backend)
    assert clip.frame_indices.tolist() == [0, 0]
    assert clip.times.tolist() == [0.0, 0.0]
    assert clip.total_frames == 1
    assert torch.equal(clip.frames[0], clip.frames[1])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_uneven_frame_times(tmp_path: Path, backend: str, suffix: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two seconds at 25 fps, then a frame a second: index / average rate is off by seconds, stream times are not."""
    ticks = [*range(0, 2000, 40), *range(2000, 12000, 1000)]
    path = write_clip(
        tmp_path / f"uneven{suffix}", frames=len(ticks), rate=25, ticks=ticks, time_base=Fraction(1, 1000)
    )
    true = sample_frames(path, times="stream", backend=backend)
    assert not caplog.records
    assert true.times == pytest.approx(np.asarray(ticks)[true.frame_indices] / 1000, abs=0.002)
    assert shown_numbers(true.frames) == true.frame_indices.tolist()
    assert len(true.times) >= 20  # 12 s at 2 fps, whatever rate the header states

    told = sample_frames(path, backend=backend)
    assert told.times == pytest.approx(told.frame_indices / told.fps)
    error = np.abs(told.times - np.asarray(ticks)[told.frame_indices] / 1000).max()
    assert error > 2.0
    assert len(caplog.records) == 1
    assert "times='stream' tells the file's" in caplog.text


def test_upright(tmp_path: Path, plain_clip: Path, backend: str) -> None:
    stored = sample_frames(plain_clip, max_frames=4, min_tokens=1, backend=backend).frames
    for matrix, quarter_turns in (((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)):
        turned = set_display_matrix(plain_clip, tmp_path / f"turned{quarter_turns}.mp4", matrix)
        frames = sample_frames(turned, max_frames=4, min_tokens=1, backend=backend).frames
        assert torch.equal(frames, torch.rot90(stored, quarter_turns, dims=(2, 3)))


def test_mirrored_and_tilted(tmp_path: Path, plain_clip: Path) -> None:
    stored = sample_frames(plain_clip, max_frames=4, min_tokens=1).frames
    for matrix, expected in (
        ((-1, 0, 0, 1), stored.flip(3)),
        ((1, 0, 0, -1), stored.flip(2)),
        ((0, 1, 1, 0), stored.mT),
    ):
        mirrored = set_display_matrix(plain_clip, tmp_path / "mirrored.mp4", matrix)
        assert torch.equal(sample_frames(mirrored, max_frames=4, min_tokens=1).frames, expected)
        with pytest.raises(VideoError, match="decord does not mirror frames"):
            sample_frames(mirrored, backend="decord")
    tilted = set_display_matrix(plain_clip, tmp_path / "tilted.mp4", (1, 1, -1, 1))
    with pytest.raises(VideoError, match="no quarter turn; re-encode it upright"):
        sample_frames(tilted)


def test_threads_get_what_one_gets(plain_clip: Path) -> None:
    alone = sample_frames(plain_clip, fps=8).frames
    with ThreadPoolExecutor(4) as pool:
        for clip in pool.map(lambda _: sample_frames(plain_clip, fps=8), range(12)):
            assert torch.equal(clip.frames, alone)


def test_unknown_settings_are_named(plain_clip: Path) -> None:
    with pytest.raises(TypeError, match=r"unknown video setting total_pixels; known are fps, .*total_tokens"):
        sample_frames(plain_clip, total_pixels=3)
    with pytest.raises(
        ValueError, match=r"unknown video backend 'opencv'; choose auto, one of pyav, decord, torchcodec"
    ):
        sample_frames(plain_clip, backend="pyav,opencv")
