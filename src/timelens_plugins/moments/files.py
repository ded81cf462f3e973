"""An annotation file as entries, whatever its form: JSON by video, a JSON list, JSON Lines, a table, lines of text.

Files are read an entry at a time and again from the start whenever they are iterated, so that their size does not
matter: a file of 200 MB takes what its moments take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.json_stream import (
    MAX_ENTRY,
    BrokenJson,
    JsonStream,
    Line,
    chunks_of,
    lines_of,
    parse_json,
)
from timelens_plugins.moments.tables import check_header, header_of, rows_of

__all__ = ["Document", "Entry", "Layout", "Source", "open_document", "read_document"]

COLUMNS = frozenset(
    {"video", "query", "start", "end", "span", "spans", "duration", "id", "source", "video_start", "video_end"}
)
"""What a table may tell about a moment; two of them in the first row make it a header."""

TABLE_SUFFIXES = (".csv", ".tsv")
HEAD = 50  # lines that decide the form of a file
MAX_NAMES = 5_000_000  # of one object
MOST_VALUES = 20_000_000  # of a file that is held as a whole: some 2 GB as Python objects


class Layout(Enum):
    """The outer form of a file. The value is how messages call it."""

    BY_VIDEO = "one JSON object keyed by video"
    ROWS = "a row per JSON object, in a list or line by line"
    TABLE = "a table with a header"
    TEXT = "lines of text"


@dataclass(frozen=True, slots=True)
class Entry:
    """One video, row or line: its place, its content (``{"line": text}`` of plain text), the key it stands under."""

    label: str
    value: Any
    key: str | None = None
    fault: Fault | None = None  # why the content could not be read


@dataclass(frozen=True)
class Source:
    """A file whose entries are read while they are iterated. ``columns``: of a table, in order."""

    file: str
    layout: Layout
    entries: Iterable[Entry]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document(Source):
    """A whole file, held in memory."""

    entries: Sequence[Entry]


def read_document(path: str | Path) -> Document:
    """All entries of a file at once. See :func:`open_document`.

    Raises:
        AnnotationError: also a file that holds more than ``MOST_VALUES`` values.
    """
    source = open_document(path)
    # Every value but the first of a list or an object follows a comma or an opening bracket: the bound holds before
    # anything is built.
    values = 0
    with Path(path).open("rb") as file:
        while part := file.read(1 << 20):
            values += sum(map(part.count, (b",", b"[", b"{")))
    if values > MOST_VALUES:
        reason = f"holds more than {MOST_VALUES:,} values, which is more than is read at once"
        raise _file_error(source.file, reason, "split the file")
    return Document(source.file, source.layout, list(source.entries), source.columns)


def open_document(path: str | Path, *, table: bool = False) -> Source:
    """A file's form and its entries; what a single entry lacks is left for its reader to say.

    Args:
        path: the file.
        table: whether it has to be a table, whatever its name and first line.

    Raises:
        OSError: the file cannot be read.
        AnnotationError: it is not UTF-8, is empty, is a JSON document that breaks off (which may show while its
            entries are read), or a table without a header.
    """
    file = str(path)
    head = list(islice(lines_of(path), HEAD))
    if not head:
        raise _file_error(file, "empty", "fetch or write it again")
    try:
        start = _beginning(head[0])
    except UnicodeDecodeError as error:
        what = "UTF-16 text" if head[0].content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte {error.start}"
        raise _file_error(file, f"not UTF-8 text ({what})", "save it as UTF-8; is this an annotation file?") from None
    if start not in ("{", "["):
        return _text_or_table(file, path, table or Path(path).suffix.lower() in TABLE_SUFFIXES)
    if start == "{" and _is_json_lines(head):
        return Source(file, Layout.ROWS, _Entries(lambda: _json_lines(file, path)))
    if start == "[":
        return Source(file, Layout.ROWS, _Entries(lambda: _rows(file, path)))
    return _object(file, path)


class _Entries:
    """Entries that are read anew in every iteration."""

    def __init__(self, read: Callable[[], Iterator[Entry]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Entry]:
        return self._read()


def _beginning(line: Line) -> str:
    """The first character of a file that is no white space."""
    text = line.content.decode("utf-8", "strict" if line.whole else "ignore")
    return text.lstrip()[:1]


def _is_json_lines(head: Sequence[Line]) -> bool:
    """Whether a file that begins with a brace holds an object a line, of which some may be broken."""
    if len(head) == 1:
        return False
    if _is_object(head[0]):
        return True
    text = "\n".join(line.content.decode("utf-8", "replace") for line in head)
    members = JsonStream([text]).members()
    try:
        for _ in members:
            pass
    except BrokenJson as error:
        if error.at_end and len(head) == HEAD:  # the document goes on
            return False
        return any(_is_object(line) for line in head)
    return False


def _is_object(line: Line) -> bool:
    try:
        return line.whole and isinstance(parse_json(line.content.decode("utf-8")), dict)
    except ValueError:
        return False


def _json_lines(file: str, path: str | Path) -> Iterator[Entry]:
    for line in lines_of(path):
        label = f"line {line.number}"
        try:
            if not line.whole:
                raise ValueError(f"longer than {MAX_ENTRY:,} bytes")
            yield Entry(label, parse_json(line.content.decode("utf-8")))
        except UnicodeDecodeError as error:
            reason = f"not UTF-8 text (byte {error.start + 1} of the line)"
            yield Entry(label, None, fault=Fault(file, label, None, reason, "save it as UTF-8, or remove the line"))
        except ValueError as error:
            reason = f"broken JSON: {error}"
            yield Entry(label, None, fault=Fault(file, label, None, reason, "restore the line, or remove it"))


def _rows(file: str, path: str | Path) -> Iterator[Entry]:
    for i, value in enumerate(_stream(file, JsonStream(chunks_of(path)).elements()), 1):
        yield Entry(f"row {i}", value)


def _stream(file: str, items: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from items
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 text (byte {error.start})"
        raise _file_error(file, reason, "save it as UTF-8; is this an annotation file?") from None
    except BrokenJson as error:
        raise _file_error(file, f"broken JSON: {error}", "fetch or write it again") from None


_ROW_KEYS = {"doc_id", "query", "video_path", "messages", "conversations"}
"""Fields of a single row, which may hold objects too; no video is called like that."""


def _object(file: str, path: str | Path) -> Source:
    """A document that is one object: of videos, or a single row. Read through once to find keys that stand twice."""

    def members() -> Iterator[tuple[str, Any]]:
        return _stream(file, JsonStream(chunks_of(path)).members())

    times: Counter[str] = Counter()
    of_videos = False
    for name, value in members():
        times[name] += 1
        of_videos = of_videos or isinstance(value, dict)
        if len(times) > MAX_NAMES:
            raise _file_error(file, f"more than {MAX_NAMES:,} names in one object", "split it")
    if not of_videos or times.keys() & _ROW_KEYS:
        return Source(file, Layout.ROWS, [_single_row(file, path)] if times else [])
    repeated = {name: count for name, count in times.items() if count > 1}

    def entries_by_video() -> Iterator[Entry]:
        told: set[str] = set()
        for video, value in members():
            label = f"video {video!r}"
            if video not in repeated:
                yield Entry(label, value, video)
            elif video not in told:
                told.add(video)
                reason = f"the video stands {repeated[video]} times in the file, and JSON readers keep only the last"
                yield Entry(
                    label, value, video, Fault(file, label, None, reason, "merge its annotations under one key")
                )

    return Source(file, Layout.BY_VIDEO, _Entries(entries_by_video))


def _single_row(file: str, path: str | Path) -> Entry:
    if Path(path).stat().st_size > MAX_ENTRY:
        raise _file_error(file, f"a single row of more than {MAX_ENTRY:,} bytes", "is this an annotation file?")
    return Entry("row 1", parse_json(Path(path).read_text(encoding="utf-8-sig")))


def _text_or_table(file: str, path: str | Path, table: bool) -> Source:
    header = header_of(path, COLUMNS)
    known = COLUMNS.intersection(header.columns) if header is not None else frozenset()
    if header is not None and len(known) > 1:
        check_header(file, header, COLUMNS)
        columns = header.columns
        return Source(file, Layout.TABLE, _Entries(lambda: _table(file, path)), columns)
    if table:
        found = ", ".join(repr(name) for name in (header.columns if header is not None else ())[:12])
        raise AnnotationError(
            Fault(
                file,
                "line 1",
                None,
                f"no header: none of the columns {', '.join(sorted(COLUMNS))} is among {found}",
                "begin the file with a line such as video,query,start,end; fields may be separated by comma, tab, "
                "semicolon or bar",
            )
        )
    return Source(file, Layout.TEXT, _Entries(lambda: _text(file, path)))


def _table(file: str, path: str | Path) -> Iterator[Entry]:
    header = header_of(path, COLUMNS)
    assert header is not None
    for row in rows_of(path, header):
        label = f"line {row.line}"
        if row.reason is not None:
            yield Entry(label, None, fault=Fault(file, label, None, row.reason, row.remedy))
        else:
            yield Entry(label, dict(zip(header.columns, row.fields, strict=True)))


def _text(file: str, path: str | Path) -> Iterator[Entry]:
    for line in lines_of(path):
        label = f"line {line.number}"
        try:
            if not line.whole:
                raise ValueError
            yield Entry(label, {"line": line.content.decode("utf-8").strip()})
        except ValueError as error:
            at = f" (byte {error.start + 1} of the line)" if isinstance(error, UnicodeDecodeError) else ""
            reason = f"not UTF-8 text{at}" if line.whole else f"longer than {MAX_ENTRY:,} bytes"
            yield Entry(label, None, fault=Fault(file, label, None, reason, "correct the line, or remove it"))


def _file_error(file: str, reason: str, remedy: str) -> AnnotationError:
    return AnnotationError(Fault(file, None, None, reason, remedy))
