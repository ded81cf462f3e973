"""Finished work about videos, kept one answer at a time, so that nothing is lost and nothing stale comes back.

A folder::

    JOURNAL/<digest of settings>/settings.json    what its answers depend on: model, processor, prompt, sampling …
    JOURNAL/<digest of settings>/<writer>.jsonl   a line for each finished item, checksum and JSON, and an empty one

Every process writes a file of its own, which nobody else ever touches, and reads the files of all. So any number of
runs and processes may share a folder, at the same time or one after the other, on a file system without locks, too: a
data base would need them, and would lose more than a record where a byte of it is damaged. A line is synced before the
next item begins. A line that was cut off by a kill, or that its checksum does not fit, costs the item it held.

Answers that were given under other settings stay where they are and do not count. An item says which content its video
had; where the file has another one by now, it does not count either. Both is said, with what has changed.

A file only grows. Where a line cannot be written or synced, its file is left as it is and the next line begins another
one: whoever reads meanwhile may have seen a part of it, or all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from timelens_plugins.atomic import NO_FOLLOW, write_whole
from timelens_plugins.file_state import State, state_of
from timelens_plugins.inference.contents import Contents

__all__ = ["Journal", "JournalError", "check_folder", "differences"]

logger = logging.getLogger(__name__)

_SETTINGS_FILE = "settings.json"
_KEY, _VIDEO = "key", "video"
_SHOWN = 3


class JournalError(ValueError):
    """Finished work that is not there any more, or a journal that is none."""


class Journal:
    """The finished items of a folder under given settings. A context manager.

    Args:
        folder: of the journal; created where missing.
        settings: all that answers depend on besides their own key and video, JSON values.
        note: for a person who looks into the folder; not compared.

    Raises:
        JournalError: ``folder`` is a file.
        OSError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        note: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = check_folder(folder)
        self.settings: dict[str, Any] = json.loads(json.dumps(settings, sort_keys=True))
        text = json.dumps(self.settings, sort_keys=True)
        self.path = self.folder / hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        self._contents = Contents()
        self._items: dict[str, list[dict[str, Any]]] = {}
        # Item that was looked up, and path of its video -> the video's file then, before it is decoded. Videos of one
        # name in several folders may share a key.
        self._begun: dict[tuple[str, str], State | None] = {}
        self._read: dict[str, int] = {}  # file name -> bytes that were read
        self._file: int | None = None
        self._own: set[str] = set()  # names of files that this object wrote
        self.path.mkdir(parents=True, exist_ok=True)
        for path, line in self.refresh().items():
            logger.warning(
                "%s: line %d, the last one, is cut off (by a kill, or it is being written) and is left out", path, line
            )
        self._name_old_format()
        if _settings_in(self.path) != self.settings:
            write_whole(
                self.path / _SETTINGS_FILE,
                json.dumps({"settings": self.settings, "note": dict(note or {})}, indent=1, sort_keys=True) + "\n",
            )
        if self._items:
            logger.info("%s: continuing after %d finished items", self.path, len(self._items))
        else:
            self._say_what_changed()

    def __len__(self) -> int:
        """How many items are finished, whatever became of their videos."""
        return len(self._items)

    def __iter__(self) -> Iterator[str]:
        """Keys of finished items, whatever became of their videos."""
        return iter(self._items)

    def lookup(self, wanted: Iterable[tuple[str, str]]) -> list[dict[str, Any] | None]:
        """What is finished of items, each a key and the path of its video; None for what is not.

        Where an item is finished, but about another content of its video, the log says so. The first record of an item
        counts, in the order in which their writers were started. Videos are looked at again at each call.
        """
        found: list[dict[str, Any] | None] = []
        replaced: Counter[str] = Counter()
        sizes: dict[str, int] = {}
        states: dict[str, State | None] = {}
        for key, video in wanted:
            if video not in states:
                states[video] = state_of(video)
            records = self._items.get(key, [])
            record = self._found(key, video, states[video])
            found.append(record)
            if record is None:
                self._begun.setdefault((key, video), states[video])
            if records and record is None:
                replaced[video] += 1
                sizes[video] = records[-1][_VIDEO].get("size", 0)
        if replaced:
            logger.warning(
                "%s: %d finished items start afresh, as the files of their videos have another content now (%s%s). "
                "What was answered about the old ones is kept",
                self.path,
                replaced.total(),
                "; ".join(
                    f"{video}: {sizes[video]} bytes then, {(states[video] or ('no file',))[0]} now"
                    for video in list(replaced)[:_SHOWN]
                ),
                "; …" if len(replaced) > _SHOWN else "",
            )
        return found

    def has(self, key: str, video: str) -> bool:
        """Whether an item is finished; says nothing in the log."""
        return self._found(key, video, state_of(video)) is not None

    def add(self, key: str, video: str, record: Mapping[str, Any]) -> None:
        """Keep a finished item; it survives whatever happens next.

        Not kept, which the log says: an item whose video has changed since it was first looked up, or cannot be read.

        Raises:
            OSError: it cannot be written, with the name of the file. It may be tried again.
        """
        try:
            item = key, video
            stamp = self._contents.stamp(video, self._begun[item] if item in self._begun else state_of(video))
        except OSError as error:
            logger.warning(
                "%s: the content of %s cannot be told (%s); what was answered is not kept",
                self.path,
                video,
                error.strerror,
            )
            return
        if stamp is None:
            logger.warning("%s: %s changed while it was worked on; what was answered is not kept", self.path, video)
            return
        self.refresh()
        records = self._items.setdefault(key, [])
        if any(known[_VIDEO]["digest"] == stamp["digest"] for known in records):
            return  # an equal question of the same run, or another run was first
        record = {_KEY: key, _VIDEO: stamp, **record}
        self._append(_line(record))
        records.append(record)

    def refresh(self) -> dict[Path, int]:
        """Read what other processes have added since. Damaged records are named in the log.

        Returns:
            Files whose last line is cut off, with its number in what was read.
        """
        cut_off = {}
        for path in sorted(self.path.glob("*.jsonl")):
            if path.name in self._own:
                continue
            start = self._read.get(path.name, 0)
            if path.stat().st_size <= start:
                continue
            with path.open("rb") as file:
                file.seek(start)
                data = file.read()
            *lines, cut = data.split(b"\n")
            self._read[path.name] = start + len(data) - len(cut)
            damaged = []
            for number, line in enumerate(lines, 1):
                if not line:
                    continue
                record = _record(line)
                if record is None:
                    damaged.append(str(number))
                else:
                    self._items.setdefault(record[_KEY], []).append(record)
            after = "" if start == 0 else f" after byte {start}"
            if damaged:
                logger.warning(
                    "%s: %d damaged records%s are left out and start afresh: line %s",
                    path,
                    len(damaged),
                    after,
                    ", ".join(damaged[:20]) + (" …" if len(damaged) > 20 else ""),
                )
            if cut:
                cut_off[path] = len(lines) + 1
        return cut_off

    def close(self) -> None:
        """Close the file; the items stay readable."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _found(self, key: str, video: str, state: State | None) -> dict[str, Any] | None:
        """The first record of an item about the content that its video has now."""
        return next((r for r in self._items.get(key, ()) if self._contents.same(video, state, r[_VIDEO])), None)

    def _append(self, line: bytes) -> None:
        if self._file is None:
            self._writer = self.path / f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._own.add(self._writer.name)
        try:
            if self._file is None:
                self._file = os.open(self._writer, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666)
            left = memoryview(line)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()
            raise type(error)(error.errno, error.strerror, str(self._writer)) from error

    def _name_old_format(self) -> None:
        old = sorted(path.name for path in self.folder.glob("*.jsonl"))
        if old:
            logger.warning(
                "%s: %s %s written by an earlier version, which did not record all that answers depend on. Nothing of "
                "it is used; delete it when it is not needed",
                self.folder,
                ", ".join(old[:_SHOWN]) + (" …" if len(old) > _SHOWN else ""),
                "was" if len(old) == 1 else "were",
            )

    def _say_what_changed(self) -> None:
        """Where there are answers under other settings, the log names the nearest ones and what differs."""
        others: list[tuple[int, float, Path, list[str]]] = []
        for path in self.folder.glob("*/" + _SETTINGS_FILE):
            found = _settings_in(path.parent)
            if path.parent == self.path or found is None or not any(path.parent.glob("*.jsonl")):
                continue
            differing = differences(found, self.settings)
            others.append((len(differing), -path.stat().st_mtime, path.parent, differing))
        if others:
            _, _, nearest, differing = min(others)
            logger.warning(
                "%s: nothing in it was answered under the settings of this run, which starts afresh: %s. What was "
                "answered then is kept in %s, and counts again under its settings",
                self.folder,
                "; ".join(differing),
                nearest,
            )


def check_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder of a journal, made where it is missing: before what takes long.

    Raises:
        JournalError: it is a file.
        OSError: it cannot be made.
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise JournalError(f"{path} is a file; a journal is a folder: choose another name")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _line(record: Mapping[str, Any]) -> bytes:
    content = json.dumps(record).encode()
    return _checksum(content) + b" " + content + b"\n\n"  # where one line end is damaged, the next record is not


def _record(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None where it is damaged."""
    checksum, _, content = line.partition(b" ")
    if checksum != _checksum(content):
        return None
    record: dict[str, Any] = json.loads(content)
    return record


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8).hexdigest().encode()


def _settings_in(folder: Path) -> dict[str, Any] | None:
    try:
        settings = json.loads((folder / _SETTINGS_FILE).read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What differs between two settings of JSON values: names with the old and the new value."""
    found = []
    for name in sorted(then.keys() | now.keys()):
        old, new = then.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {_short(old)} then, {_short(new)} now")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:119] + "…"
