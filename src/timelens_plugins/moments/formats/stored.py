"""Moments as this package writes them: :meth:`Moment.to_row`, a row a line. Ids and flags are kept as they stand."""

from __future__ import annotations

from typing import Any

from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, has_keys
from timelens_plugins.moments.moment import Moment


def _recognises(key: str | None, value: Any) -> bool:
    return has_keys(value, "id", "video", "video_id", "query", "spans")


STORED = AnnotationFormat(
    name="moments",
    layout=Layout.ROWS,
    shape='{"id": "…", "video": "….mp4", "video_id": "…", "query": "…", "spans": [[0.0, 5.0]], "duration": 31.0, …}',
    recognises=_recognises,
    read=Moment.from_row,
)
