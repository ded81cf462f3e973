"""One's own annotations, the form to write them in: a table or JSON rows of ``video, query, start, end``.

One row is one moment. ``span`` (a pair) or ``spans`` (a list of pairs) may stand in place of ``start`` and ``end``; in
a table they are written as JSON. ``duration``, ``id``, ``source``, ``video_start`` and ``video_end`` are read where
they are there; the report names all other fields. Times are seconds. A clock such as ``1:15`` is refused rather than
read: minutes and seconds here are hours and minutes to a spreadsheet, which writes them back as ``01:15:00``.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.faults import SKIP, AnnotationError, Fault
from timelens_plugins.moments.files import COLUMNS, Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, has_keys
from timelens_plugins.moments.moment import window_of
from timelens_plugins.moments.rows import CORRECT, Row
from timelens_plugins.moments.videos import without_video_suffix
from timelens_plugins.spans import Span

NUMBERS = ("start", "end", "duration", "video_start", "video_end")
SPANS = ("span", "spans")
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+(?:\.\d*)?)", re.ASCII)


def _recognises(key: str | None, value: Any) -> bool:
    if not has_keys(value, "video", "query") or any(name in value for name in ("messages", "conversations", "vid")):
        return False
    stored = has_keys(value, "id", "video_id", "spans")
    return not stored and any(name in value for name in ("start", "end", *SPANS))


def _only_table(key: str | None, value: Any) -> bool:
    return True


def _read(row: Row) -> Draft:
    path = row.text("video")
    duration = row.seconds("duration") if row.has("duration") else None
    duration, start, end = window_of(row, duration)
    return Draft(
        video=path,
        video_id=without_video_suffix(path),
        query=row.query("query"),
        spans=_spans(row, duration),
        duration=duration,
        source=row.text("source") if row.has("source") else None,
        video_start=start,
        video_end=end,
        id=_id(row),
    )


def _spans(row: Row, duration: float | None) -> tuple[Span, ...]:
    given = [name for name in ("start", *SPANS) if row.has(name)]
    if len(given) > 1:
        raise row.fault(given[1], f"gives the span a second time, beside {given[0]!r}", "keep one of them")
    if given and given[0] != "start":
        return row.spans(given[0], duration)
    return (row.as_span([row.number("start"), row.number("end")], "end", duration),)


def _id(row: Row) -> str | None:
    if not row.has("id"):
        return None
    value = row.get("id")
    # Integral: those of numpy, too, which rows of a data frame hold
    return str(value) if not isinstance(value, bool) and isinstance(value, Integral) else row.text("id")


def _read_table(row: Row) -> Draft:
    typed: dict[str, Any] = {}
    for column, text in row.value.items():
        if column not in COLUMNS or not text.strip():
            continue
        if column in NUMBERS:
            typed[column] = _number(row, column, text.strip())
        elif column in SPANS:
            typed[column] = _json(row, column, text)
        else:
            typed[column] = text.strip()
    spans_given = any(name in typed for name in SPANS)
    for column in ("video", "query") if spans_given else ("video", "query", "start", "end"):
        if column in row.value and column not in typed:
            raise row.fault(column, "empty", f"fill it, or {SKIP} to leave the row out and count it")
    return _read(Row(typed, row.file, row.label, allow_absent=row.allow_absent))


def _number(row: Row, column: str, text: str) -> float:
    if NUMBER.fullmatch(text):
        return row.as_number(float(text), column)
    reason = f"must be a number of seconds, got {reprlib.repr(text)}"
    if clock := CLOCK.fullmatch(text):
        hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        total = 3600 * hours + 60 * minutes + seconds
        meant = f"write {total:g} if these are {'hours, minutes' if clock[1] else 'minutes'} and seconds"
        raise row.fault(column, reason, f"{meant}; spreadsheets may have changed the clock, so look at the first ones")
    if re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII):
        raise row.fault(column, reason, f"write the decimals after a point: {text.replace(',', '.')}")
    if re.match(r"[+-]?\d", text) and text.rstrip("second. ") != text:
        raise row.fault(column, reason, "leave the unit out")
    raise row.fault(column, reason, CORRECT)


def _json(row: Row, column: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        reason = f"must be spans in seconds, got {reprlib.repr(text)}"
        raise row.fault(column, reason, "write [start, end], or [[start, end], …] for several") from None


def _check_columns(file: str, columns: Sequence[str]) -> None:
    """Refuse a table that lacks a column which every row needs.

    Raises:
        AnnotationError: it does, as at the header.
    """
    lacking = [name for name in ("video", "query") if name not in columns]
    if not any(name in columns for name in SPANS):
        lacking += [name for name in ("start", "end") if name not in columns]
    if lacking:
        found = ", ".join(repr(name) for name in columns[:12])
        reason = f"no column {' nor '.join(map(repr, lacking))} among {found}"
        raise AnnotationError(Fault(file, "header", lacking[0], reason, "add it, or rename the column that holds it"))


CSV = AnnotationFormat(
    name="csv",
    layout=Layout.TABLE,
    shape="a header video,query,start,end (or span, spans), and rows such as 3MSZA.mp4,person turns on a light,24.3,30",
    recognises=_only_table,
    read=_read_table,
    fields=COLUMNS,
    check_columns=_check_columns,
)
ROWS = AnnotationFormat(
    name="rows",
    layout=Layout.ROWS,
    shape='{"video": "3MSZA.mp4", "query": "…", "start": 24.3, "end": 30.4} (or "span", "spans")',
    recognises=_recognises,
    read=_read,
    fields=COLUMNS,
)
