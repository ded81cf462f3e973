"""TimeLens-Bench: ``{video: {"duration": s, "spans": [[s, e], …], "queries": [text, …]}}``, one span a query.

The content does not say which of the three subsets it is: name it with ``source=`` where it matters. Videos are
``<video>.mp4`` in ``video_root``, which is the subset's folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, annotations_of_video, has_keys
from timelens_plugins.moments.rows import Row


def _recognises(key: str | None, value: Any) -> bool:
    return has_keys(value, "spans", "queries")


def _split(row: Row) -> Iterable[Row]:
    return annotations_of_video(row, "spans", "queries")


def _read(row: Row) -> Draft:
    video_id, duration = str(row.key), row.number("duration")
    return Draft(
        video=f"{video_id}.mp4",
        video_id=video_id,
        query=row.query("queries"),
        spans=(row.span("spans", duration),),
        duration=duration,
    )


TIMELENS_BENCH = AnnotationFormat(
    name="timelens_bench",
    layout=Layout.BY_VIDEO,
    shape='{"<video>": {"duration": 31.0, "spans": [[25, 30]], "queries": ["…"]}}',
    recognises=_recognises,
    split=_split,
    read=_read,
)
