"""Spans moved to the times a model has seen, for models trained on such targets (TimeLens-7B)."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence

from timelens_plugins.spans import Span, SpanLike, as_span

__all__ = ["snap_spans"]


def snap_spans(spans: Iterable[SpanLike], times: Sequence[float]) -> list[Span]:
    """Each span with its start moved down and its end moved up to the nearest of ``times`` (seconds, ascending).

    A snapped span covers the original one, except beyond the sampled range: a start before the first time moves *up*
    to it, an end after the last time moves *down* to it. A span that lies wholly outside that range, or on one of the
    times, becomes a span of zero length at that time; such a span overlaps nothing. Snapping twice changes nothing.

    >>> snap_spans([(1.2, 3.1), (4.0, 99.0)], times=[0.0, 1.0, 2.0, 4.0, 5.0])
    [Span(start=1.0, end=4.0), Span(start=4.0, end=5.0)]

    Raises:
        ValueError: no times, times that do not ascend, or an invalid span.
    """
    grid = [float(t) for t in times]
    if not grid:
        raise ValueError("cannot snap spans to an empty list of times")
    if any(b < a for a, b in itertools.pairwise(grid)):
        raise ValueError("cannot snap spans: the times do not ascend")
    snapped = []
    for span in map(as_span, spans):
        start = grid[max(0, bisect.bisect_right(grid, span.start) - 1)]
        end = grid[min(len(grid) - 1, bisect.bisect_left(grid, span.end))]
        snapped.append(Span(start, end))
    return snapped
