"""Charades-STA as text: ``<video> <start> <end>##<query>`` a line, without durations. Videos are ``<video>.mp4``."""

from __future__ import annotations

import re
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, has_keys
from timelens_plugins.moments.rows import Row

SHAPE = "<video> <start> <end>##<query>"
LINE = re.compile(r"\S+[ \t]+\S+[ \t]+\S+[ \t]*##")


def _recognises(key: str | None, value: Any) -> bool:
    return has_keys(value, "line") and LINE.match(value["line"]) is not None


def _read(row: Row) -> Draft:
    line = row.text("line")
    place, hashes, query = line.partition("##")
    parts = place.split()
    if not hashes or len(parts) != 3:
        raise row.fault(None, f"must be {SHAPE}, got {line[:80]!r}")
    video_id, *times = parts
    start, end = (_seconds(row, text, name) for text, name in zip(times, ("start", "end"), strict=True))
    span = row.as_span([start, end], "span", None)
    query = Row({"query": query}, row.file, row.label).query("query")
    return Draft(video=f"{video_id}.mp4", video_id=video_id, query=query, spans=(span,))


def _seconds(row: Row, text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise row.fault(name, f"must be a number of seconds, got {text!r}") from None


CHARADES_STA_TEXT = AnnotationFormat(
    name="charades_sta_text", layout=Layout.TEXT, shape=SHAPE, recognises=_recognises, read=_read
)
