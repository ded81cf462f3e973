"""From a video file to the frames and times a model is given."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from timelens_plugins.file_state import state_of
from timelens_plugins.video.backends import AUTO, backend_problem, load_backend, preference
from timelens_plugins.video.errors import BackendError, VideoError
from timelens_plugins.video.frame_cache import FrameCache
from timelens_plugins.video.sampling import FrameSampling, TimeConvention
from timelens_plugins.video.source import local_path
from timelens_plugins.video.stream import VideoStream, probe

if TYPE_CHECKING:
    from transformers.video_utils import VideoMetadata

__all__ = ["VideoClip", "sample_frames"]

logger = logging.getLogger(__name__)

RESIZE_BYTES = 8 * 2**20  # of decoded frames resized at a time: some frames for speed, few for memory
NOTABLE_TIME_ERROR = 0.5  # seconds, a sampling interval of the official protocol


@dataclass(frozen=True, eq=False)
class VideoClip:
    """The sampled frames of a video, or of its window, ready for a video processor with ``do_resize=False``.

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

        ``second_per_grid_ts``, for models whose positions tell times, is the temporal patch size divided by this.
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
    cache: FrameCache | None = None,
    **settings: Any,
) -> VideoClip:
    """Sample, decode and resize the frames of a video.

    Args:
        path: the video file; ``file://`` with an absolute path will do. Nothing is fetched.
        sampling: frame rate and pixel budget; the official evaluation's by default.
        video_start, video_end: seconds from the start of the file; only the frames between them count, and times are
            told from ``video_start``.
        backend: ``pyav``, ``decord`` or ``torchcodec``, or several joined by commas in the order to try, as in
            ``"decord,pyav"``. Where the first cannot read the file, the next takes over and one line is logged (once
            per file).
            A damaged file is an error, never a reason to try the next. ``auto`` is ``"pyav,torchcodec"``.
        cache: where frames are kept for the next run, and taken from.
        settings: fields of :class:`FrameSampling` to change.

    Raises:
        VideoError: the file or the window cannot be read as asked.
        ValueError: a setting out of range.
        TypeError: an unknown setting, or something else than a path, such as a list of frame files.
    """
    sampling = _with_settings(sampling or FrameSampling(), settings)
    order = preference(backend)
    source = local_path(path)
    state = None if cache is None else state_of(source)
    place = None if cache is None else cache.place(source, state, [repr(sampling), video_start, video_end, order])
    if cache is None or place is None or state is None:
        return _decoded(source, sampling, video_start, video_end, order)[0]
    if (entry := cache.read(place)) is not None:
        tensors, values = entry
        if (notice := values.pop("notice")) is not None:
            _warn_once(notice)
        indices, times = tensors["frame_indices"].numpy(), tensors["times"].numpy()
        return VideoClip(path=source, frames=tensors["frames"], frame_indices=indices, times=times, **values)
    clip, notice = _decoded(source, sampling, video_start, video_end, order)
    tensors = {
        "frames": clip.frames,
        "frame_indices": torch.from_numpy(clip.frame_indices),
        "times": torch.from_numpy(clip.times),
    }
    names = ("fps", "total_frames", "duration", "backend", "video_start")
    cache.keep(place, source, state, tensors, {name: getattr(clip, name) for name in names} | {"notice": notice})
    return clip


def _decoded(
    path: str, sampling: FrameSampling, video_start: float | None, video_end: float | None, order: tuple[str, ...]
) -> tuple[VideoClip, str | None]:
    """A clip, and what was said in the log about its times."""
    stream = probe(path)
    rate = stream.rate if sampling.times == "index" else stream.steady_rate
    first, last, start, end = _window(stream, rate, sampling.times, video_start, video_end)
    indices = sampling.frame_indices(first, last, rate)
    notice = None
    if sampling.times == "index" and stream.index_error > NOTABLE_TIME_ERROR:
        notice = (
            f"{stream.path}: frame times told as index / {rate:.3f} fps are up to {stream.index_error:.2f} s off the "
            "file's; times='stream' tells the file's"
        )
        _warn_once(notice)
    frames, used = _read(stream, indices, sampling, order)
    clock = indices / rate if sampling.times == "index" else stream.times[indices]
    clip = VideoClip(
        path=stream.path,
        frames=frames,
        frame_indices=indices,
        times=np.maximum(clock - start, 0.0),
        fps=rate,
        total_frames=last - first + 1,
        duration=end - start,
        backend=used,
        video_start=start,
    )
    return clip, notice


