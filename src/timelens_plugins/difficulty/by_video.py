"""Weighted draws of several moments of a video at a time, for trainers that compute what a video's prompts share once.

The rule. A *draw* takes a video v and then moments of it, at most k. With w the weights, W_v their sum over a video and
M_v the largest of them:

- the video is drawn with a chance in proportion to a_v = max(M_v, W_v / k);
- each moment i of it comes along with the chance w_i / a_v, by systematic sampling in random order (Madow 1949): their
  number is W_v / a_v, rounded down or up.

So in every draw a moment's chance is a_v / sum(a) * w_i / a_v = w_i / sum(a): it stays in proportion to its weight, for
any k. What the rule cannot keep:

- *k moments of each video*. A video gives W_v / M_v moments where that is less than k: all it has where their weights
  are equal, fewer where one weighs more than the others, which are wanted less often than it is;
- *independence*. Moments of a video come together;
- *chances within a batch*. Videos come without replacement, so that those of large a_v come a little less often than by
  their weights, as single moments of large weight do in a draw without replacement.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timelens_plugins.difficulty.draw import Seed, checked_weights

__all__ = ["Videos", "draw_by_video"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class Videos:
    """Which moments are of one video.

    Args:
        names: of each moment's video, anything that can be compared, in the order of the weights.
    """

    def __init__(self, names: Sequence[Hashable]) -> None:
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        video = np.array([numbers[name] for name in names], dtype=np.int64)
        self.order: Indices = np.argsort(video, kind="stable")
        """Indices of the moments, video after video, these in order of their first moments."""
        self.starts: Indices = np.searchsorted(video[self.order], np.arange(len(numbers) + 1)).astype(np.int64)
        """Where each video begins in ``order``; the last entry is the end."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def moments(self) -> list[list[int]]:
        """Indices of each video's moments."""
        return [part.tolist() for part in np.split(self.order, self.starts[1:-1])]


def draw_by_video(weights: ArrayLike, videos: Videos, parts: Sequence[int], limit: int, seed: Seed) -> Indices:
    """Different moments by the rule above, as many as the parts hold together; a video's are in one part.

    Each part is filled up by draws of at most ``limit`` moments, and of no more than it still holds. A video that was
    drawn comes again only when all others with a weight above 0 were drawn.

    Args:
        weights: finite, at least 0, shape ``(n,)``; what has weight 0 is never drawn.
        videos: of the same moments.
        parts: moments of each part.
        limit: k.
        seed: a number, several numbers, or a generator, which is advanced.

    Returns:
        Indices of the moments, part after part.

    Raises:
        ValueError: a weight that cannot be one, or fewer positive weights than the parts hold.
    """
    values = checked_weights(weights, sum(parts))
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    left = _scaled(values)[videos.order]
    sums, greatest = (f.reduceat(left, videos.starts[:-1]) for f in (np.add, np.maximum))
    waiting = np.ones(len(videos), dtype=bool)
    drawn: list[Indices] = []
    for part in parts:
        room = part
        while room:
            chances = np.where(waiting, np.maximum(greatest, sums / min(limit, room)), 0.0)
            ends = chances.cumsum()
            if not ends[-1] > 0:
                waiting[:] = True
                continue
            video = int(ends.searchsorted(_below(rng.random() * ends[-1], ends[-1]), side="right"))
            of_video = slice(videos.starts[video], videos.starts[video + 1])
            chosen = videos.starts[video] + _some(left[of_video] / chances[video], min(limit, room), rng)
            drawn.append(videos.order[chosen])
            room -= len(chosen)
            left[chosen] = 0.0
            waiting[video] = False
            sums[video], greatest[video] = left[of_video].sum(), left[of_video].max()
    return np.concatenate(drawn) if drawn else np.empty(0, dtype=np.int64)


def _some(chances: Array, limit: int, rng: np.random.Generator) -> Indices:
    """Places of moments that are taken with these chances, their sum rounded down or up; one at least.

    Systematic sampling: chances are laid end to end in random order, and what a point of a random grid of step 1 falls
    on is taken.
    """
    order = rng.permutation(chances.nonzero()[0])
    ends = chances[order].cumsum()
    points = rng.random() + np.arange(limit)
    points = _below(points[points < max(ends[-1], 1.0)], ends[-1])
    hit = ends.searchsorted(points, side="right")
    return order[hit[np.diff(hit, prepend=-1) > 0]]  # by rounding alone, two points may hit the same one


def _below(points: Any, end: float) -> Any:
    """Rounding may reach the end, which is not part of the last stretch."""
    return np.minimum(points, np.nextafter(end, 0.0))


def _scaled(weights: Array) -> Array:
    """Weights of 1 at most, so that no sum overflows, and none that was above 0 at 0."""
    scaled = weights / max(weights.max(initial=0.0), np.finfo(np.float64).tiny)
    return np.where(weights > 0, np.maximum(scaled, np.finfo(np.float64).tiny), 0.0)
