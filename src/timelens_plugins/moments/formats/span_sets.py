"""Three benchmarks whose answers are sets of spans: VUE-TR (and V2), MomentSeeker, Ego4D-NLQ v2. A row is a query.

VUE-TR: ``{"query_id", "video_id", "query", "duration", "gt": [[s, e], …], "task", …}``.
Rows whose ``query_modality`` is another than ``vision`` are flagged ``needs_sound``.
MomentSeeker: ``{"src_video_path", "qry_text", "answering_time_interval": [[s, e], …], "task"}``, without durations.
Ego4D-NLQ v2: ``{"video_id", "query_id", "query", "duration", "timestamps": [[s, e]], "query_type"}``; ``query text:``
before a query is not part of it.
"""

from __future__ import annotations

from collections.abc import Callable

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix

LEAD = "query text:"


def _by_id(spans: str) -> Callable[[Row], Draft]:
    """The reader of rows that name their video by ``video_id``."""

    def read(row: Row) -> Draft:
        video_id, duration = without_video_suffix(row.text("video_id")), row.seconds("duration")
        query = row.query("query")
        if query.lower().startswith(LEAD):
            query = Row({"query": query[len(LEAD) :]}, row.file, row.label).query("query")
        heard = row.has("query_modality") and row.text("query_modality") != "vision"
        flags = ("needs_sound",) if heard else ()
        return Draft(f"{video_id}.mp4", video_id, query, row.spans(spans, duration), duration, flags=flags)

    return read


def _momentseeker(row: Row) -> Draft:
    path = row.text("src_video_path")
    spans = row.spans("answering_time_interval", None)
    return Draft(path, without_video_suffix(path), row.query("qry_text"), spans)


VUE_TR = AnnotationFormat(
    name="vue_tr",
    layout=Layout.ROWS,
    shape='{"query_id": "…", "video_id": "…", "query": "…", "duration": 900.0, "gt": [[3, 9], [80, 85]], "task": "…"}',
    recognises=by_keys("video_id", "query", "gt"),
    read=_by_id("gt"),
)
MOMENTSEEKER = AnnotationFormat(
    name="momentseeker",
    layout=Layout.ROWS,
    shape='{"src_video_path": "….mp4", "qry_text": "…", "answering_time_interval": [[3, 9]], "task": "…"}',
    recognises=by_keys("src_video_path", "qry_text", "answering_time_interval"),
    read=_momentseeker,
)
EGO4D_NLQ = AnnotationFormat(
    name="ego4d_nlq",
    layout=Layout.ROWS,
    shape='{"video_id": "…", "query_id": "…", "query": "…", "duration": 480.0, "timestamps": [[17.3, 27.3]]}',
    recognises=by_keys("video_id", "query", "timestamps"),
    read=_by_id("timestamps"),
)
