"""JSON of finished runs in bounded memory: result files a row at a time, records as documents of bounded content."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from timelens_plugins.moments.json_stream import (
    MAX_ENTRY,
    BrokenJson,
    JsonStream,
    Line,
    chunks_of,
    lines_of,
    parse_json,
)
from timelens_plugins.moments.rows import RepeatedKeys

__all__ = ["SEPARATOR", "is_keyed", "read_json", "read_rows", "short"]

SEPARATOR = ">>>"  # in the keys of TimeLens's results
_FIRST_KEY = re.compile(r'\s*\{\s*("(?:[^"\\]|\\.)*")')
MOST_VALUES = 5_000_000  # of a document: some 500 MB as Python objects


def read_json(path: str | Path) -> Any:
    """A whole JSON document of moderate size, such as what a trainer or lmms-eval records of a run.

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, or holds more than ``MOST_VALUES`` values.
        OSError: it cannot be read.
    """
    raw = Path(path).read_bytes()
    # Every value but the first follows a comma or an opening bracket: the bound holds before anything is built.
    if sum(map(raw.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError(f"{path}: holds more than {MOST_VALUES:,} values, which is more than is read")
    try:
        return parse_json(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered rows: lines of a jsonl file; entries of an object keyed by results, each as an object of one key.

    Raises:
        ValueError: the file is empty, or a row is no JSON object, not UTF-8, nested too deeply or too long; it names
            file and row.
        OSError: the file cannot be read.
    """
    lines = lines_of(path)
    if (first := next(lines, None)) is None:
        raise ValueError(f"{path}: the file is empty")
    second = next(lines, None)
    if (first.whole and second is not None and _is_json(first)) or not is_keyed(path):
        for line in chain([first], [] if second is None else [second], lines):
            yield from ((line.number, row) for row in _of_line(path, line, lines))
        return
    try:
        for number, (key, value) in enumerate(JsonStream(chunks_of(path)).members(), 1):
            yield number, {key: value}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except BrokenJson as error:
        raise ValueError(f"{path}: not JSON: {error}") from None


def is_keyed(path: str | Path) -> bool:
    """Whether a file begins as an object, or a line of one, that is keyed by results."""
    with Path(path).open("rb") as file:
        found = _FIRST_KEY.match(file.read(1 << 16).decode("utf-8-sig", "ignore"))
    try:
        return found is not None and SEPARATOR in parse_json(found[1])
    except ValueError:
        return False


def _is_json(line: Line) -> bool:
    try:
        parse_json(line.content.decode("utf-8"))
    except ValueError:
        return False
    return True


def _of_line(path: str | Path, line: Line, following: Iterator[Line]) -> list[dict[str, Any]]:
    """The row of a line; the rows, where it is an object keyed by several results."""
    if not line.whole:
        raise ValueError(f"{path}: line {line.number} is longer than {MAX_ENTRY:,} bytes")
    try:
        text = line.content.decode("utf-8")
        value = parse_json(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: line {line.number}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except ValueError as error:
        what = (
            f"{error.msg.removesuffix(' at')} at column {error.colno}"
            if isinstance(error, json.JSONDecodeError)
            else str(error)
        )
        cut = "" if next(following, None) else "; the file seems cut off"
        raise ValueError(f"{path}: line {line.number} is not JSON: {what}{cut}") from None
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{path}: row {line.number}: expected a JSON object with at least one key, got {short(value)}")
    if SEPARATOR in next(iter(value)) and (len(value) > 1 or isinstance(value, RepeatedKeys)):
        return [{key: entry} for key, entry in JsonStream([text]).members()]
    return [value]


def short(value: Any) -> str:
    """A value in a few words, for messages."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
