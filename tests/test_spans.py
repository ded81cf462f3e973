"""Spans: properties over random spans, and the closed form against a count of covered instants."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timelens_plugins.spans import (
    Span,
    as_span,
    clip_span,
    merge_spans,
    pairwise_iou,
    set_iou,
    temporal_giou,
    temporal_iou,
    total_length,
)

times = st.integers(0, 4000).map(lambda n: n / 8)  # eighths of a second: sums and shifts are exact in binary
spans = st.tuples(times, times).filter(lambda p: p[0] != p[1]).map(lambda p: Span(min(p), max(p)))
span_sets = st.lists(spans, min_size=1, max_size=6)


@given(spans, spans)
def test_iou_is_symmetric_and_bounded(a: Span, b: Span) -> None:
    assert 0 <= temporal_iou(a, b) == temporal_iou(b, a) <= 1
    assert -1 <= temporal_giou(a, b) == temporal_giou(b, a) <= temporal_iou(a, b)


@given(spans)
def test_a_span_equals_itself(a: Span) -> None:
    assert temporal_iou(a, a) == temporal_giou(a, a) == set_iou([a], [a]) == 1


@given(spans, spans, st.integers(0, 1000), st.sampled_from([0.25, 0.5, 2.0, 8.0]))
def test_iou_ignores_the_origin_and_the_unit_of_time(a: Span, b: Span, shift: int, scale: float) -> None:
    moved = [Span((s + shift) * scale, (e + shift) * scale) for s, e in (a, b)]
    assert temporal_iou(*moved) == pytest.approx(temporal_iou(a, b), abs=1e-12)
    assert temporal_giou(*moved) == pytest.approx(temporal_giou(a, b), abs=1e-12)
    assert set_iou([moved[0]], [moved[1]]) == pytest.approx(set_iou([a], [b]), abs=1e-12)


@given(spans, spans)
def test_generalised_iou_equals_iou_where_spans_overlap_and_falls_with_the_gap(a: Span, b: Span) -> None:
    if temporal_iou(a, b) > 0:
        assert temporal_giou(a, b) == temporal_iou(a, b)
    else:
        gap = max(a.start, b.start) - min(a.end, b.end)
        hull = max(a.end, b.end) - min(a.start, b.start)
        assert temporal_giou(a, b) == pytest.approx(-gap / hull)


def covered(items: list[Span]) -> set[int]:
    """Eighths of a second that a set of spans covers: a count instead of a formula."""
    return {tick for s, e in items for tick in range(round(s * 8), round(e * 8))}


@given(span_sets, span_sets)
def test_set_iou_equals_a_count_of_instants(a: list[Span], b: list[Span]) -> None:
    x, y = covered(a), covered(b)
    assert set_iou(a, b) == pytest.approx(len(x & y) / len(x | y), abs=1e-12)
    assert set_iou(a, b) == set_iou(b, a)
    assert set_iou([*a, *a], b) == set_iou(a, b)
    assert total_length(a) * 8 == len(x)


@given(span_sets)
def test_merged_spans_are_disjoint_ordered_and_cover_the_same(a: list[Span]) -> None:
    merged = merge_spans(a)
    assert covered(merged) == covered(a)
    assert all(left.end < right.start for left, right in itertools.pairwise(merged))
    assert merge_spans(merged) == merged


@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=20))
def test_the_vectorised_twin_equals_the_scalar(pairs: list[tuple[Span, Span]]) -> None:
    a, b = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    assert pairwise_iou(a, b).tolist() == [temporal_iou(*p) for p in pairs]
    assert pairwise_iou(a[:, None], b[None]).shape == (len(pairs), len(pairs))


def test_no_prediction_scores_zero_in_the_vectorised_twin() -> None:
    assert pairwise_iou([[math.nan, math.nan], [0, 1]], [0, 1]).tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="shape"):
        pairwise_iou([1.0, 2.0, 3.0], [0, 1])


def test_iou_of_a_worked_example() -> None:
    assert temporal_iou((2, 6), (4, 10)) == 2 / 8
    assert set_iou([(0, 2), (8, 10)], [(1, 9)]) == 2 / 10  # 1 s at each end of 10 s
    assert temporal_giou((0, 1), (3, 4)) == -2 / 4


@pytest.mark.parametrize("pair", [(0, 1), (5, 5)])
def test_spans_without_length_or_contact_score_zero(pair: tuple[float, float]) -> None:
    assert temporal_iou(pair, (5, 5)) == temporal_iou((5, 5), pair) == 0
    assert set_iou([], [pair]) == set_iou([(0, 1)], [(1, 2)]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 1), "end no earlier"),
        ((-1, 1), "before 0"),
        ((math.nan, 1), "finite"),
        ((0, math.inf), "finite"),
        (("0", 1), "number of seconds"),
        ((True, 2), "number of seconds"),
    ],
)
def test_what_is_not_a_span_is_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Span(*arguments)


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), "12"])
def test_a_pair_is_needed(value: object) -> None:
    with pytest.raises(ValueError, match="pair"):
        as_span(value)  # type: ignore[arg-type]


def test_clipping_to_a_duration() -> None:
    assert clip_span((2, 9), 5) == Span(2, 5)
    assert clip_span((5, 9), 5) is None
    with pytest.raises(ValueError, match="duration"):
        clip_span((0, 1), 0)


def test_a_span_is_a_pair_for_json_and_unpacking() -> None:
    start, end = Span(1, 2.5)
    assert (start, end, Span(1, 2.5).length) == (1, 2.5, 1.5)
    assert json.dumps([Span(np.float32(1), 2.5)]) == "[[1.0, 2.5]]"
