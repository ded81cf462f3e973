"""Spans that a model predicted, as files keep them. A model may say what no annotation may; the file is sound."""

from __future__ import annotations

from typing import Any

from timelens_plugins.moments.rows import Row, is_pair
from timelens_plugins.spans import Span

__all__ = ["model_spans"]


def model_spans(row: Row, value: Any, field: str) -> tuple[tuple[Span, ...], bool]:
    """The spans of one prediction: a pair, a list of pairs, or nothing (null, an empty list, a pair of nulls).

    Returns:
        The spans that can be spans, and whether something else was there: an end that is not after its start, a
        negative time. Where that is the first pair, there are no spans: the first pair decides, as in the benchmark.

    Raises:
        AnnotationError: ``value`` is not of this shape, or holds what is not a finite number.
    """
    if value is None:
        return (), False
    if not isinstance(value, list | tuple):
        raise row.fault(field, f"must be a span, a list of spans or null, got {value!r:.80}")
    pairs = [value] if is_pair(value) else value
    spans, invalid = [], False
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise row.fault(field, f"a span is a pair [start, end] in seconds, got {pair!r:.80}")
        if pair[0] is None or pair[1] is None:
            continue
        start, end = row.as_number(pair[0], field), row.as_number(pair[1], field)
        if 0 <= start < end:
            spans.append(Span(start, end))
        elif not spans:
            return (), True
        else:
            invalid = True
    return tuple(spans), invalid
