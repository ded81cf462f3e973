"""An annotation file as a sequence of entries, whatever its form: JSON by video, a JSON list, JSON Lines, text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.rows import RepeatedKeys

__all__ = ["Document", "Entry", "Layout", "read_document"]


class Layout(Enum):
    """The outer form of a file. The value is how messages call it."""

    BY_VIDEO = "one JSON object keyed by video"
    ROWS = "a row per JSON object, in a list or line by line"
    TEXT = "lines of text"


@dataclass(frozen=True, slots=True)
class Entry:
    """One video, row or line: its place, its content (``{"line": text}`` of plain text), the key it stands under."""

    label: str
    value: Any
    key: str | None = None
    fault: Fault | None = None  # why the content could not be read


@dataclass(frozen=True)
class Document:
    """A whole file."""

    file: str
    layout: Layout
    entries: Sequence[Entry]


def read_document(path: str | Path) -> Document:
    """Read a file into entries; what a single entry lacks is left for its reader to say.

    Raises:
        OSError: the file cannot be read.
        AnnotationError: it is not UTF-8, is empty, or is a JSON document that breaks off.
    """
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _file_error(file, f"not UTF-8 text (byte {error.start})", "is this an annotation file?") from None
    start = text.lstrip()[:1]
    if not start:
        raise _file_error(file, "empty", "fetch or write it again")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if start not in "{[":
        return Document(file, Layout.TEXT, [Entry(f"line {number}", {"line": line.strip()}) for number, line in lines])
    if len(lines) > 1 and _is_object(lines[0][1]):
        return _json_lines(file, lines)
    try:
        return _whole(file, _parse(text))
    except ValueError as error:
        if start == "{" and any(_is_object(line) for _, line in lines):
            return _json_lines(file, lines)
        raise _file_error(file, f"broken JSON: {error}", "fetch or write it again") from None


_ROW_KEYS = {"doc_id", "query", "video_path"}
"""Fields of a single row, which may hold objects too; no video is called like that."""


def _json_lines(file: str, lines: Sequence[tuple[int, str]]) -> Document:
    return Document(file, Layout.ROWS, [_line_entry(file, number, line) for number, line in lines])


def _whole(file: str, content: Any) -> Document:
    if isinstance(content, list):
        return Document(file, Layout.ROWS, [Entry(f"row {i}", value) for i, value in enumerate(content, 1)])
    if content.keys() & _ROW_KEYS or not any(isinstance(value, dict) for value in content.values()):
        return Document(file, Layout.ROWS, [Entry("row 1", content)] if content else [])
    repeated = content.repeated if isinstance(content, RepeatedKeys) else {}
    entries = []
    for video, value in content.items():
        label = f"video {video!r}"
        fault = None
        if video in repeated:
            reason = f"the video stands {repeated[video]} times in the file, and JSON readers keep only the last"
            fault = Fault(file, label, None, reason, "merge its annotations under one key")
        entries.append(Entry(label, value, video, fault))
    return Document(file, Layout.BY_VIDEO, entries)


def _line_entry(file: str, number: int, line: str) -> Entry:
    label = f"line {number}"
    try:
        return Entry(label, _parse(line))
    except ValueError as error:
        reason = f"broken JSON: {error}"
        return Entry(label, None, fault=Fault(file, label, None, reason, "restore the line, or remove it"))


def _parse(text: str) -> Any:
    """JSON with repeated keys kept in sight. NaN and infinity pass as numbers: who reads the field refuses them."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    return content if len(content) == len(pairs) else RepeatedKeys(pairs)


def _is_object(line: str) -> bool:
    try:
        return isinstance(_parse(line), dict)
    except ValueError:
        return False


def _file_error(file: str, reason: str, remedy: str) -> AnnotationError:
    return AnnotationError(Fault(file, None, None, reason, remedy))
