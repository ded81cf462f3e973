"""Clips dealt out by cost: each once, the largest first, processes about equally long at work."""

from __future__ import annotations

import math
import random

import pytest

from timelens_plugins.inference.shares import in_order


def test_shares_by_hand() -> None:
    """7, 6, 5, 4, 3 for two: 7 and 4, 6 and 5, and the 3 goes to either; then each takes what the other has left."""
    costs = [3.0, 7.0, 5.0, 6.0, 4.0]
    assert in_order(costs, 0, 2) == ([1, 4, 0], [3, 2])
    assert in_order(costs, 1, 2) == ([3, 2], [4, 1, 0])


def test_what_cannot_be_read_comes_first_and_equal_costs_stay_in_order() -> None:
    assert in_order([1.0, 2.0, math.inf, 2.0]) == ([2, 1, 3, 0], [])
    with pytest.raises(ValueError, match="process 2 of 2"):
        in_order([1.0], 2, 2)


def test_every_piece_is_in_one_share_and_everybody_would_do_all() -> None:
    rng = random.Random(0)
    for processes in (1, 2, 3, 8):
        costs = [rng.paretovariate(1.5) for _ in range(200)]
        dealt = [in_order(costs, process, processes) for process in range(processes)]
        assert sorted(piece for own, _ in dealt for piece in own) == list(range(200))
        for own, rest in dealt:
            assert sorted(own + rest) == list(range(200))
            assert [costs[i] for i in own] == sorted((costs[i] for i in own), reverse=True)
        loads = [sum(costs[i] for i in own) for own, _ in dealt]
        # The bound of longest processing time first, against a lower bound of the best share.
        assert max(loads) <= 4 / 3 * max(max(costs), sum(costs) / processes)
        if processes > 1:
            assert len({tuple(rest[:1]) for _, rest in dealt}) > 1, "who is through does not meet the others"
