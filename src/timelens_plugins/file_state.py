"""By what a file is known to be unchanged, without reading it.

Size, time of the last change of the content, time of the last change of anything (ctime), inode. The time of the
content alone would not do, as programs that copy files set it; ctime is set by the system. Where a file system keeps no
ctime of its own, it is the other time once more.
"""

from __future__ import annotations

import os
import time

__all__ = ["State", "settled", "state_of"]

_SETTLED = 2_000_000_000
"""Nanoseconds after which a further change is sure to have another time; file systems count in steps of up to 2 s."""

State = tuple[int, int, int, int]
"""Size in bytes, mtime and ctime in nanoseconds, inode."""


def state_of(path: str) -> State | None:
    """None where there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def settled(state: State) -> bool:
    """Whether the last change is so long ago that a further one cannot have the same time."""
    return time.time_ns() - max(state[1:3]) > _SETTLED
