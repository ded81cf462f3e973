"""What answers that never look at the video score: the floor a model has to clear.

Annotated spans are not spread evenly (many start at 0, many cover most of the clip), so fixed answers score well above
zero. Each level is the mIoU and recall of one such rule on given targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.metrics.readings import check_reading, round_predictions, target_array
from timelens_plugins.metrics.scores import THRESHOLDS
from timelens_plugins.spans import Span, SpanLike, pairwise_iou

__all__ = ["ChanceLevel", "chance_levels"]

RULES = ("best constant span", "best relative span", "whole clip", "random span")
GRID = 40  # steps of a candidate's ends; best spans are therefore exact to 1/40 of the range
DRAWS = 100  # random spans per target
CHUNK = 100_000  # IoU values held at once, so that a processor's cache holds them, too


@dataclass(frozen=True, slots=True)
class ChanceLevel:
    """One rule's scores (fractions, 0..1). ``span``: what it always answers, in seconds or as shares of the clip."""

    recall: Mapping[float, float]
    miou: float
    span: Span | None


def chance_levels(
    targets: Sequence[Sequence[SpanLike]],
    durations: Sequence[float],
    reading: str = "exact",
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
    rules: Sequence[str] = RULES,
) -> dict[str, ChanceLevel]:
    """Scores of four rules on the given targets, or of some of them.

    - ``"best constant span"``: the one span in seconds with the highest mIoU, ends on a grid of 1/40 of the latest
      target end; not clipped to shorter videos
    - ``"best relative span"``: the one share of the clip with the highest mIoU, ends on a grid of 1/40
    - ``"whole clip"``: from 0 to the duration
    - ``"random span"``: two uniform instants of the clip in order, mean over 100 draws per target

    The best spans are chosen on the targets they are scored on, so they are upper bounds of what such a rule can reach.

    Args:
        targets: one or several spans each, in seconds; the best IoU over them counts.
        durations: length of each clip in seconds.
        reading: see :mod:`timelens_plugins.metrics.readings`.
        seed: of the random spans.
        rules: names of those wanted.

    Raises:
        ValueError: no targets, different lengths, a duration that is not positive.
    """
    check_reading(reading)
    if not len(targets) or len(targets) != len(durations):
        raise ValueError(f"need one duration per target and at least one, got {len(targets)} and {len(durations)}")
    spans = target_array(targets)  # (n, most spans, 2)
    lengths = np.asarray(durations, dtype=np.float64)
    if not np.all(np.isfinite(lengths) & (lengths > 0)):
        raise ValueError("durations must be positive numbers of seconds")
    shares = np.array([(i / GRID, j / GRID) for i in range(GRID) for j in range(i + 1, GRID + 1)])  # (candidates, 2)
    seconds = shares * np.nanmax(spans)

    def ious(predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions that broadcast to (k, n, 2) -> IoU (k, n), best over the target's spans."""
        rounded = round_predictions(predicted, reading)
        return pairwise_iou(rounded[..., None, :], spans).max(axis=-1)

    def level(values: NDArray[np.float64], span: Span | None) -> ChanceLevel:
        return ChanceLevel({t: float((values >= t).mean()) for t in thresholds}, float(values.mean()), span)

    def best(candidates: NDArray[np.float64], scale: NDArray[np.float64]) -> ChanceLevel:
        """The candidate with the highest mIoU; a prediction is candidate * scale of the target's clip."""
        step = max(1, CHUNK // spans[..., 0].size)
        means = np.concatenate(
            [
                ious(candidates[i : i + step, None, :] * scale[:, None]).mean(axis=1)
                for i in range(0, len(candidates), step)
            ]
        )
        start, end = candidates[int(means.argmax())]
        return level(ious(np.array([[[start, end]]]) * scale[:, None]), Span(start, end))

    def random() -> ChanceLevel:
        generator = np.random.default_rng(seed)
        values = np.empty((DRAWS, len(lengths)))
        for row in values:
            a, b = generator.random((len(lengths), 2)).T
            row[:] = ious(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=-1) * lengths[:, None])
        return level(values, None)

    known = {
        "best constant span": lambda: best(seconds, np.ones_like(lengths)),
        "best relative span": lambda: best(shares, lengths),
        "whole clip": lambda: level(ious(np.array([[[0.0, 1.0]]]) * lengths[:, None]), None),
        "random span": random,
    }
    return {name: known[name]() for name in rules}
