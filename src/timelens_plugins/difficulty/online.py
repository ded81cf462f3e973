"""Difficulty from the rewards of training: no extra inference, and it moves with the model. numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from timelens_plugins.difficulty.estimates import ANSWER_STD, Estimates
from timelens_plugins.difficulty.weights import Difficulty, Weighting

__all__ = ["ONLINE_WEIGHTING", "OnlineDifficulty"]

Array = NDArray[np.float64]

ONLINE_WEIGHTING = Weighting(method="hard", a=1.0, b=1.0)
"""``(1 - mean) · std``: what became easy has little of the first, what is hopeless little of the second."""

_FORMAT = 1


class OnlineDifficulty:
    """An estimate per moment, updated by the rewards of its groups.

    Each moment keeps its answers as sums whose weight halves every ``half_life`` draws of the whole run, since the
    model changes. Its mean is taken together with the mean over all moments, which counts like ``prior_answers``
    answers; so is its variance within groups. What was never drawn has the estimate of the prior, and what was not
    drawn for long returns to it, so nothing is lost for good by a few bad answers.

    ``update`` has to be given the same groups in the same order on every process: gather ids and rewards first. Then
    the weights are the same everywhere, too.

    Args:
        moment_ids: of the data set's rows, in order.
        prior: estimates to start from, for all moments in any order; their answers count as observed at the start.
        weighting: from estimates to weights; by default :data:`ONLINE_WEIGHTING`.
        half_life: draws after which an answer counts half; by default as many as there are moments.
        prior_answers: weight of the common mean.
        reward_range: what counts as IoU 0 and as IoU 1; rewards between are scaled.

    Raises:
        ValueError: ids that repeat, a prior for other moments, or settings outside their range.
    """

    def __init__(
        self,
        moment_ids: Sequence[str],
        prior: Estimates | None = None,
        *,
        weighting: Weighting = ONLINE_WEIGHTING,
        half_life: float | None = None,
        prior_answers: float = 4.0,
        reward_range: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.ids = tuple(moment_ids)
        self._index = {name: i for i, name in enumerate(self.ids)}
        if not self.ids or len(self._index) != len(self.ids):
            raise ValueError(f"{len(self.ids)} moments with {len(self._index)} different ids: each needs its own")
        self.half_life = float(len(self.ids) if half_life is None else half_life)
        low, high = reward_range
        if not (self.half_life > 0 and prior_answers > 0 and math.isfinite(low) and low < high < math.inf):
            raise ValueError(
                f"half_life and prior_answers must be positive and reward_range ascending, got {half_life}, "
                f"{prior_answers}, {reward_range}"
            )
        self.has_prior = prior is not None  # of IoUs, whatever is learned from later
        self.weighting, self.prior_answers, self.reward_range = weighting, float(prior_answers), (low, high)
        n = len(self.ids)
        self.draws = 0
        self._count, self._sum = np.zeros(n), np.zeros(n)  # of answers, decayed, as of the moment's last draw
        self._freedom, self._squares = np.zeros(n), np.zeros(n)  # of deviations within groups, likewise
        self._last = np.zeros(n)
        if prior is not None:
            self._start_from(prior)

    def _start_from(self, prior: Estimates) -> None:
        places = {name: i for i, name in enumerate(prior.ids)}
        missing = [name for name in self.ids if name not in places]
        if missing or len(places) != len(self.ids):
            raise ValueError(
                f"prior estimates for {len(places)} moments, of which this data set has {len(self.ids) - len(missing)} "
                f"of {len(self.ids)}" + (f"; missing is {missing[0]!r}" if missing else "")
            )
        order = np.array([places[name] for name in self.ids])
        self._count = prior.answers[order].astype(np.float64)
        self._sum = self._count * prior.mean[order]
        self._freedom = self._count - 1
        self._squares = self._freedom * np.nan_to_num(prior.std[order]) ** 2

    def update(self, moment_ids: Sequence[str], rewards: ArrayLike) -> None:
        """Take the rewards of a generation batch, of all processes.

        Args:
            moment_ids: one per completion, shape ``(b,)``.
            rewards: of the completions, shape ``(b,)``; NaN where one could not be scored, which is left out.

        Raises:
            ValueError: an unknown moment, or a reward outside ``reward_range``, naming the moment.
        """
        values = np.asarray(rewards, dtype=np.float64)
        if values.shape != (len(moment_ids),):
            raise ValueError(f"{len(moment_ids)} moment ids and rewards of shape {values.shape}")
        low, high = self.reward_range
        groups: dict[int, list[float]] = {}
        for name, value in zip(moment_ids, values, strict=True):
            if name not in self._index:
                raise ValueError(f"rewards for {name!r}, which is not a moment of this data set")
            if math.isnan(value):
                continue
            if not low - 1e-6 <= value <= high + 1e-6:
                raise ValueError(
                    f"moment {name!r} has the reward {value}, outside reward_range {self.reward_range}: set it to the "
                    "least and the greatest reward there can be"
                )
            groups.setdefault(self._index[name], []).append((value - low) / (high - low))
        for i, group in groups.items():  # one draw each, in order
            self.draws += 1
            answers = np.clip(group, 0.0, 1.0)
            kept = 0.5 ** ((self.draws - self._last[i]) / self.half_life)
            self._count[i] = kept * self._count[i] + len(answers)
            self._sum[i] = kept * self._sum[i] + answers.sum()
            self._freedom[i] = kept * self._freedom[i] + len(answers) - 1
            self._squares[i] = kept * self._squares[i] + ((answers - answers.mean()) ** 2).sum()
            self._last[i] = self.draws

    def difficulty(self) -> Difficulty:
        """Current estimates, in the order of ``ids``: shrunk means, their standard errors, spreads within groups."""
        kept = 0.5 ** ((self.draws - self._last) / self.half_life)
        count, freedom = kept * self._count, kept * self._freedom
        seen = float(count.sum())
        common = float((kept * self._sum).sum() / seen) if seen > 0 else 0.5
        variance_freedom = float(freedom.sum())
        common_variance = (
            float((kept * self._squares).sum() / variance_freedom) if variance_freedom > 1e-9 else ANSWER_STD**2
        )
        prior = self.prior_answers
        mean = (prior * common + kept * self._sum) / (prior + count)
        variance = (prior * common_variance + kept * self._squares) / (prior + freedom)
        return Difficulty(np.clip(mean, 0.0, 1.0), np.sqrt(variance / (prior + count)), np.sqrt(variance))

    def weights(self) -> Array:
        """Current weights, in the order of ``ids``."""
        return self.weighting.weights(self.difficulty())

    def state_dict(self) -> dict[str, Any]:
        """Everything learned so far, as JSON types; moments without answers are left out."""
        seen = [int(i) for i in np.nonzero(self._count)[0]]
        return {
            "format": _FORMAT,
            "draws": self.draws,
            "half_life": self.half_life,
            "reward_range": list(self.reward_range),
            "moments": {
                self.ids[i]: [float(a[i]) for a in (self._count, self._sum, self._freedom, self._squares, self._last)]
                for i in seen
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`, exactly.

        Raises:
            ValueError: it is of another data set, or was kept under other settings.
        """
        if state.get("format") != _FORMAT:
            raise ValueError(
                f"not a state of online difficulty that this version reads: format {state.get('format')!r}"
            )
        for name, here in (("half_life", self.half_life), ("reward_range", list(self.reward_range))):
            if state[name] != here:
                raise ValueError(f"the state was kept with {name}={state[name]}, this run has {here}")
        unknown = [name for name in state["moments"] if name not in self._index]
        if unknown:
            raise ValueError(f"the state has {len(unknown)} moments that this data set lacks, such as {unknown[0]!r}")
        self.draws = int(state["draws"])
        for array in (self._count, self._sum, self._freedom, self._squares, self._last):
            array[:] = 0.0
        for name, values in state["moments"].items():
            i = self._index[name]
            self._count[i], self._sum[i], self._freedom[i], self._squares[i], self._last[i] = values
