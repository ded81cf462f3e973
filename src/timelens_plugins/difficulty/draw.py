"""Weighted draws without replacement: of all moments, or inside bins of duration. Pure numpy, deterministic by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["DURATION_EDGES", "BinReport", "Seed", "checked_weights", "draw", "stratified_draw"]

Seed = int | Sequence[int] | np.random.Generator

DURATION_EDGES = (30.0, 60.0, 90.0, 120.0, 150.0, 180.0, 210.0, 240.0)
"""Seconds between TimeLens's nine bins of duration; a video of 30 s is in the second."""


def draw(weights: ArrayLike, count: int, seed: Seed) -> NDArray[np.int64]:
    """``count`` different indices, drawn one after the other with chances in proportion to what is left of the weights.

    One exponential variate an index, divided by its weight; the smallest ones are drawn (Efraimidis and Spirakis 2006).
    That takes one pass, and the first k of a draw are the draw of k.

    Args:
        weights: finite, at least 0, shape ``(n,)``; what has weight 0 is never drawn.
        count: at least 0.
        seed: a number, several numbers, or a generator, which is advanced.

    Returns:
        Indices in the order they were drawn.

    Raises:
        ValueError: a weight that cannot be one, or fewer positive weights than ``count``.
    """
    values = checked_weights(weights, count)
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    with np.errstate(divide="ignore", over="ignore"):
        # Logarithms, as a tiny weight's quotient overflows and its order would be lost.
        keys = np.log(rng.standard_exponential(len(values))) - np.log(values)
    chosen = np.argpartition(keys, count - 1)[:count] if 0 < count < len(values) else np.arange(len(values))[:count]
    if count == len(values):
        chosen = np.arange(len(values))
    return chosen[np.argsort(keys[chosen], kind="stable")].astype(np.int64)


def checked_weights(weights: ArrayLike, count: int) -> NDArray[np.float64]:
    """Weights as an array, of which ``count`` different ones can be drawn.

    Raises:
        ValueError: a weight that cannot be one, or fewer positive weights than ``count``.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"weights must have shape (n,), got {values.shape}")
    bad = np.nonzero(~(np.isfinite(values) & (values >= 0)))[0]
    if len(bad):
        raise ValueError(f"weight {int(bad[0])} is {values[bad[0]]}: weights must be finite and at least 0")
    positive = int((values > 0).sum())
    if not 0 <= count <= positive:
        raise ValueError(f"cannot draw {count} different indices: {positive} of {len(values)} weights are above 0")
    return values


@dataclass(frozen=True)
class BinReport:
    """What a bin of durations gave.

    Attributes:
        low, high: seconds, low included.
        moments: in the bin, of these ``drawable`` with a weight above 0.
        quota: how many were to be drawn.
        drawn: how many were.
    """

    low: float
    high: float
    moments: int
    drawable: int
    quota: int
    drawn: int


def stratified_draw(
    weights: ArrayLike,
    durations: ArrayLike,
    target: int,
    seed: Seed,
    *,
    edges: Sequence[float] = DURATION_EDGES,
    redistribute: bool = False,
) -> tuple[NDArray[np.int64], list[BinReport]]:
    """Draw equally many moments from every bin of duration.

    As TimeLens does, each of the 9 bins gives ``target // 9`` moments, and a bin with fewer gives all it has: 2,500
    gives at most 2,493. With ``redistribute`` the quotas of short bins, and the remainder, go to the others in equal
    parts, so that the result has ``target`` moments wherever the data have that many.

    Args:
        weights: shape ``(n,)``; see :func:`draw`.
        durations: seconds, shape ``(n,)``.
        target: moments to draw in all.
        seed: a number, several numbers, or a generator.
        edges: seconds between the bins, ascending.
        redistribute: see above.

    Returns:
        Indices, ascending, and a report per bin.

    Raises:
        ValueError: a duration that is not a positive number, by its position; a target below the number of bins, of
            which ``target // 9`` would be none at all.
    """
    values, seconds = np.asarray(weights, dtype=np.float64), np.asarray(durations, dtype=np.float64)
    if seconds.shape != values.shape:
        raise ValueError(f"{len(values)} weights and {len(seconds)} durations")
    bad = np.nonzero(~(np.isfinite(seconds) & (seconds > 0)))[0]
    if len(bad):
        raise ValueError(f"duration {int(bad[0])} is {seconds[bad[0]]}: bins of duration need seconds above 0")
    if target < 0 or list(edges) != sorted(set(edges)):
        raise ValueError(f"target must be at least 0 and edges ascending, got {target} and {list(edges)}")
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    if 0 < target <= len(edges) and not redistribute:
        raise ValueError(
            f"a target of {target} is less than one moment for each of the {len(edges) + 1} bins of duration, which "
            "give equally many: draw more, or hand out what is left over (strata: duration_filled), or do without bins "
            "(strata: none)"
        )
    places = np.digitize(seconds, edges)
    members = [np.nonzero(places == i)[0] for i in range(len(edges) + 1)]
    drawable = [int((values[m] > 0).sum()) for m in members]
    quotas = _fill(drawable, target) if redistribute else [target // len(members)] * len(members)
    bounds = [0.0, *edges, np.inf]
    chosen: list[NDArray[np.int64]] = []
    reports: list[BinReport] = []
    for i, (inside, available, quota) in enumerate(zip(members, drawable, quotas, strict=True)):
        picked = inside[draw(values[inside], min(quota, available), rng)]
        chosen.append(picked)
        reports.append(BinReport(bounds[i], bounds[i + 1], len(inside), available, quota, len(picked)))
    return np.sort(np.concatenate(chosen)), reports


def _fill(available: Sequence[int], target: int) -> list[int]:
    """Quotas as equal as the bins allow, ``target`` in all where they hold that many; a remainder goes to the first."""
    quotas = [0] * len(available)
    left = min(target, sum(available))
    while left:
        open_bins = [i for i, n in enumerate(available) if quotas[i] < n]
        share = left // len(open_bins)
        for i in open_bins if share else open_bins[:left]:
            more = min(max(share, 1), available[i] - quotas[i])
            quotas[i] += more
            left -= more
    return quotas