def _with_settings(sampling: FrameSampling, settings: dict[str, Any]) -> FrameSampling:
    known = [field.name for field in fields(FrameSampling)]
    if unknown := sorted(set(settings) - set(known)):
        raise TypeError(f"unknown video setting {', '.join(unknown)}; known are {', '.join(known)}")
    return replace(sampling, **settings)


@functools.lru_cache(maxsize=4096)
def _warn_once(message: str) -> None:
    """Log what is true of a file once: training reads it again and again."""
    logger.warning("%s", message)


def _window(
    stream: VideoStream, rate: float, times: TimeConvention, video_start: float | None, video_end: float | None
) -> tuple[int, int, float, float]:
    """First and last frame of the window, and its start and end in seconds."""
    total = stream.total_frames
    length = total / rate if times == "index" else stream.duration
    for name, value in (("video_start", video_start), ("video_end", video_end)):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number of seconds from the start of the file, got {value!r}")
    start = 0.0 if video_start is None else min(float(video_start), length)
    end = length if video_end is None else min(float(video_end), length)
    if times == "index":
        first = math.ceil(start * rate)
        last = total - 1 if video_end is None else min(math.floor(end * rate), total - 1)
    else:
        first = int(np.searchsorted(stream.times, start, side="left")) if video_start is not None else 0
        last = int(np.searchsorted(stream.times, end, side="right")) - 1
    if first > last:
        raise VideoError(
            stream.path,
            f"no frame between video_start={video_start} and video_end={video_end} s; the video lasts {length:.2f} s",
        )
    return first, last, start, end


def _read(
    stream: VideoStream, indices: NDArray[np.int64], sampling: FrameSampling, order: tuple[str, ...]
) -> tuple[torch.Tensor, str]:
    """The frames at ``indices``, resized, and the name of the backend that read them."""
    unique, places = np.unique(indices, return_inverse=True)
    refusals = []
    for name in order:
        # PyAV has just read the file's packets; the others may be installed and yet not work
        if name != "pyav" and (problem := backend_problem(name)) is not None:
            if len(order) == 1:
                raise VideoError(stream.path, f"cannot be read: {problem}; or use backend='auto'")
            continue
        try:
            frames = _resized(load_backend(name).read(stream, unique), len(unique), len(indices), sampling, stream.path)
        except BackendError as refusal:
            refusals.append(str(refusal))
            continue
        if refusals:
            _warn_once(f"{stream.path}: {'; '.join(refusals)}; reading it with {name}")
        return (frames if len(unique) == len(indices) else frames[torch.from_numpy(places)]), name
    tried = "; ".join(refusals) or "none of these backends works here"
    remedy = "re-encode it: ffmpeg -i IN OUT.mp4" if order == AUTO else "use backend='auto'"
    raise VideoError(stream.path, f"cannot be read with {', '.join(order)}: {tried}; {remedy}")


def _resized(
    decoded: Iterable[NDArray[np.uint8]], count: int, sampled: int, sampling: FrameSampling, path: str
) -> torch.Tensor:
    """``count`` decoded frames at the size that the budget gives each of ``sampled``, resized a few at a time."""
    out: torch.Tensor | None = None
    batch: list[NDArray[np.uint8]] = []
    done = 0
    for frame in decoded:
        if out is None:
            try:
                height, width = sampling.frame_size(frame.shape[0], frame.shape[1], sampled)
            except ValueError as error:
                raise VideoError(path, str(error)) from error
            out = torch.empty((count, 3, height, width), dtype=torch.uint8)
        batch.append(frame)
        if len(batch) * frame.nbytes >= RESIZE_BYTES or done + len(batch) == count:
            if len({one.shape for one in batch}) > 1:
                raise VideoError(path, "changes its frame size midway; re-encode it: ffmpeg -i IN OUT.mp4")
            out[done : done + len(batch)] = _resize(
                torch.from_numpy(np.stack(batch) if len(batch) > 1 else frame[None]), height, width
            )
            done += len(batch)
            batch = []
    if out is None or done < count:
        raise BackendError(f"only {done} of {count} frames came")
    return out


def _resize(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """``(T, H, W, C)`` uint8 to ``(T, C, height, width)``, whole numbers, exactly as torchvision resizes uint8."""
    if frames.shape[1:3] == (height, width):
        return frames.permute(0, 3, 1, 2)
    # permuted, not copied: the kernel for interleaved channels is about twice as fast
    resized = interpolate(
        frames.permute(0, 3, 1, 2).float(), size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    return resized.clamp_(0, 255).round_()
