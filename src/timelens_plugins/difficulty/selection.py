"""A training set of a given size from moments of known difficulty, and a report of what was chosen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.difficulty.draw import BinReport, draw, stratified_draw
from timelens_plugins.difficulty.weights import Difficulty, Weighting
from timelens_plugins.moments import Moment

__all__ = ["STRATA", "Selection", "select_moments"]

logger = logging.getLogger(__name__)

STRATA = ("duration", "duration_filled", "none")
"""``duration``: TimeLens's nine bins, each with target // 9; ``duration_filled``: with the quotas of short bins given
to the others; ``none``: all moments together."""

_HISTOGRAM_BINS = 20


@dataclass(frozen=True)
class Selection:
    """What was chosen.

    Attributes:
        indices: of the chosen moments, ascending.
        iou: difficulty of all moments.
        target: how many were wanted.
        bins: of duration, where there were any.
        notes: what a reader of the log has to know.
    """

    indices: NDArray[np.int64]
    iou: NDArray[np.float64]
    target: int
    bins: Sequence[BinReport] = ()
    notes: Sequence[str] = field(default=())

    def histogram(self) -> str:
        """IoUs before and after, in bins of 0.05, as text."""
        chosen = self.iou[self.indices]
        before, after = (_counts(v) for v in (self.iou, chosen))
        widest = max(1, *before, *after)
        lines = [f"{'IoU':11}{'before':>8}{'after':>8}"]
        for i, (b, a) in enumerate(zip(before, after, strict=True)):
            low, high = i / _HISTOGRAM_BINS, (i + 1) / _HISTOGRAM_BINS
            bars = f"{'░' * round(30 * b / widest):30} {'█' * round(30 * a / widest)}".rstrip()
            lines.append(f"{low:.2f}–{high:.2f}  {b:8d}{a:8d}  {bars}")
        mean = f"{chosen.mean():.3f}" if len(chosen) else "–"
        lines.append(f"{'moments':11}{len(self.iou):8d}{len(chosen):8d}")
        lines.append(f"{'mean IoU':11}{self.iou.mean():8.3f}{mean:>8}")
        return "\n".join(lines)

    def summary(self) -> str:
        """The counts, the bins and the notes, a line each."""
        lines = [f"{len(self.indices)} of {len(self.iou)} moments selected (target {self.target})"]
        for b in self.bins:
            span = f"[{b.low:g}, {b.high:g}) s"
            lines.append(f"  {span:14}{b.moments:7d} moments, quota {b.quota}, {b.drawn} drawn")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def select_moments(
    moments: Sequence[Moment],
    difficulty: Difficulty,
    target: int | None,
    *,
    weighting: Weighting | None = None,
    strata: str = "duration",
    seed: int = 0,
) -> Selection:
    """Draw a training set without replacement; the same arguments always give the same set. Logs summary and notes.

    Args:
        moments: n moments; ``duration`` is needed with bins of duration.
        difficulty: arrays of shape ``(n,)`` in the moments' order.
        target: moments to choose; None, or at least n: all of them, whatever their weights.
        weighting: default: TimeLens's Gaussian.
        strata: one of :data:`STRATA`.
        seed: of the draw.

    Raises:
        ValueError: an unknown ``strata``; a moment without a duration, or arrays of another length; values outside
            their range, naming the moment; a target that leaves no moment to a bin of duration.
    """
    weighting = weighting or Weighting()
    if strata not in STRATA:
        raise ValueError(f"strata must be one of {', '.join(STRATA)}, got {strata!r}")
    if not moments:
        raise ValueError("no moments to select from")
    if target is not None and target < 1:
        raise ValueError(f"target_size must be at least 1, got {target}")
    iou = np.asarray(difficulty.mean, dtype=np.float64)
    if len(iou) != len(moments):
        raise ValueError(f"{len(moments)} moments and {len(iou)} estimates of difficulty")
    bad = np.nonzero(~((iou >= 0) & (iou <= 1)))[0]
    if len(bad):
        raise ValueError(f"moment {moments[bad[0]].id!r} has the difficulty {iou[bad[0]]}, which is not an IoU in 0..1")
    weights = weighting.weights(difficulty)
    notes: list[str] = []
    if target is None or target >= len(moments):
        if target is not None and target > len(moments):
            notes.append(f"target {target} is larger than the data: all {len(moments)} moments are used")
        return _said(Selection(np.arange(len(moments)), iou, target or len(moments), notes=notes))
    if (note := _about_weights(weighting, iou, weights)) is not None:
        notes.append(note)
    bins: list[BinReport] = []
    if strata == "none":
        positive = int((weights > 0).sum())
        indices = np.sort(draw(weights, min(target, positive), seed))
    else:
        indices, bins = stratified_draw(
            weights, _durations(moments), target, seed, redistribute=strata == "duration_filled"
        )
        if empty := [f"[{b.low:g}, {b.high:g})" for b in bins if not b.moments]:
            notes.append(f"no moment lasts {', '.join(empty)} s: these bins of duration give none")
    if len(indices) < target:
        notes.append(_shortfall(len(indices), target, weights, strata))
    return _said(Selection(indices, iou, target, bins, notes))


def _about_weights(weighting: Weighting, iou: NDArray[np.float64], weights: NDArray[np.float64]) -> str | None:
    """What a reader would not expect of weights by difficulty."""
    if weighting.method == "uniform":
        return None
    same = np.ptp(iou) == 0
    which = f"all moments have the IoU {iou[0]:g}" if same else "all moments have the same weight"
    if not (weights > 0).any():
        return f"{f'{which}, and none' if same else 'no moment'} has a weight above 0: nothing can be drawn"
    if np.ptp(weights) == 0:
        return f"{which}: difficulty does not tell them apart, the draw is uniform"
    if same:
        other = {"hard": "the spread of a moment's answers", "gaussian": "the error of an estimate"}[weighting.method]
        return f"{which}: what tells them apart is {other} alone"
    return None


def _shortfall(drawn: int, target: int, weights: NDArray[np.float64], strata: str) -> str:
    zero = int((weights <= 0).sum())
    reasons = []
    if strata == "duration":
        reasons.append(f"each bin gives {target // 9} at most, and short bins all they have (strata: duration_filled)")
    if zero:
        reasons.append(f"{zero} moments have weight 0 and are never drawn")
    return f"{drawn} moments instead of {target}: {'; '.join(reasons)}"


def _durations(moments: Sequence[Moment]) -> NDArray[np.float64]:
    missing = [m.id for m in moments if m.duration is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(moments)} moments have no duration, such as {missing[0]!r}: bins of duration need "
            "it; add it to the annotations, or set strata: none"
        )
    return np.array([m.duration for m in moments], dtype=np.float64)


def _counts(values: NDArray[np.float64]) -> list[int]:
    return [int(n) for n in np.histogram(values, bins=_HISTOGRAM_BINS, range=(0, 1))[0]]


def _said(selection: Selection) -> Selection:
    logger.info("%s", selection.summary())
    for note in selection.notes:
        logger.warning("%s", note)
    return selection
