"""From a video file to the frames and times a model is given."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from timelens_plugins.video import pyav_backend
from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.sampling import FrameSampling
from timelens_plugins.video.stream import VideoStream, probe

if TYPE_CHECKING:
    from transformers.video_utils import VideoMetadata

__all__ = ["VideoClip", "sample_frames"]

logger = logging.getLogger(__name__)

RESIZE_BATCH_BYTES = 32 * 2**20  # of float32 input; bounds the memory of resizing, large enough to keep it fast


@dataclass(frozen=True, eq=False)
class VideoClip:
    """The sampled frames of a video, or of its window, ready for a Qwen video processor with ``do_resize=False``.

    Attributes:
        path: the file.
        frames: uint8 ``(T, C, H, W)``, RGB, resized to the pixel budget. qwen-vl-utils returns the same values as
            float32: its bicubic resize rounds to whole numbers before the conversion.
        frame_indices: int64 ``(T,)``, frame numbers in the source stream.
        times: float64 ``(T,)``, seconds from the start of the clip (of its window, if any), as the model is told them.
        fps: average frame rate of the source stream.
        total_frames: source frames in the clip (in its window, if any).
        duration: seconds of the clip (of its window, if any).
        backend: the backend that decoded the frames.
        video_start: seconds from the start of the file to the start of the clip; 0 without a window.
    """

    path: str
    frames: torch.Tensor
    frame_indices: NDArray[np.int64]
    times: NDArray[np.float64]
    fps: float
    total_frames: int
    duration: float
    backend: str
    video_start: float = 0.0

    @property
    def sample_fps(self) -> float:
        """Frames a second after sampling, as qwen-vl-utils computes it.

        Qwen2.5-VL's ``second_per_grid_ts`` is its temporal patch size divided by this.
        """
        return len(self.frame_indices) / self.total_frames * self.fps

    def metadata(self) -> VideoMetadata:
        """The clip's transformers metadata, from which a processor derives exactly :attr:`times`.

        A processor computes ``frames_indices / fps``, so in a window, or with times from the stream, the
        indices given to it are not frame numbers and may be fractional.
        """
        from transformers.video_utils import VideoMetadata

        upstream = self.frame_indices / self.fps
        told: list[Any]
        told = self.frame_indices.tolist() if np.array_equal(upstream, self.times) else (self.times * self.fps).tolist()
        height, width = self.frames.shape[-2:]
        return VideoMetadata(
            total_num_frames=self.total_frames,
            fps=self.fps,
            width=width,
            height=height,
            duration=self.duration,
            video_backend=self.backend,
            frames_indices=told,
        )


def sample_frames(
    path: str | os.PathLike[str],
    sampling: FrameSampling | None = None,
    *,
    video_start: float | None = None,
    video_end: float | None = None,
    backend: str = "auto",
    **settings: Any,
) -> VideoClip:
    """Sample, decode and resize the frames of a video.

    Args:
        path: the video file.
        sampling: frame rate and pixel budget; the official evaluation's by default.
        video_start, video_end: seconds from the start of the file; only the frames between them count, and times are
            told from ``video_start``.
        backend: ``auto``, ``decord``, ``pyav`` or ``torchcodec``. ``auto`` takes the first that reads the file, and logs
            one line where that is not the first tried.
        settings: fields of :class:`FrameSampling` to change.

    Raises:
        VideoError: the file or the window cannot be read as asked.
        ValueError: a setting out of range.
        TypeError: an unknown setting.
    """
    sampling = _with_settings(sampling or FrameSampling(), settings)
    stream = probe(os.fspath(path))
    first, last, start, end = _window(stream, sampling, video_start, video_end)
    indices = sampling.frame_indices(first, last, stream.rate)
    unique = np.unique(indices)
    frames = _resized(pyav_backend.read_frames(stream, unique), len(indices), len(unique), sampling, stream.path)
    frames = frames[torch.from_numpy(np.searchsorted(unique, indices))] if len(unique) < len(indices) else frames
    clock = indices / stream.rate if sampling.times == "index" else stream.times[indices]
    return VideoClip(
        path=stream.path,
        frames=frames,
        frame_indices=indices,
        times=np.maximum(clock - start, 0.0),
        fps=stream.rate,
        total_frames=last - first + 1,
        duration=end - start,
        backend="pyav",
        video_start=start,
    )


def _with_settings(sampling: FrameSampling, settings: dict[str, Any]) -> FrameSampling:
    known = [field.name for field in fields(FrameSampling)]
    if unknown := sorted(set(settings) - set(known)):
        raise TypeError(f"unknown video setting {', '.join(unknown)}; known are {', '.join(known)}")
    return replace(sampling, **settings)


def _window(
    stream: VideoStream, sampling: FrameSampling, video_start: float | None, video_end: float | None
) -> tuple[int, int, float, float]:
    """First and last frame of the window, and its start and end in seconds."""
    total = stream.total_frames
    length = total / stream.rate if sampling.times == "index" else stream.duration
    for name, value in (("video_start", video_start), ("video_end", video_end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number of seconds from the start of the file, got {value!r}")
    start = 0.0 if video_start is None else min(float(video_start), length)
    end = length if video_end is None else min(float(video_end), length)
    if sampling.times == "index":
        first = math.ceil(start * stream.rate)
        last = total - 1 if video_end is None else min(math.floor(end * stream.rate), total - 1)
    else:
        first = int(np.searchsorted(stream.times, start, side="left"))
        last = total - 1 if video_end is None else int(np.searchsorted(stream.times, end, side="right")) - 1
    if first > last:
        raise VideoError(
            stream.path,
            f"no frame lies between video_start={video_start} and video_end={video_end}: the video lasts {length:.2f} s",
        )
    return first, last, start, end


def _resized(
    decoded: Iterable[torch.Tensor], count: int, unique: int, sampling: FrameSampling, path: str
) -> torch.Tensor:
    """Decoded frames at the size of the budget for ``count`` frames, resized a few at a time."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    out: torch.Tensor | None = None
    batch: list[torch.Tensor] = []
    done = 0

    def flush() -> None:
        nonlocal out, done
        stack = torch.stack(batch)
        small = resize(stack, list(size), interpolation=InterpolationMode.BICUBIC, antialias=True)
        if out is None:
            out = torch.empty((unique, *small.shape[1:]), dtype=torch.uint8)
        out[done : done + len(batch)] = small
        done += len(batch)
        batch.clear()

    for frame in decoded:
        size = sampling.frame_size(frame.shape[1], frame.shape[2], count)
        batch.append(frame)
        if len(batch) * frame.numel() * 4 >= RESIZE_BATCH_BYTES:
            flush()
    if batch:
        flush()
    assert out is not None
    return out
