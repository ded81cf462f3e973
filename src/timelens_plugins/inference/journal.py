"""An append-only record of finished work, so that a killed run continues where it stopped.

A JSON Lines file: a first line with the settings that produced it, then one line per finished item. Every line is
flushed and synced before the next item starts; a last line cut off by a kill is dropped on opening, and said.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Journal", "JournalError"]

logger = logging.getLogger(__name__)

_SETTINGS = "settings"
_KEY = "key"


class JournalError(ValueError):
    """A journal that does not belong to this run, or is damaged before its last line."""


class Journal(Mapping[str, dict[str, Any]]):
    """Finished items by key; opening creates or continues ``path``.

    Args:
        path: the file; its folder is created.
        settings: what the items depend on (model, prompt, sampling …), JSON values. Continuing a journal written under
            other settings raises :class:`JournalError` that names what differs.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._items: dict[str, dict[str, Any]] = {}
        settings = json.loads(json.dumps(settings, sort_keys=True))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        complete = self._read(settings)
        self._file = self.path.open("r+b" if complete is not None else "wb")
        self._file.seek(complete or 0)
        self._file.truncate()
        if complete is None:
            self._append({_SETTINGS: settings})

    @classmethod
    def read(cls, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The finished items of a journal that another process may be writing; the file is left as it is."""
        journal = cls.__new__(cls)
        journal.path, journal._items = Path(path), {}
        journal._read(json.loads(json.dumps(settings, sort_keys=True)))
        return journal._items

    def _read(self, settings: Mapping[str, Any]) -> int | None:
        """Load what is there; returns the length in bytes of its complete lines, None where nothing is."""
        if not self.path.exists():
            return None
        data = self.path.read_bytes()
        complete = data.rfind(b"\n") + 1
        if complete < len(data):
            logger.warning("%s: the last line was cut off by a kill and is dropped", self.path)
        lines = data[:complete].splitlines()
        if not lines:
            return None
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._check(record[_SETTINGS], settings)
                else:
                    self._items[record[_KEY]] = record
            except JournalError:
                raise
            except (ValueError, TypeError, KeyError) as error:
                raise JournalError(
                    f"{self.path}, line {number} is damaged ({error}); delete the file to start over"
                ) from error
        logger.info("%s: continuing after %d finished items", self.path, len(self._items))
        return complete

    def _check(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
        if differing:
            details = "; ".join(f"{k}: {found.get(k)!r} there, {wanted.get(k)!r} here" for k in differing)
            raise JournalError(
                f"{self.path} was written under other settings ({details}); choose another file or delete it"
            )

    def _append(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Keep a finished item; it survives whatever happens next."""
        if key in self._items:
            raise ValueError(f"{self.path}: item {key!r} is recorded already")
        record = {_KEY: key, **record}
        self._append(record)
        self._items[key] = record

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def close(self) -> None:
        """Close the file; the items stay readable."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
