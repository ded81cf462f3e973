"""Spans moved to sampled times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timelens_plugins.encodings import snap_spans
from timelens_plugins.spans import Span

seconds = st.floats(0, 500, allow_nan=False)


@given(st.lists(seconds, min_size=1, max_size=30).map(sorted), st.tuples(seconds, seconds).map(sorted))
def test_against_numpy(times: list[float], span: tuple[float, float]) -> None:
    (snapped,) = snap_spans([span], times)
    grid = np.array(times)
    below, above = grid[grid <= span[0]], grid[grid >= span[1]]
    assert snapped.start == (below.max() if len(below) else grid[0])
    assert snapped.end == (above.min() if len(above) else grid[-1])
    assert snapped in [Span(a, b) for a in times for b in times if a <= b]
    assert snap_spans([snapped], times) == [snapped]
    if grid[0] <= span[0] and span[1] <= grid[-1]:
        assert snapped.start <= span[0] <= span[1] <= snapped.end


def test_edges() -> None:
    times = [1.0, 2.0, 2.0, 4.0]
    assert snap_spans([(2.0, 2.0), (0.0, 0.5), (9.0, 9.5), (0.0, 9.0), (1.0, 4.0)], times) == [
        (2.0, 2.0),
        (1.0, 1.0),
        (4.0, 4.0),
        (1.0, 4.0),
        (1.0, 4.0),
    ]
    assert snap_spans([], times) == []
    assert snap_spans([(3, 5)], np.array([0.0, 2.0, 6.0])) == [(2.0, 6.0)]
    with pytest.raises(ValueError, match="empty list of times"):
        snap_spans([(0, 1)], [])
    with pytest.raises(ValueError, match="do not ascend"):
        snap_spans([(0, 1)], [2.0, 1.0])
    with pytest.raises(ValueError, match="end no earlier"):
        snap_spans([(3, 1)], times)
