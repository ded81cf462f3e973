"""Decoded frames kept on disk, for the next run about the same clips: difficulty, then training, then evaluation.

A folder with a file for each clip: a checksum of all that follows, and a safetensors file of the frames as a processor
gets them (after resizing), their indices and times. Its name is a digest of all that the frames depend on: the file's
path, size, times and inode, frame sampling, window, backends, and the releases that decode and resize. So a file that
was replaced is another clip, and other settings are.

Any number of processes may share a folder. Entries are written beside their place and renamed, so each is whole or not
there; one that its checksum does not fit is decoded again and replaced. Which was used last is told by the time of the
file's last change, which every use sets.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

import timelens_plugins
from timelens_plugins.atomic import replacing
from timelens_plugins.file_state import State, settled, state_of

__all__ = ["CACHE_GB", "FrameCache", "check_bound", "open_cache"]

logger = logging.getLogger(__name__)

CACHE_GB = 20.0
"""Bound where none is given. A clip of 14,336 vision tokens of 32 x 32 pixels takes 0.09 GB."""

_FORMAT = 1
_SUFFIX = ".frames"
_CHECKSUM = 16  # bytes
_ABANDONED = 3600.0  # seconds after which what a writer left behind is its remains

Entry = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and values of JSON types, of a clip."""


class FrameCache:
    """Entries of a folder.

    Args:
        folder: made where missing.
        most_bytes: of all entries together. What was used longest ago goes first. While several processes write at the
            same moment, it may be exceeded by what they write.

    Attributes:
        counts: clips that were ``read`` here, that were ``kept`` after they had been decoded, whose entry was
            ``damaged``, that were ``removed`` for others, and that could not be kept: ``too large``, ``just changed``
            (a further change of the file would not show) or ``unwritable``.

    Raises:
        ValueError: the folder is a file, or the bound is none.
        OSError: it cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], most_bytes: int) -> None:
        if most_bytes < 1:
            raise ValueError(f"cache_gb must be above 0, got {most_bytes / 1e9:g}")
        self.folder = Path(folder).expanduser()
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"cache={self.folder} is a file; frames are kept in a folder: choose another name")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.most_bytes = most_bytes
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def place(self, video: str, state: State | None, settings: Sequence[Any]) -> Path | None:
        """Where the frames of a clip are, or would be; None where there is no such file.

        Args:
            video: path of the file.
            state: of the file, from before it is read.
            settings: all that the frames depend on besides, JSON types.
        """
        if state is None:
            return None
        content = json.dumps([_FORMAT, _releases(), os.path.realpath(video), state, settings])
        return self.folder / (hashlib.blake2b(content.encode(), digest_size=20).hexdigest() + _SUFFIX)

    def read(self, place: Path) -> Entry | None:
        """An entry; None where there is none, or none that can be trusted."""
        try:
            data = place.read_bytes()
            with contextlib.suppress(OSError):  # a folder of somebody else's
                os.utime(place)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._count("damaged")
            logger.warning("%s: cannot be read (%s); the clip is decoded again", place, error.strerror)
            return None
        try:
            if len(data) < _CHECKSUM or _checksum(memoryview(data)[_CHECKSUM:]) != data[:_CHECKSUM]:
                raise ValueError("its checksum does not fit")
            tensors = load(data[_CHECKSUM:])
            values = json.loads(tensors.pop("values").numpy().tobytes())
        except (ValueError, KeyError, SafetensorError) as error:
            self._count("damaged")
            logger.warning("%s: damaged (%s); the clip is decoded again", place, error)
            return None
        self._count("read")
        return tensors, values

    def keep(self, place: Path, video: str, state: State, tensors: Mapping[str, Tensor], values: Any) -> None:
        """Write an entry, if the file is as it was before it was read; what goes wrong is counted and no error."""
        if state_of(video) != state or not settled(state):
            self._count("just changed")
            return
        text = torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)
        data = save({**{name: tensor.contiguous() for name, tensor in tensors.items()}, "values": text})
        if len(data) + _CHECKSUM > self.most_bytes:
            self._count("too large")
            return
        try:
            with replacing(place) as part, part.open("wb") as file:
                file.write(_checksum(data))
                file.write(data)
            self._count("kept")
            self._make_room(place)
        except OSError as error:
            if not self.counts["unwritable"]:
                logger.warning("%s: frames cannot be kept (%s); the run goes on without", self.folder, error)
            self._count("unwritable")

    def summary(self) -> str:
        """A line for the end of a run."""
        counts = self.counts
        line = f"frames kept in {self.folder}: {counts['read']} clips read, {counts['kept']} decoded and kept"
        rest = ("damaged", "removed", "too large", "just changed", "unwritable")
        return line + "".join(f", {counts[name]} {name}" for name in rest if counts[name])

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def _make_room(self, newest: Path) -> None:
        entries: list[tuple[float, int, Path]] = []
        total, now = 0, time.time()
        with os.scandir(self.folder) as files:
            for file in files:
                with contextlib.suppress(FileNotFoundError):  # another process has removed it
                    stat = file.stat()
                    if file.name.endswith(_SUFFIX):
                        total += stat.st_size
                        entries.append((stat.st_mtime, stat.st_size, Path(file.path)))
                    elif f"{_SUFFIX}." in file.name and now - stat.st_mtime > _ABANDONED:
                        os.unlink(file.path)
        for _, size, path in sorted(entries):
            if total <= self.most_bytes:
                return
            if path == newest:
                continue
            total -= size
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                self._count("removed")


def open_cache(folder: str | os.PathLike[str] | None, gigabytes: float | None = None) -> FrameCache | None:
    """A cache by the settings of a run, ``cache`` and ``cache_gb``; None without a folder.

    Raises:
        ValueError: a bound without a folder; and as :class:`FrameCache`.
    """
    check_bound(folder, gigabytes)
    if folder is None:
        return None
    return FrameCache(folder, int(float(CACHE_GB if gigabytes is None else gigabytes) * 1e9))


def check_bound(folder: str | os.PathLike[str] | None, gigabytes: float | None) -> None:
    """Look at the settings of a cache before anything is made.

    Raises:
        ValueError: a bound without a folder, or one that is none.
    """
    if gigabytes is None:
        return
    if folder is None:
        raise ValueError(f"cache_gb={gigabytes} without cache=FOLDER has no effect")
    if not 0 < float(gigabytes) < math.inf:
        raise ValueError(f"cache_gb must be above 0, got {gigabytes}")


@functools.cache
def _releases() -> dict[str, str]:
    """Of what decodes and resizes, as far as it is installed."""
    found = {"timelens-plugins": timelens_plugins.__version__}
    for package in ("torch", "av", "decord", "torchcodec"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _checksum(data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, digest_size=_CHECKSUM).digest()
