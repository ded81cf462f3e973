"""TimeLens-100K: a row a video, a moment an event.

``{"source", "video_path", "duration", "events": [{"query", "span": [[s, e], …]}, …]}``; an event may have more spans.
``video_path`` is relative to ``video_root``. Queries about sound are loaded like the others:
:func:`timelens_plugins.moments.is_audio_query` tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix


def _split(row: Row) -> Iterable[Row]:
    video = {"video_path": row.text("video_path"), "duration": row.seconds("duration")}
    video["source"] = row.text("source") if row.has("source") else None
    for i, event in enumerate(row.array("events"), 1):
        yield Row({"event": event, **video}, row.file, f"{row.label}, event {i}")


def _read(row: Row) -> Draft:
    path, duration = row.text("video_path"), row.number("duration")
    event = Row(row.get("event"), row.file, row.label)
    return Draft(
        video=path,
        video_id=without_video_suffix(path),
        query=event.query("query"),
        spans=event.spans("span", duration),
        duration=duration,
        source=row.value["source"],
    )


TIMELENS_100K = AnnotationFormat(
    name="timelens_100k",
    layout=Layout.ROWS,
    shape='{"source": "…", "video_path": "….mp4", "duration": 117.42, "events": [{"query": "…", "span": [[0, 5]]}]}',
    recognises=by_keys("video_path", "events"),
    split=_split,
    read=_read,
)
