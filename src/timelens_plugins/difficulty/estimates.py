"""Difficulty with its uncertainty. numpy only.

The IoU of one answer is a poor estimate of how well a model does on a moment. Choosing the moments whose one answer
failed chooses many where the model was merely unlucky, and training then teaches it to avoid its usual, mostly right
answers. Sampling several answers lowers the error; shrinkage towards the mean of all moments lowers what is left:
an estimate moves to the mean by as much as its own error is large beside the true differences between moments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.difficulty.weights import Difficulty

__all__ = ["ANSWER_STD", "Estimates"]

Array = NDArray[np.float64]

ANSWER_STD = 0.25
"""Standard deviation of the IoUs of one moment's answers that is assumed where every moment has one answer only, which
says nothing about it. Of the size of the within-group reward spread when GRPO begins."""

_PRIOR_FREEDOM = 4.0  # how many degrees of freedom the common variance counts as, beside a moment's own


@dataclass(frozen=True)
class Estimates:
    """IoUs of answers, per moment; arrays of shape ``(n,)``.

    Attributes:
        ids: of the moments.
        mean: over a moment's answers, 0..1.
        std: sample standard deviation over them; NaN with one answer.
        answers: how many there are.
    """

    ids: tuple[str, ...]
    mean: Array
    std: Array
    answers: NDArray[np.int64]

    @classmethod
    def from_ious(cls, ids: Sequence[str], ious: Sequence[Sequence[float]]) -> Estimates:
        """From the IoUs of each moment's answers.

        Raises:
            ValueError: a moment without answers, or an IoU outside 0..1, naming the moment.
        """
        means, stds, counts = np.empty(len(ids)), np.full(len(ids), np.nan), np.empty(len(ids), dtype=np.int64)
        for i, (name, values) in enumerate(zip(ids, ious, strict=True)):
            array = np.asarray(values, dtype=np.float64)
            if not len(array) or not ((array >= 0) & (array <= 1)).all():
                raise ValueError(f"moment {name!r}: needs one or more IoUs in 0..1, got {list(values)}")
            means[i], counts[i] = array.mean(), len(array)
            if len(array) > 1:
                stds[i] = array.std(ddof=1)
        return cls(tuple(ids), means, stds, counts)

    def answer_variance(self, answer_std: float = ANSWER_STD) -> Array:
        """Variance of the IoU of a moment's answers, each moment's own pulled towards the common one.

        The common variance is the mean over moments, weighted by degrees of freedom; it counts as four of them beside a
        moment's own ``answers - 1``. With single answers throughout, it is the square of ``answer_std``.
        """
        freedom = (self.answers - 1).astype(np.float64)
        own = np.where(freedom > 0, np.nan_to_num(self.std) ** 2, 0.0)
        common = float(freedom @ own / freedom.sum()) if freedom.sum() else answer_std**2
        variance: Array = (_PRIOR_FREEDOM * common + freedom * own) / (_PRIOR_FREEDOM + freedom)
        return variance

    def shrunk(self, answer_std: float = ANSWER_STD) -> Difficulty:
        """Estimates that count their own error: empirical Bayes for a normal mean (Efron and Morris 1975).

        With error variance ``e = variance / answers`` of a moment and true variance ``t`` between moments, its mean
        moves to ``m + t / (t + e) (mean - m)``, m being the precision-weighted mean of all, and its standard error is
        ``sqrt(t e / (t + e))``. ``t`` is estimated by moments: the variance of the means less their average error.

        Args:
            answer_std: see :data:`ANSWER_STD`; without effect where any moment has several answers.

        Returns:
            Means in 0..1, their standard errors, and the standard deviations of a moment's answers.
        """
        variance = self.answer_variance(answer_std)
        error = variance / self.answers
        between = float(np.var(self.mean, ddof=1) - error.mean()) if len(self.mean) > 1 else 0.0
        between = max(between, 0.0)
        if between == 0.0:  # the differences are no larger than the noise
            precision = self.answers.astype(np.float64)
            common = float(precision @ self.mean / precision.sum())
            # The mean of all moments has an error of its own, however equal they are.
            return Difficulty(
                np.full(len(self.mean), common),
                np.full(len(self.mean), float(np.sqrt(error.mean() / len(self.mean)))),
                np.sqrt(variance),
            )
        weight = 1.0 / (between + error)
        common = float(weight @ self.mean / weight.sum())
        reliability = between / (between + error)
        return Difficulty(
            np.clip(common + reliability * (self.mean - common), 0.0, 1.0),
            np.sqrt(reliability * error),
            np.sqrt(variance),
        )

    def plain(self) -> Difficulty:
        """The means as they are, as the released recipe takes them; spreads where every moment has several answers."""
        spread = self.std if np.isfinite(self.std).all() else None
        return Difficulty(self.mean, None, spread)

    def take(self, ids: Sequence[str]) -> Estimates:
        """The estimates of these moments, in this order.

        Raises:
            ValueError: there is none for one of them.
        """
        places = {name: i for i, name in enumerate(self.ids)}
        missing = [name for name in ids if name not in places]
        if missing:
            raise ValueError(f"no estimate for {len(missing)} of {len(ids)} moments, such as {missing[0]!r}")
        order = np.array([places[name] for name in ids], dtype=np.int64)
        return Estimates(tuple(ids), self.mean[order], self.std[order], self.answers[order])
