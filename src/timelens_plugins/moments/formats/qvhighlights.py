"""QVHighlights: ``{"qid", "query", "duration", "vid", "relevant_windows": [[s, e], …]}`` a line, often several windows.

Videos are ``<vid>.mp4`` in ``video_root``: clips that are cut already, so the times in a ``vid`` are no window.
"""

from __future__ import annotations

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.rows import Row


def _read(row: Row) -> Draft:
    video_id, duration = row.text("vid"), row.seconds("duration")
    return Draft(
        video=f"{video_id}.mp4",
        video_id=video_id,
        query=row.query("query"),
        spans=row.spans("relevant_windows", duration),
        duration=duration,
    )


QVHIGHLIGHTS = AnnotationFormat(
    name="qvhighlights",
    layout=Layout.ROWS,
    shape='{"qid": 2579, "query": "…", "duration": 150, "vid": "…", "relevant_windows": [[82, 150]]}',
    recognises=by_keys("qid", "vid", "query"),
    read=_read,
)
