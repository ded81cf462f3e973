"""Scores of answers that are sets of spans: IoU, precision and recall of covered time, and the success curve.

The rules are those of the benchmarks of sets (VUE-TR, MomentSeeker, Ego4D-NLQ as reported since TimeLens2): both sides
are merged first, nothing is rounded, ``R1@m`` counts what is at least ``m`` and the success curve what is above. What
they leave out of their means, unreadable answers and missing videos, counts 0 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.spans import SpanLike, set_iou, shared_length, total_length

__all__ = ["SUCCESS_THRESHOLDS", "SetScore", "score_span_set", "success_area", "success_curve"]

SUCCESS_THRESHOLDS: NDArray[np.float64] = np.arange(101) / 100
"""0, 0.01, …, 1, each the float that is written so."""


@dataclass(frozen=True)
class SetScore:
    """One answer, 0..1 each.

    Attributes:
        iou: seconds in both over seconds in either.
        precision: share of the predicted time that is right; 0 where nothing is predicted.
        recall: share of the annotated time that is found.
    """

    iou: float
    precision: float
    recall: float


def score_span_set(predicted: Sequence[SpanLike], target: Sequence[SpanLike]) -> SetScore:
    """Score the spans of an answer, in seconds; no spans for one that could not be read.

    >>> score_span_set([(0, 4), (10, 12)], [(2, 6)])
    SetScore(iou=0.25, precision=0.3333333333333333, recall=0.5)

    Raises:
        ValueError: no target.
    """
    if not target:
        raise ValueError("a target needs at least one span")
    overlap = shared_length(predicted, target)
    if not overlap:
        return SetScore(0.0, 0.0, 0.0)
    precision, recall = overlap / total_length(predicted), overlap / total_length(target)
    return SetScore(set_iou(predicted, target), min(1.0, precision), min(1.0, recall))


def success_curve(ious: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of answers whose value is above each of :data:`SUCCESS_THRESHOLDS`, shape ``(101,)``.

    Raises:
        ValueError: no values.
    """
    ordered = np.sort(np.asarray(ious, dtype=np.float64))
    if not len(ordered):
        raise ValueError("a curve needs at least one value")
    below = np.searchsorted(ordered, SUCCESS_THRESHOLDS, side="right")
    return np.asarray((len(ordered) - below) / len(ordered), dtype=np.float64)


def success_area(ious: Sequence[float] | NDArray[np.float64]) -> float:
    """Area under :func:`success_curve` by trapezoids: 0 of answers without overlap, 0.995 of perfect ones.

    Raises:
        ValueError: no values.
    """
    return float(np.trapezoid(success_curve(ious), SUCCESS_THRESHOLDS))
