"""Tables with a header, as spreadsheets and scripts write them: comma, tab, semicolon or bar between the fields.

A quoted field may hold the delimiter, line breaks and doubled quotes. A row that cannot be read costs that row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.json_stream import MAX_ENTRY, Line, lines_of

__all__ = ["Header", "TableRow", "check_header", "column_name", "header_of", "rows_of"]

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
MAX_LINES = 1000  # of one row; a quoted field that runs on longer was not closed


def column_name(text: str) -> str:
    """A heading as it is compared: ``" Video Start"`` is ``video_start``."""
    return re.sub(r"[\s_-]+", "_", text.strip().lower())


@dataclass(frozen=True)
class Header:
    """The first row of a table: the delimiter, and the names of the columns in order."""

    delimiter: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: the line it starts in and its fields, or why it cannot be read."""

    line: int
    fields: list[str]
    reason: str | None = None
    remedy: str = ""


def header_of(path: str | Path, known: frozenset[str]) -> Header | None:
    """The header with the delimiter that shows most of the ``known`` columns; None for an empty file.

    Where no column is known the first row is no header; the delimiter is then the one that gives most fields.
    """
    best: tuple[tuple[int, int], Header] | None = None
    for delimiter in DELIMITERS:
        row = next(_records(path, delimiter), None)
        if row is None:
            return None
        columns = tuple(column_name(field) for field in row.fields)
        rank = (len(known.intersection(columns)), len(columns))
        if best is None or rank > best[0]:
            best = rank, Header(delimiter, columns)
    assert best is not None
    return best[1]


def check_header(file: str, header: Header, known: frozenset[str]) -> None:
    """Refuse a header that names a known column twice.

    Raises:
        AnnotationError: it does.
    """
    for name in header.columns:
        places = [str(i) for i, other in enumerate(header.columns, 1) if other == name]
        if name in known and len(places) > 1:
            reason = f"the column stands {len(places)} times (columns {', '.join(places)})"
            raise AnnotationError(Fault(file, "header", name, reason, "keep one of them, or rename the others"))


def rows_of(path: str | Path, header: Header) -> Iterator[TableRow]:
    """The rows below the header."""
    records = _records(path, header.delimiter)
    next(records, None)
    for row in records:
        count = len(row.fields)
        if row.reason is None and count != len(header.columns):
            reason = f"{count} fields for {len(header.columns)} columns"
            remedy = f'put fields that hold a {DELIMITERS[header.delimiter]} in double quotes, as in "a, b"'
            if count < len(header.columns):
                remedy = "fill the fields that lack, or leave the row out"
            yield TableRow(row.line, [], reason, remedy)
        else:
            yield row


class _NotClosed(Exception):
    """A quoted field goes on for too long."""


def _records(path: str | Path, delimiter: str) -> Iterator[TableRow]:
    """Every row. After a row that cannot be read, its second line is tried as a row."""
    source = _Lines(lines_of(path))
    while source.peek() is not None:
        first = source.start()
        try:
            fields = next(csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True))
            row = TableRow(first, fields)
        except (csv.Error, _NotClosed, UnicodeDecodeError) as error:
            source.restart_after_first()
            row = TableRow(first, [], *_why(error))
        yield row


def _why(error: Exception) -> tuple[str, str]:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 text (byte {error.start + 1} of the line)", "save the table as UTF-8"
    if isinstance(error, _NotClosed) or "unexpected end" in str(error):
        return "a quoted field is not closed", "close it with a double quote"
    if "field larger" in str(error):
        return "a field is too long", "shorten it"
    return (
        f"not a row of a table ({error})",
        'write a double quote inside a quoted field twice, as in "the ""red"" car"',
    )


class _Lines:
    """Lines for a csv reader, which takes as many as a row has; those of a failed row can be taken again."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines, self._again = lines, list[Line]()
        self._taken: list[Line] = []
        self._size = 0

    def peek(self) -> Line | None:
        if not self._again:
            line = next(self._lines, None)
            if line is None:
                return None
            self._again.append(line)
        return self._again[-1]

    def start(self) -> int:
        """Begin a row; returns the number of its first line."""
        self._taken, self._size = [], 0
        line = self.peek()
        assert line is not None  # asked before
        return line.number

    def restart_after_first(self) -> None:
        self._again += reversed(self._taken[1:])
        del self._taken[1:]

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self.peek()
        if line is None:
            raise StopIteration
        self._again.pop()
        self._taken.append(line)
        self._size += len(line.content)
        if not line.whole:
            raise csv.Error("field larger than a line may be")
        if self._size > MAX_ENTRY or len(self._taken) > MAX_LINES:
            raise _NotClosed
        return line.content.decode("utf-8") + "\n"
