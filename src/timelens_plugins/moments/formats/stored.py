"""Moments as this package writes them: :meth:`Moment.to_row`, a row a line. Ids are kept as they stand, and the
flags too, but for those that say what spans and duration show."""

from __future__ import annotations

from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.moment import Moment

STORED = AnnotationFormat(
    name="moments",
    layout=Layout.ROWS,
    shape='{"id": "…", "video": "….mp4", "video_id": "…", "query": "…", "spans": [[0.0, 5.0]], "duration": 31.0, …}',
    recognises=by_keys("id", "video", "video_id", "query", "spans"),
    read=Moment.from_row,
)
