"""Who answers what, and in which order: by cost, the largest first, and whoever is done goes on with the others' work.

Several processes deal clips out alike, as each computes the same costs. What a slow one has not begun the others take,
once they are through with their own; that nobody begins what another has begun is up to who uses this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["in_order"]


def in_order(costs: Sequence[float], process: int = 0, processes: int = 1) -> tuple[list[int], list[int]]:
    """Indices of all pieces of work, in the order in which a process takes them: its own share, and all others.

    Each piece, from the largest to the smallest, is of the process that has least so far (longest processing time
    first, Graham 1969). Largest first, so that memory that does not suffice shows at once, and so do pieces of infinite
    cost, which cannot be done; and small ones are left for the end, when processes wait for each other. Of the others'
    work a process takes every ``processes``-th piece first, so that two that are through at the same time do not meet.

    Args:
        costs: of each piece, at least 0, in any unit.
        process: which this is.
        processes: of how many.
    """
    if not 0 <= process < processes:
        raise ValueError(f"process {process} of {processes}: the first of n processes is 0, the last n - 1")
    loads = [0.0] * processes
    own: list[int] = []
    rest: list[int] = []
    for piece in sorted(range(len(costs)), key=lambda i: -costs[i]):
        least = loads.index(min(loads))
        loads[least] += costs[piece] if math.isfinite(costs[piece]) else 0.0
        (own if least == process else rest).append(piece)
    others = [piece for i, piece in enumerate(rest) if i % processes != process]
    return own, rest[process::processes] + others
