"""Rows of lmms-eval's own ``timelens`` task: ``{"video_path": "charades/x.mp4", "query", "span": [[s, e]]}``.

The folder in ``video_path`` is the subset; the video's id is the file's name, as in TimeLens-Bench. Rows of any data
set with these three fields are read the same way; ``duration`` and ``source`` are taken where they are there.
"""

from __future__ import annotations

from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, has_keys
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix

ESTIMATES = frozenset({"iou", "ious", "pred", "preds", "rollouts"})


def _recognises(key: str | None, value: Any) -> bool:
    return has_keys(value, "video_path", "query", "span") and ESTIMATES.isdisjoint(value)


def _read(row: Row) -> Draft:
    path = row.text("video_path")
    duration = row.seconds("duration") if row.has("duration") else None
    folder, _, name = path.rpartition("/")
    return Draft(
        video=path,
        video_id=without_video_suffix(name),
        query=row.query("query"),
        spans=row.spans("span", duration),
        duration=duration,
        source=row.text("source") if row.has("source") else folder or None,
    )


LMMS_EVAL = AnnotationFormat(
    name="lmms_eval",
    layout=Layout.ROWS,
    shape='{"video_path": "charades/x.mp4", "query": "…", "span": [[24.0, 30.0]]}',
    recognises=_recognises,
    read=_read,
)
