"""TVGBench: ``{"path", "question", "answer": "13.4-28.1", "start", "end", "duration", "dataset_name"}``, a row a query.

``start`` and ``end`` are null, or the window of a longer video from whose start the answer counts; ``duration`` is then
the window's. Videos are named by the last part of ``path``, as they lie in one folder.
"""

from __future__ import annotations

import posixpath
import re

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.moment import window_of
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix

ANSWER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*", re.ASCII)


def _read(row: Row) -> Draft:
    video, stated = posixpath.basename(row.text("path")), row.seconds("duration")
    answer = ANSWER.fullmatch(row.text("answer"))
    if answer is None:
        raise row.fault("answer", f"must be START-END in seconds, got {row.value['answer']!r:.80}")
    for one, other in (("start", "end"), ("end", "start")):
        if row.has(one) and not row.has(other):
            raise row.fault(other, f"missing, though the row has {one!r}: a window has both")
    window = Row({"video_start": row.value.get("start"), "video_end": row.value.get("end")}, row.file, row.label)
    duration, start, end = window_of(window, stated)
    return Draft(
        video=video,
        video_id=without_video_suffix(video),
        query=row.query("question"),
        spans=(row.as_span([float(answer[1]), float(answer[2])], "answer", duration),),
        duration=duration,
        source=row.text("dataset_name") if row.has("dataset_name") else None,
        video_start=start,
        video_end=end,
    )


TVGBENCH = AnnotationFormat(
    name="tvgbench",
    layout=Layout.ROWS,
    shape='{"path": "….mp4", "question": "…", "answer": "13.4-28.1", "start": null, "end": null, "duration": 30.1}',
    recognises=by_keys("path", "question", "answer", "duration"),
    read=_read,
)
