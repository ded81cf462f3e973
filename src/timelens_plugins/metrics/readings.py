"""The two readings of the evaluation protocol: the only place that rounds predictions.

``official``: the prediction is rounded to whole seconds before the IoU, as the benchmark's own evaluation does; the
annotation is left as it is; exact duplicates count once. ``exact``: nothing is rounded, every annotation counts.

Thresholds compare as ``IoU >= threshold`` on floats without tolerance, as every implementation of the benchmark does.
For whole seconds this is exact (7 s of 10 s is the same float as ``0.7``); for fractions of a second the subtraction of
two ends can fall on either side of a threshold that it meets on paper (``18 - 17.3 < 0.7``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.metrics.samples import Sample
from timelens_plugins.spans import Span, SpanLike, as_span, pairwise_iou, temporal_iou

__all__ = ["READINGS", "Reading", "check_reading", "reading_iou", "reading_ious", "round_predictions"]

Reading: TypeAlias = Literal["official", "exact"]
READINGS: tuple[Reading, ...] = get_args(Reading)


def check_reading(reading: str) -> Reading:
    """``reading`` itself; ``ValueError`` where there is no such reading."""
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {', '.join(READINGS)}, got {reading!r}")
    return reading


def reading_iou(predicted: SpanLike | None, target: SpanLike | Sequence[SpanLike], reading: str) -> float:
    """IoU of one prediction, in 0..1: the best over the target spans, 0 where nothing was predicted.

    Args:
        predicted: seconds; None where the answer held no span.
        target: one span, or several of which any is right.
        reading: ``"official"`` rounds the prediction with Python's ``round`` (halves to the even second), which can
            make it a span of zero length, and that overlaps nothing; ``"exact"`` rounds nothing.

    >>> reading_iou((24.6, 29.5), (25, 30), "official"), round(reading_iou((24.6, 29.5), (25, 30), "exact"), 4)
    (1.0, 0.8333)
    """
    check_reading(reading)
    if predicted is None:
        return 0.0
    span = as_span(predicted)
    if reading == "official":
        span = Span(round(span.start), round(span.end))
    return max(temporal_iou(span, candidate) for candidate in _spans(target))


def _spans(target: SpanLike | Sequence[SpanLike]) -> list[Span]:
    if not len(target):
        raise ValueError("a target needs at least one span")
    if hasattr(target[0], "__float__"):
        return [as_span(cast(SpanLike, target))]
    return [as_span(span) for span in cast(Sequence[SpanLike], target)]


def reading_ious(samples: Sequence[Sample], reading: str) -> NDArray[np.float64]:
    """:func:`reading_iou` of every sample, shape ``(len(samples),)``; duplicates are not dropped here.

    Raises:
        ValueError: a sample without a target span, which has no IoU.
    """
    if absent := next((s for s in samples if not s.target), None):
        raise ValueError(f"{absent.describe()}: the event is not in the video, so there is no IoU (count_rejections)")
    predicted = _pairs([s.predicted or _NOTHING for s in samples])
    return pairwise_iou(round_predictions(predicted, reading), target_array([s.target for s in samples])).max(axis=1)


_NOTHING = (np.nan, np.nan)


def _pairs(pairs: Sequence[SpanLike]) -> NDArray[np.float64]:
    """Shape ``(len(pairs), 1, 2)``; numpy takes ten times as long for a list of tuples."""
    return np.fromiter(chain.from_iterable(pairs), dtype=np.float64, count=2 * len(pairs)).reshape(-1, 1, 2)


def round_predictions(predicted: NDArray[np.float64], reading: str) -> NDArray[np.float64]:
    """Predictions in seconds, any shape, as the reading scores them."""
    # rint rounds halves to even, as Python's round does.
    return np.rint(predicted) if check_reading(reading) == "official" else predicted


def target_array(targets: Sequence[Sequence[SpanLike]]) -> NDArray[np.float64]:
    """Spans of shape ``(len(targets), most spans of a target, 2)`` in seconds, filled up with NaN."""
    if all(len(target) == 1 for target in targets):
        return _pairs([target[0] for target in targets])
    spans = np.full((len(targets), max(map(len, targets), default=1), 2), np.nan)
    for row, target in zip(spans, targets, strict=True):
        row[: len(target)] = target
    return spans
