"""Whether a file still has the content it had: by a digest of all its bytes, read again only where it may have changed.

A digest is kept with the file's state (see :mod:`timelens_plugins.file_state`). Where the state is the same, so is the
content.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from timelens_plugins.file_state import State, settled, state_of

__all__ = ["Contents"]


class Contents:
    """Files as they are now, against stamps of what they were."""

    def __init__(self) -> None:
        self._digests: dict[str, tuple[State, str]] = {}

    def stamp(self, path: str, before: State | None) -> dict[str, Any] | None:
        """What tells the content of a file, as JSON types; None where it changed since it was in the state ``before``.

        What is not there, such as an address, has no content to tell, and stays the same while it is none.

        Raises:
            OSError: it cannot be read, or is a folder or the like.
        """
        if state_of(path) != before:
            return None
        if before is None:
            return {"size": None, "digest": "", "state": None}
        digest = self._digest(path, before)
        if digest is None:
            return None
        return {"size": before[0], "digest": digest, "state": list(before) if settled(before) else None}

    def same(self, path: str, state: State | None, stamp: Mapping[str, Any]) -> bool:
        """Whether the file, which is in this state now, has the content that a :meth:`stamp` of it tells."""
        if state is None or state[0] != stamp.get("size"):
            return state is None and stamp.get("size") is None
        if stamp.get("state") == list(state):
            return True
        try:
            return self._digest(path, state) == stamp.get("digest")
        except OSError:
            return False

    def _digest(self, path: str, state: State) -> str | None:
        """Of the file in this state; None where it changes while it is read."""
        known = self._digests.get(path)
        if known is None or known[0] != state:
            if not os.path.isfile(path):
                raise OSError(errno.EINVAL, "is no regular file", path)
            with open(path, "rb") as file:
                known = state, hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            if state_of(path) != state:
                return None
            self._digests[path] = known
        return known[1]
