"""What names a clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["ClipKey"]


class ClipKey(NamedTuple):
    """What has to be decoded: a file, or the window ``video_start..video_end`` (seconds) of it."""

    video: str
    video_start: float | None = None
    video_end: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ClipKey:
        """The clip of a row of :func:`~timelens_plugins.training.dataset.moments_dataset`."""
        return cls(row["video"], row.get("video_start"), row.get("video_end"))
