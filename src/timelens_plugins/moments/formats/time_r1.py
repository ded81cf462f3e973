"""Rows of Time-R1's training files, with or without a model's prediction.

``{"video", "duration", "timestamp": [s, e], "sentence", "qid", "video_start", "video_end", "difficulty", "pred"}``.
``difficulty`` is the IoU of ``pred`` times 100, so that *hard* is low; a failed parse is ``[null, null]`` with 0.
``timestamp`` counts from ``video_start`` where the row is a window; ``duration`` is then the window's. A ``qid`` such
as ``my|cosmo|<id>|<sentence>`` names the data set.
"""

from __future__ import annotations

import posixpath

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.formats.predictions import model_spans
from timelens_plugins.moments.moment import Prediction, iou_of, window_of
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix


def _read(row: Row) -> Draft:
    path = posixpath.normpath(row.text("video"))
    duration = row.seconds("duration") if row.has("duration") else None
    duration, start, end = window_of(row, duration)
    iou: float | None = None
    predictions: tuple[Prediction, ...] = ()
    invalid = False
    if row.has("difficulty") or row.has("pred"):
        iou = iou_of(row, "difficulty", scale=100.0)
        spans, invalid = model_spans(row, row.value.get("pred"), "pred")
        predictions = (Prediction(spans, iou),)
    return Draft(
        video=path,
        video_id=without_video_suffix(path),
        query=row.query("sentence"),
        spans=row.spans("timestamp", duration),
        duration=duration,
        source=_data_set(row),
        video_start=start,
        video_end=end,
        iou=iou,
        predictions=predictions,
        flags=("invalid_prediction",) if invalid else (),
    )


def _data_set(row: Row) -> str | None:
    parts = str(row.value.get("qid", "")).split("|", 3)
    return parts[1] if len(parts) == 4 and parts[1] else None


TIME_R1 = AnnotationFormat(
    name="time_r1",
    layout=Layout.ROWS,
    shape='{"video": "…", "duration": 93.3, "timestamp": [1, 4], "sentence": "…", "difficulty": 50.0, "pred": [0, 3]}',
    recognises=by_keys("video", "sentence", "timestamp"),
    read=_read,
)
