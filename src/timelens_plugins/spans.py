"""What a span is, and how two spans, or two sets of spans, compare. Pure Python plus numpy twins; no torch.

A span is a closed interval of time ``[start, end]`` in seconds from the start of the clip. Functions accept
a :class:`Span` or any pair of numbers, and raise ``ValueError`` for what is not a span.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Span",
    "SpanLike",
    "as_span",
    "clip_span",
    "merge_spans",
    "pairwise_iou",
    "set_iou",
    "shared_length",
    "temporal_giou",
    "temporal_iou",
    "total_length",
]


class _Pair(NamedTuple):
    start: float
    end: float


class Span(_Pair):
    """``(start, end)`` in seconds, ``0 <= start <= end``, both finite.

    A tuple, so it unpacks, sorts, compares and serialises to JSON as a pair. Of zero length only where a source
    says so (rounding to whole seconds can do that); such a span overlaps nothing.

    >>> Span(1, 2.5)
    Span(start=1.0, end=2.5)
    >>> Span(3, 1)
    Traceback (most recent call last):
    ...
    ValueError: a span must end no earlier than it starts, got [3.0, 1.0]
    """

    __slots__ = ()

    def __new__(cls, start: float, end: float) -> Span:
        if type(start) is float and type(end) is float and 0.0 <= start <= end < math.inf:
            return tuple.__new__(cls, (start, end))
        start, end = _number(start, "start"), _number(end, "end")
        if start < 0:
            raise ValueError(f"a span cannot start before 0 s, got [{start}, {end}]")
        if end < start:
            raise ValueError(f"a span must end no earlier than it starts, got [{start}, {end}]")
        return super().__new__(cls, start, end)

    @property
    def length(self) -> float:
        """Seconds from start to end."""
        return self.end - self.start


SpanLike: TypeAlias = Span | Sequence[float]


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise ValueError(f"span {name} must be a number of seconds, got {value!r}")
    number = float(cast(float, value))
    if not math.isfinite(number):
        raise ValueError(f"span {name} must be finite, got {number}")
    return number


def as_span(span: SpanLike) -> Span:
    """The :class:`Span` of a pair of numbers; ``ValueError`` for anything else."""
    if isinstance(span, Span):
        return span
    if isinstance(span, str | bytes) or len(span) != 2:
        raise ValueError(f"a span is a pair (start, end) in seconds, got {span!r}")
    return Span(span[0], span[1])


def temporal_iou(a: SpanLike, b: SpanLike) -> float:
    """Intersection over union of two spans, in 0..1.

    For one-dimensional intervals the union of overlapping spans is their hull, so this equals the benchmark's
    ``overlap / (max end - min start)`` wherever spans overlap, and both are 0 where they do not. Two equal spans of
    zero length score 0: neither covers any time.
    """
    a, b = as_span(a), as_span(b)
    overlap = min(a.end, b.end) - max(a.start, b.start)
    if overlap <= 0:
        return 0.0
    return overlap / (max(a.end, b.end) - min(a.start, b.start))


def temporal_giou(a: SpanLike, b: SpanLike) -> float:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) in one dimension, in -1..1.

    IoU minus the share of the hull that neither span covers: equal to the IoU for overlapping spans, and negative,
    falling with the gap, for disjoint ones, so that a miss by one second beats a miss by ten.
    """
    a, b = as_span(a), as_span(b)
    hull = max(a.end, b.end) - min(a.start, b.start)
    if hull <= 0:
        return 0.0
    overlap = min(a.end, b.end) - max(a.start, b.start)
    return max(-1.0, overlap / hull)


def merge_spans(spans: Iterable[SpanLike]) -> list[Span]:
    """The same covered time as disjoint spans in order: overlapping and touching spans become one."""
    merged: list[Span] = []
    for span in sorted(as_span(s) for s in spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def total_length(spans: Iterable[SpanLike]) -> float:
    """Seconds covered by a set of spans; overlaps count once."""
    return math.fsum(s.length for s in merge_spans(spans))


def set_iou(predicted: Iterable[SpanLike], target: Iterable[SpanLike]) -> float:
    """IoU of the time covered by two sets of spans, in 0..1: symmetric, and :func:`temporal_iou` for one span each.

    Overlapping spans are merged on both sides first, so repeating a span changes nothing. An empty side scores 0.
    """
    a, b = merge_spans(predicted), merge_spans(target)
    overlap = _overlap(a, b)
    return min(1.0, overlap / total_length([*a, *b])) if overlap else 0.0


def shared_length(a: Iterable[SpanLike], b: Iterable[SpanLike]) -> float:
    """Seconds covered by both of two sets of spans; overlaps within a set count once.

    >>> shared_length([(0, 4), (3, 6)], [(2, 5), (9, 12)])
    3.0
    """
    return _overlap(merge_spans(a), merge_spans(b))


def _overlap(a: Sequence[Span], b: Sequence[Span]) -> float:
    """Seconds in both of two merged sets."""
    overlap, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        common = min(a[i].end, b[j].end) - max(a[i].start, b[j].start)
        if common > 0:
            overlap.append(common)
        if a[i].end <= b[j].end:
            i += 1
        else:
            j += 1
    return math.fsum(overlap)


def clip_span(span: SpanLike, duration: float) -> Span | None:
    """The part of ``span`` inside a clip of ``duration`` seconds; None where no time remains."""
    span = as_span(span)
    if not duration > 0:
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    end = min(span.end, float(duration))
    return Span(span.start, end) if span.start < end else None


def pairwise_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """:func:`temporal_iou` of many pairs at once.

    Args:
        a, b: arrays of shape ``(..., 2)`` in seconds that broadcast against each other. A row with NaN (no prediction)
            scores 0.

    Returns:
        IoU of shape ``(...)``.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape[-1:] != (2,) or y.shape[-1:] != (2,):
        raise ValueError(f"spans must have shape (..., 2), got {x.shape} and {y.shape}")
    overlap = np.minimum(x[..., 1], y[..., 1])
    overlap -= np.maximum(x[..., 0], y[..., 0])
    hull = np.maximum(x[..., 1], y[..., 1])
    hull -= np.minimum(x[..., 0], y[..., 0])
    return np.divide(overlap, hull, out=np.zeros(np.shape(hull)), where=overlap > 0)  # not where it is NaN
