"""Difficulty rows of TimeLens's filter stage, one greedy answer a row.

``{"source", "data_type", "video_path", "duration", "query", "span", "pred", "answer", "iou"}``. Several sampled answers
stand in ``preds``, ``answers`` and ``ious``, lists of equal length, beside ``iou``, their mean. Rows may bring their
moment's ``id``, ``video_id``, ``video_start`` and ``video_end``, which are then kept.
"""

from __future__ import annotations

import math
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, has_keys
from timelens_plugins.moments.formats.predictions import model_spans
from timelens_plugins.moments.moment import Prediction, iou_of, window_of
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix

ESTIMATES = frozenset({"iou", "ious", "pred", "preds"})


def _recognises(key: str | None, value: Any) -> bool:
    return (
        has_keys(value, "video_path", "query", "span") and not ESTIMATES.isdisjoint(value) and "rollouts" not in value
    )


def _read(row: Row) -> Draft:
    path = row.text("video_path")
    predictions, invalid = _sampled(row) if row.has("ious") else _greedy(row)
    duration = row.seconds("duration") if row.has("duration") else None
    duration, start, end = window_of(row, duration)
    return Draft(
        video=path,
        video_id=row.text("video_id") if row.has("video_id") else without_video_suffix(path),
        query=row.query("query"),
        spans=row.spans("span", duration),
        duration=duration,
        source=row.text("source") if row.has("source") else None,
        video_start=start,
        video_end=end,
        iou=_iou(row, predictions),
        predictions=predictions,
        flags=("invalid_prediction",) if invalid else (),
        id=row.text("id") if row.has("id") else None,
    )


def _greedy(row: Row) -> tuple[tuple[Prediction, ...], bool]:
    spans, invalid = model_spans(row, row.value.get("pred"), "pred")
    answer = row.string("answer") if row.has("answer") else None
    return (Prediction(spans, iou_of(row, "iou"), answer),), invalid


def _sampled(row: Row) -> tuple[tuple[Prediction, ...], bool]:
    ious = row.array("ious")
    if not ious:
        raise row.fault("ious", "no IoU in it")
    answers, preds = _as_many(row, "answers", len(ious)), _as_many(row, "preds", len(ious))
    predictions, any_invalid = [], False
    for i, (iou, answer, pred) in enumerate(zip(ious, answers, preds, strict=True), 1):
        item = Row({"iou": iou, "answer": answer}, row.file, f"{row.label}, answer {i}")
        spans, invalid = model_spans(item, pred, "preds")
        any_invalid |= invalid
        predictions.append(
            Prediction(spans, iou_of(item, "iou"), item.string("answer") if item.has("answer") else None)
        )
    return tuple(predictions), any_invalid


def _as_many(row: Row, field: str, count: int) -> list[Any]:
    values = list(row.array(field)) if row.has(field) else [None] * count
    if len(values) != count:
        raise row.fault(field, f"{len(values)} values for {count} ious")
    return values


def _iou(row: Row, predictions: tuple[Prediction, ...]) -> float:
    mean = math.fsum(p.iou or 0.0 for p in predictions) / len(predictions)
    if not row.has("iou"):
        return mean
    stated = iou_of(row, "iou")
    if abs(stated - mean) > 1e-6:
        raise row.fault("iou", f"{stated} is not the mean of ious, {mean}")
    return stated


DIFFICULTY = AnnotationFormat(
    name="difficulty",
    layout=Layout.ROWS,
    shape='{"video_path": "…", "duration": 117.42, "query": "…", "span": [[0, 5]], "pred": [[1, 4]], "iou": 0.6, …}',
    recognises=_recognises,
    read=_read,
)
