"""Clips made ready in the background while the model computes, each once, however often it is wanted."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, Literal, Self, TypeVar

from timelens_plugins.clips.key import ClipKey
from timelens_plugins.video import VideoError

__all__ = ["OnBadVideo", "ReadAhead"]

logger = logging.getLogger(__name__)

OnBadVideo = Literal["error", "skip"]

Ready = TypeVar("Ready")

_MOST = 8
"""Threads, where their number is found by itself."""

_NOTABLE = 0.05
"""Of the time between two clips, for which a wait is one."""


class ReadAhead(Generic[Ready]):
    """Clips as a function makes them, ahead of their use.

    The user says which clips will be needed (:meth:`request`) and takes them when they are (:meth:`take`, or
    :meth:`held` where the next one is not to be begun before this one is done with).

    Args:
        read: makes a clip ready; called in threads.
        workers: threads; 0 reads each clip when it is taken. None: at first one clip is read while another is used, and
            each time the next was waited for, one more at a time, up to the processor's cores and 8.
        on_bad_video: at an unreadable video :meth:`take` raises its :class:`VideoError` (``"error"``), or logs it,
            counts it and returns None (``"skip"``).
        ahead: clips in memory, being read, or read and not yet taken for the last time. Never exceeded, except by
            a clip that is taken before its turn. With ``workers=None`` it is found, and not given.

    Attributes:
        waited: seconds in which :meth:`take` and :meth:`held` waited for a clip.
        skipped: path -> fault, of videos that :meth:`take` skipped.
        decoded: how many clips were read so far.
    """

    def __init__(
        self,
        read: Callable[[ClipKey], Ready],
        workers: int | None,
        on_bad_video: OnBadVideo = "error",
        *,
        ahead: int | None = None,
    ) -> None:
        if on_bad_video not in ("error", "skip"):
            raise ValueError(f"on_bad_video must be 'error' or 'skip', got {on_bad_video!r}")
        self._most = _most_ahead()
        if workers is None:
            workers, ahead = self._most - 1, 2
        elif ahead is None or workers < 0 or ahead < 1:
            raise ValueError(f"workers must be at least 0 and ahead at least 1, got {workers} and {ahead}")
        else:
            self._most = ahead
        self.on_bad_video = on_bad_video
        self.skipped: dict[str, str] = {}
        self.decoded = 0
        self.waited = 0.0
        self._taken: float | None = None  # when the last clip was
        self._read, self._ahead = read, ahead
        self._wanted: OrderedDict[ClipKey, int] = OrderedDict()  # how often each clip will still be taken, in order
        self._held: dict[ClipKey, Future[Ready]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="clips") if workers else None

    def request(self, clips: Iterable[ClipKey | Mapping[str, Any]]) -> None:
        """Announce that each of these clips (or rows that hold one) will be taken once more, in this order."""
        with self._lock:
            for clip in clips:
                key = clip if isinstance(clip, ClipKey) else ClipKey.of(clip)
                self._wanted[key] = self._wanted.get(key, 0) + 1
            self._start_next()

    def take(self, clip: ClipKey | Mapping[str, Any]) -> Ready | None:
        """The clip, once it is ready. Kept for the other takes that were requested, let go after the last.

        Returns:
            None for an unreadable video where ``on_bad_video="skip"``.

        Raises:
            VideoError: an unreadable video where ``on_bad_video="error"``.
        """
        key = clip if isinstance(clip, ClipKey) else ClipKey.of(clip)
        try:
            with self.held(key) as ready:
                return ready
        except VideoError as error:
            if self.on_bad_video == "error":
                raise
            if key.video not in self.skipped:
                logger.error("skipped: %s", error)
            self.skipped[key.video] = error.fault
            return None

    @contextmanager
    def held(self, key: ClipKey) -> Iterator[Ready]:
        """The clip, once it is ready; it counts among those in memory until the block ends.

        Raises:
            VideoError: an unreadable video.
        """
        begin = time.perf_counter()
        with self._lock:
            future = self._held.get(key) or self._start(key)
        late = not future.done()
        try:
            try:
                ready = future.result()
            finally:
                self._note_wait(begin, late)
            yield ready
        finally:
            with self._lock:
                self._wanted_once_less(key)
                self._start_next()

    def withdraw(self, clips: Iterable[ClipKey | Mapping[str, Any]]) -> None:
        """Take requests back: each of these clips will be taken once less than was announced."""
        with self._lock:
            for clip in clips:
                self._wanted_once_less(clip if isinstance(clip, ClipKey) else ClipKey.of(clip))
            self._start_next()

    def clear(self) -> None:
        """Forget what was requested and never taken, as when a loop over the data ends early."""
        with self._lock:
            for future in self._held.values():
                future.cancel()
            self._wanted.clear()
            self._held.clear()

    def close(self) -> None:
        """:meth:`clear`, and stop the threads."""
        self.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note_wait(self, begin: float, late: bool) -> None:
        now = time.perf_counter()
        self.waited += now - begin
        # The first clip is always waited for, and says nothing of the others.
        if late and self._taken is not None and now - begin > _NOTABLE * (now - self._taken):
            with self._lock:
                self._ahead = min(self._ahead + 1, self._most)
                self._start_next()
        self._taken = now

    def _wanted_once_less(self, key: ClipKey) -> None:
        self._wanted[key] = self._wanted.get(key, 1) - 1
        if self._wanted[key] <= 0:
            del self._wanted[key]
            if (future := self._held.pop(key, None)) is not None:
                future.cancel()  # where it has not begun

    def _start_next(self) -> None:
        if self._pool is None:
            return
        for key in self._wanted:
            if len(self._held) >= self._ahead:
                return
            if key not in self._held:
                self._start(key)

    def _start(self, key: ClipKey) -> Future[Ready]:
        if self._pool is not None:
            future = self._pool.submit(self._read, key)
        else:
            future = Future()
            try:
                future.set_result(self._read(key))
            except Exception as error:  # raised where the clip is taken, as a thread's would be
                future.set_exception(error)
        self._held[key] = future
        self.decoded += 1
        return future


def _most_ahead() -> int:
    """Clips in memory where their number is found: one that is used, and one for each core this process has."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 + max(1, min(_MOST, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))
