"""Whatever a caller passes as ``videos``, as frames whose times are known."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.video_utils import VideoMetadata

from timelens_plugins.video import FrameSampling, VideoClip, sample_frames

__all__ = ["HeldClip", "TimedFrames", "timed_videos"]

_REMEDY = (
    "pass a VideoClip (timelens_plugins.video.sample_frames), a path, or frames with one video_metadata entry each "
    "that holds fps and frames_indices"
)


class HeldClip:
    """A clip inside a message: transformers turns dataclasses there into dicts (from 5.24 on), but not this."""

    __slots__ = ("clip",)

    def __init__(self, clip: VideoClip) -> None:
        self.clip = clip


@dataclass(frozen=True)
class TimedFrames:
    """Frames at the size the model sees, and when they were.

    Attributes:
        frames: shape ``(T, 3, H, W)``, values 0..255.
        metadata: with ``fps`` and ``frames_indices``; their quotient is the frames' times in seconds.
    """

    frames: Tensor
    metadata: VideoMetadata

    @property
    def times(self) -> list[float]:
        """Seconds, one per frame."""
        times: list[float] = [float(t) for t in self.metadata.timestamps]
        return times

    @property
    def duration(self) -> float:
        """Seconds of the whole clip: as stated, or frame count / frame rate."""
        if self.metadata.duration is not None:
            return float(self.metadata.duration)
        assert self.metadata.fps is not None
        return float(self.metadata.total_num_frames / self.metadata.fps)


def timed_videos(videos: Any, video_metadata: Any, sampling: FrameSampling) -> list[TimedFrames]:
    """A flat list of the videos in prompt order.

    Args:
        videos: one video or a list of them, nested lists allowed. A video is a :class:`VideoClip`; a path, sampled
            here; a pair ``(frames, metadata)``; or frames (tensor or array ``(T, C, H, W)`` or ``(T, H, W, C)``, or a
            list of pictures) whose metadata stands in ``video_metadata``.
        video_metadata: one :class:`VideoMetadata` or dict per video that is given as bare frames; entries of the other
            videos may be None. None for no entry at all.
        sampling: frame rate and pixel budget for paths.

    Raises:
        ValueError: frames whose times are unknown, whose number differs from their metadata, or whose sides are no
            multiples of the model's token size; a video that cannot be read (``VideoError``).
    """
    flat = _flatten(videos)
    metadata = _flatten_metadata(video_metadata, len(flat))
    return [
        _timed(video, entry, sampling, position)
        for position, (video, entry) in enumerate(zip(flat, metadata, strict=True))
    ]


def _timed(video: Any, entry: Any, sampling: FrameSampling, position: int) -> TimedFrames:
    name = f"video {position}"
    if isinstance(video, HeldClip):
        video = video.clip
    if isinstance(video, str | PathLike):
        video = sample_frames(fspath(video), sampling)
    if isinstance(video, VideoClip):
        timed = TimedFrames(video.frames, video.metadata())
        name = str(video.path)
    else:
        if isinstance(video, tuple):
            video, entry = video
        timed = TimedFrames(_as_tensor(video, name), _as_metadata(entry, name))
    height, width = timed.frames.shape[-2:]
    factor = sampling.pixel_factor
    if height % factor or width % factor:
        raise ValueError(
            f"{name}: frames of {width}x{height} pixels, but this model's tokens are squares of {factor} pixels; "
            f"resize the frames first, as sample_frames does with FrameSampling(patch_size={sampling.patch_size})"
        )
    indices = timed.metadata.frames_indices
    if indices is None or len(indices) != len(timed.frames):
        raise ValueError(
            f"{name}: {len(timed.frames)} frames but {0 if indices is None else len(indices)} frames_indices"
        )
    return timed


def _is_one_video(value: Any) -> bool:
    if isinstance(value, VideoClip | HeldClip | str | PathLike):
        return True
    if isinstance(value, Tensor | np.ndarray):
        return bool(value.ndim == 4)
    if isinstance(value, tuple) and len(value) == 2:
        return isinstance(value[1], VideoMetadata | Mapping)
    return isinstance(value, list | tuple) and len(value) > 0 and all(_is_picture(item) for item in value)


def _is_picture(value: Any) -> bool:
    return isinstance(value, Image.Image) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 3)


def _flatten(videos: Any) -> list[Any]:
    if _is_one_video(videos):
        return [videos]
    if isinstance(videos, Tensor | np.ndarray) and videos.ndim == 5:
        return list(videos)
    if not isinstance(videos, list | tuple):
        raise ValueError(f"cannot read a {type(videos).__name__} as a video; {_REMEDY}")
    return [video for item in videos for video in _flatten(item)]


def _flatten_metadata(entries: Any, count: int) -> list[Any]:
    if entries is None:
        return [None] * count
    if isinstance(entries, VideoMetadata | Mapping):
        entries = [entries]
    flat = [e for item in entries for e in (item if isinstance(item, list | tuple) else [item])]
    if len(flat) != count:
        raise ValueError(f"{count} videos but {len(flat)} video_metadata entries; pass one per video")
    return flat


def _as_metadata(entry: Any, name: str) -> VideoMetadata:
    if entry is None:
        raise ValueError(f"{name}: the times of its frames are unknown; {_REMEDY}")
    if not isinstance(entry, VideoMetadata):
        unknown = set(entry) - set(VideoMetadata.__dataclass_fields__)
        if unknown:
            raise ValueError(f"{name}: unknown video_metadata fields {', '.join(sorted(unknown))}")
        entry = VideoMetadata(**{"total_num_frames": None, **entry})
    missing = [field for field in ("fps", "frames_indices", "total_num_frames") if getattr(entry, field) is None]
    if missing:
        raise ValueError(f"{name}: video_metadata lacks {', '.join(missing)}, so the times are unknown; {_REMEDY}")
    indices = entry.frames_indices
    indices = indices.tolist() if isinstance(indices, Tensor | np.ndarray) else list(indices)
    if not entry.fps > 0:
        raise ValueError(f"{name}: video_metadata has fps={entry.fps}; the frame rate must be positive")
    if any(b < a for a, b in itertools.pairwise(indices)):
        raise ValueError(f"{name}: frames_indices of video_metadata do not ascend")
    return VideoMetadata(
        total_num_frames=entry.total_num_frames,
        fps=float(entry.fps),
        width=entry.width,
        height=entry.height,
        duration=entry.duration,
        video_backend=entry.video_backend,
        frames_indices=indices,
    )


def _as_tensor(video: Any, name: str) -> Tensor:
    if isinstance(video, Sequence):
        pictures = [np.array(p.convert("RGB")) if isinstance(p, Image.Image) else p for p in video]
        if len({tuple(p.shape) for p in pictures}) > 1:
            raise ValueError(f"{name}: its frames differ in size")
        video = torch.stack([torch.as_tensor(p) for p in pictures])
    frames = torch.as_tensor(video)
    if frames.shape[1] != 3 and frames.shape[-1] == 3:
        frames = frames.permute(0, 3, 1, 2)
    if frames.shape[1] != 3 or len(frames) == 0:
        raise ValueError(f"{name}: frames must have shape (T, 3, H, W) or (T, H, W, 3), got {tuple(frames.shape)}")
    return frames
