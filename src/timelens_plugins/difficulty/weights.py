"""From difficulty to weights. Pure numpy; difficulty is an IoU in 0..1, so *hard* is low.

Weights are relative: only their ratios matter. Every function takes and gives arrays of shape ``(n,)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "DENSITY_BINS",
    "METHODS",
    "Difficulty",
    "Weighting",
    "density",
    "gaussian_weights",
    "hard_weights",
    "uniform_weights",
]

Array = NDArray[np.float64]

DENSITY_BINS = 20
METHODS = ("gaussian", "hard", "uniform")


class Difficulty(NamedTuple):
    """What is known about the difficulty of n moments; arrays of shape ``(n,)``.

    Attributes:
        mean: expected IoU, 0..1.
        error: standard error of ``mean``; None where it is not known.
        spread: standard deviation of the IoUs of one moment's answers; None where it is not known.
    """

    mean: Array
    error: Array | None = None
    spread: Array | None = None


@dataclass(frozen=True)
class Weighting:
    """Which weights, by name. Settings of other methods than the chosen one have no effect.

    Attributes:
        method: ``"gaussian"`` (:func:`gaussian_weights`), ``"hard"`` (:func:`hard_weights`) or ``"uniform"``.
        mean, std, bins: of the Gaussian.
        uncertainty: let the Gaussian count the estimates' errors.
        a, b: exponents of ``"hard"``.
    """

    method: str = "gaussian"
    mean: float = 0.05
    std: float = 0.2
    bins: int | None = DENSITY_BINS
    uncertainty: bool = False
    a: float = 2.0
    b: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"unknown sampling method {self.method!r}; known: {', '.join(METHODS)}")

    def weights(self, difficulty: Difficulty) -> Array:
        """Weights of shape ``(n,)``.

        Raises:
            ValueError: values outside their range, or a spread or error that is needed and not known.
        """
        if self.method == "uniform":
            return uniform_weights(len(difficulty.mean))
        if self.method == "hard":
            return hard_weights(difficulty.mean, difficulty.spread, self.a, self.b)
        if self.uncertainty and difficulty.error is None:
            raise ValueError("uncertainty=True needs estimates with standard errors")
        error = difficulty.error if self.uncertainty else None
        return gaussian_weights(difficulty.mean, self.mean, self.std, self.bins, uncertainty=error)


def gaussian_weights(
    iou: ArrayLike,
    mean: float = 0.05,
    std: float = 0.2,
    bins: int | None = DENSITY_BINS,
    *,
    uncertainty: ArrayLike | None = None,
) -> Array:
    """Weights under which drawn moments have IoUs that follow a Gaussian, whatever the IoUs of the data.

    ``exp(-(iou - mean)² / (2 std²))`` over the density of the data at that IoU, which is the share of its bin in a
    histogram of equal bins on [0, 1]. The defaults are TimeLens's, where the Gaussian is over the IoU (arXiv 2512.14698
    prints it over 1 - IoU; its code and figure have the IoU).

    Args:
        iou: IoUs in 0..1, shape ``(n,)``.
        mean, std: of the Gaussian, in IoU.
        bins: of the histogram; None for the Gaussian alone.
        uncertainty: standard errors of the IoUs, shape ``(n,)``. The weight of a moment is then the expected one over
            a normal error of that size: a Gaussian widened to ``sqrt(std² + uncertainty²)``.

    Raises:
        ValueError: an IoU outside 0..1 or not a number, by its position.

    >>> gaussian_weights([0.05, 0.25, 1.0], bins=None).round(4).tolist()
    [1.0, 0.6065, 0.0]
    """
    values = _shares(iou, "iou")
    if not std > 0 or not np.isfinite([mean, std]).all():
        raise ValueError(f"the Gaussian needs a finite mean and a positive standard deviation, got {mean} and {std}")
    variance = np.full(len(values), std**2)
    if uncertainty is not None:
        errors = np.asarray(uncertainty, dtype=np.float64)
        if errors.shape != values.shape or not (errors >= 0).all():
            raise ValueError(f"uncertainty needs a number of at least 0 for each of the {len(values)} IoUs")
        variance = variance + errors**2
    weights = std / np.sqrt(variance) * np.exp(-((values - mean) ** 2) / (2 * variance))
    return weights if bins is None else weights / density(values, bins)


def density(iou: ArrayLike, bins: int = DENSITY_BINS) -> Array:
    """Density of the data at each IoU, by a histogram of equal bins on [0, 1]; 1 on average over [0, 1]."""
    values = _shares(iou, "iou")
    if bins < 1:
        raise ValueError(f"a histogram needs at least one bin, got {bins}")
    places = np.minimum((values * bins).astype(np.int64), bins - 1)  # the last bin holds 1.0 as well
    counts = np.bincount(places, minlength=bins)
    return counts[places] * bins / max(len(values), 1)


def hard_weights(mean: ArrayLike, std: ArrayLike | None = None, a: float = 2.0, b: float = 0.0) -> Array:
    """``(1 - mean)^a · std^b``: the harder, and with ``b > 0`` the more undecided between answers, the more often.

    The defaults are TimeLens2's (arXiv 2607.17423), whose means are over 8 answers.

    Args:
        mean: mean IoU over a moment's answers, in 0..1, shape ``(n,)``.
        std: their standard deviation, needed with ``b``.
        a, b: exponents, at least 0. With ``b > 0``, moments whose answers all score alike get weight 0.

    >>> hard_weights([0.0, 0.5, 1.0]).tolist()
    [1.0, 0.25, 0.0]
    """
    if not (a >= 0 and b >= 0):
        raise ValueError(f"exponents must be at least 0, got a={a} and b={b}")
    means = _shares(mean, "mean")
    weights = (1 - means) ** a
    if b == 0:
        return weights
    if std is None:
        raise ValueError(
            f"b={b} needs the standard deviation over several answers a moment: estimate with samples >= 2"
        )
    spreads = np.asarray(std, dtype=np.float64)
    if spreads.shape != means.shape:
        raise ValueError(f"{len(means)} means and {len(spreads)} standard deviations")
    bad = np.nonzero(~(spreads >= 0))[0]
    if len(bad):
        raise ValueError(
            f"std {int(bad[0])} is {spreads[bad[0]]}: b={b} needs it for every moment; estimate with samples >= 2"
        )
    return weights * spreads**b


def uniform_weights(count: int) -> Array:
    """Equal weights."""
    return np.ones(count)


def _shares(values: ArrayLike, name: str) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have shape (n,), got {array.shape}")
    bad = np.nonzero(~((array >= 0) & (array <= 1)))[0]
    if len(bad):
        raise ValueError(f"{name} {int(bad[0])} is {array[bad[0]]}, which is not between 0 and 1")
    return array
