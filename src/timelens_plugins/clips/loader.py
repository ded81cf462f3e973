"""Clips read ahead for training: decoded, resized and through the processor while the model computes."""

from __future__ import annotations

import copy
import logging
import threading
from dataclasses import replace
from typing import Any

from timelens_plugins.clips.key import ClipKey
from timelens_plugins.clips.prompts import LoadedClip, load_clip
from timelens_plugins.clips.read_ahead import OnBadVideo, ReadAhead
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.video import FrameCache, open_cache, sample_frames

__all__ = ["ClipLoader"]

logger = logging.getLogger(__name__)


class ClipLoader(ReadAhead[LoadedClip]):
    """Clips with their prompts, ahead of their use.

    Args:
        processor: from :func:`~timelens_plugins.encodings.load_processor`; its ``frame_sampling`` decides frames and
            pixels. Each thread works with a copy.
        workers, on_bad_video, ahead: as :class:`ReadAhead`.
        backend, cache: as :func:`~timelens_plugins.video.sample_frames`.
    """

    def __init__(
        self,
        processor: InterleavedTimestampsMixin,
        workers: int = 2,
        on_bad_video: OnBadVideo = "error",
        *,
        ahead: int = 4,
        backend: str = "auto",
        cache: FrameCache | None = None,
    ) -> None:
        super().__init__(self._load, workers, on_bad_video, ahead=ahead)
        self.processor = processor
        self._backend, self.cache = backend, cache
        # Fast tokenizers cannot be used, nor copied, by two threads at a time.
        self._copies = [copy.deepcopy(processor) for _ in range(workers)]
        self._local = threading.local()

    @classmethod
    def by_settings(cls, processor: InterleavedTimestampsMixin, settings: Any) -> ClipLoader:
        """By a trainer's :class:`~timelens_plugins.training.settings.ClipSettings`."""
        return cls(
            processor,
            settings.clip_workers,
            settings.on_bad_video,
            ahead=settings.clips_ahead,
            backend=settings.video_backend,
            cache=open_cache(settings.cache, settings.cache_gb),
        )

    def clear(self) -> None:
        """As the parent's; says what the cache did so far."""
        super().clear()
        if self.cache is not None and self.cache.counts:
            logger.info("%s", self.cache.summary())

    def _load(self, key: ClipKey) -> LoadedClip:
        clip = sample_frames(
            key.video,
            self.processor.frame_sampling,
            video_start=key.video_start,
            video_end=key.video_end,
            backend=self._backend,
            cache=self.cache,
        )
        if not hasattr(self._local, "processor"):
            # No more threads than copies; without threads, the caller's own.
            self._local.processor = self._copies.pop() if self._copies else self.processor
        return replace(load_clip(self._local.processor, clip), processor=self.processor)
