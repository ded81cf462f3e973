"""Rollouts of TimeLens2: several sampled answers a row, without scores.

``{"source", "video_path", "duration", "query", "span": [[s, e], …], "rollouts": [answer, …]}``; the answers are texts
or spans. The moment's IoU is the mean over the answers of the set IoU with ``span``; texts are read by this package's
parser, as everywhere without the duration, and an answer without a span counts 0.
"""

from __future__ import annotations

import math
from typing import Any

from timelens_plugins.answers import parse_spans
from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.formats.predictions import model_spans
from timelens_plugins.moments.moment import Prediction
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix
from timelens_plugins.spans import Span, set_iou


def _read(row: Row) -> Draft:
    path, query = row.text("video_path"), row.query("query")
    duration = row.seconds("duration") if row.has("duration") else None
    target = row.spans("span", duration)
    predictions, any_invalid = [], False
    for rollout in row.array("rollouts"):
        answer, spans, invalid = _answer(row, rollout, query)
        any_invalid |= invalid
        predictions.append(Prediction(spans, set_iou(spans, target), answer))
    if not predictions:
        raise row.fault("rollouts", "no answer in it")
    return Draft(
        video=path,
        video_id=without_video_suffix(path),
        query=query,
        spans=target,
        duration=duration,
        source=row.text("source") if row.has("source") else None,
        iou=math.fsum(p.iou or 0.0 for p in predictions) / len(predictions),
        predictions=tuple(predictions),
        flags=("invalid_prediction",) if any_invalid else (),
    )


def _answer(row: Row, rollout: Any, query: str) -> tuple[str | None, tuple[Span, ...], bool]:
    if isinstance(rollout, str):
        return rollout, tuple(parse_spans(rollout, query=query)), False
    spans, invalid = model_spans(row, rollout, "rollouts")
    return None, spans, invalid


TIMELENS2_ROLLOUTS = AnnotationFormat(
    name="timelens2_rollouts",
    layout=Layout.ROWS,
    shape='{"video_path": "…", "duration": 722.0, "query": "…", "span": [[0.0, 5.0]], "rollouts": ["[[0.0, 4.0]]"]}',
    recognises=by_keys("video_path", "query", "span", "rollouts"),
    read=_read,
)
