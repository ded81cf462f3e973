"""When rewards have stopped moving: a rule on the mean reward and the within-group spread. numpy only, no trainer.

Rewards of a step are noisy because every step draws other prompts, so a best value so far is mostly luck, and
comparing with it stops runs that still improve. The rule compares trends instead:

- Logged values are averaged into *blocks* of equally many samples. Patience is counted in samples, so the same data
  gives the same decision, whatever the batch size and the logging interval.
- For every window of blocks that reaches back from now, at least a patience long, a straight line is fitted to each
  series. Student's t gives an upper confidence limit of its slope: the fastest improvement that the data do not rule
  out. A window is *flat* in a series where that limit, per patience, is below the standard error of one patience's
  mean. This is an equivalence test (Schuirmann 1987) in the direction of improvement: absence of evidence is not
  enough, the data have to exclude an improvement that would stand out of the noise.
- Where the run as a whole has improved beyond doubt, the limit must also be below its average slope so far. A slow
  rise under strong noise thus needs more data instead of passing for a plateau.
- A plateau is a window flat in both series; an upward trend of the reward and a downward one of the spread are
  improvements. The median of such windows says where it began.
- A reward that falls, its upper limit below zero at a stricter level, stops the run whatever the spread does.
- Steps that have a reward and no spread do not count for the spread: a block averages those that have one, and the
  lines go through the blocks that have any, at least MIN_BLOCKS of them in a window that passes for flat. Where more
  than half of the run's blocks have none, the spread is not measured, and the reward alone decides; the decision says
  so.

Everything scales with the noise, which is that of the residuals around the line: multiplying rewards by ten changes
nothing. An outlier widens the confidence limit, and by no more than half what that limit is compared with (the noise is
capped by a median of second differences), so it delays a stop. Without a trend, a plateau is known four to six
patiences after it began, at any level of noise; what the noise decides is how slow a rise can be told from a plateau.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decision", "PlateauRule", "PlateauSettings", "SeriesFigures", "student_quantile", "suggested_patience"]

Array = NDArray[np.float64]

BLOCKS = 4  # a patience is divided into
MIN_BLOCKS = 6  # in a window: with fewer, a residual variance says little
FALL_CONFIDENCE = 0.9999  # a fall overrides the spread, so it takes more evidence
PROGRESS_CONFIDENCE = 0.99  # that the run as a whole has improved
ROUNDING = 1e-12  # share of the largest value below which two values are the same
OUTLIERS = 1.5  # times the robust noise: residuals beyond are taken for outliers and do not raise the limit


@dataclass(frozen=True)
class PlateauSettings:
    """Settings of the rule.

    Attributes:
        patience: samples (prompts drawn for training, each with its group of completions) over which an improvement
            must stand out of the noise to count. A stop comes four to six times as many after the plateau began. See
            :func:`suggested_patience`.
        min_steps: optimizer steps before which the rule does not stop.
        confidence: of the upper limits of the slopes, one-sided; high because the rule looks again after every block.
    """

    patience: int
    min_steps: int = 50
    confidence: float = 0.995

    def __post_init__(self) -> None:
        for name, least in (("patience", 1), ("min_steps", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")
        if not 0.5 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0.5 and 1, got {self.confidence}")


def suggested_patience(planned_samples: float) -> int:
    """A patience for a run of n samples: ``0.9 * n ** (2/3)``, and at least a thirtieth of the run.

    With a patience of W samples, noise ``s`` of one sample and a rise that adds ``g`` over the n samples of the run,
    the rise adds ``g W / n`` a patience and its noise is ``s / sqrt(W)``. At ``W = n ** (2/3)`` the two have the ratio
    ``g / s`` for every n: what counts as an improvement is a rise that over the whole run would add about the noise of
    one sample. In long runs that would be short enough to take a passing pause for the end; hence the thirtieth.
    """
    if not planned_samples > 0:
        raise ValueError(f"a run needs a positive number of samples, got {planned_samples}")
    return max(1, round(max(0.9 * planned_samples ** (2 / 3), planned_samples / 30)))


@dataclass(frozen=True)
class SeriesFigures:
    """What a decision rests on, for one series; improvement counts as positive.

    Attributes:
        mean: over the window.
        slope: per patience.
        upper: confidence limit of the slope, per patience.
        noise: standard error of the mean of one patience.
        limit: what ``upper`` had to stay below.
    """

    mean: float
    slope: float
    upper: float
    noise: float
    limit: float


@dataclass(frozen=True)
class Decision:
    """That training should stop, and why.

    Attributes:
        reason: ``"plateau"`` or ``"fall"``.
        step, samples: when it was made.
        start_step, start_samples: where the plateau began; for a fall, where the reward was highest.
        window: samples of the window that decided.
        reward, spread: figures of the two series; no spread where it was not measured.
    """

    reason: Literal["plateau", "fall"]
    step: int
    samples: float
    start_step: int
    start_samples: float
    window: float
    reward: SeriesFigures
    spread: SeriesFigures | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """The inverse of :meth:`to_dict`."""
        series = {k: v and SeriesFigures(**v) for k, v in values.items() if k in ("reward", "spread")}
        return cls(**{**values, **series})

    def summary(self) -> str:
        """One line for a log."""
        where = "the reward has reached a plateau" if self.reason == "plateau" else "the reward is falling"
        text = (
            f"{where} since step {self.start_step} (sample {self.start_samples:.0f}), seen at step {self.step} over "
            f"the last {self.window:.0f} samples; {_figures('reward', self.reward)}"
        )
        if self.spread is None:
            return f"{text}; the spread was not measured, so the reward alone decided"
        return f"{text}; {_figures('spread', self.spread)}"


def _figures(name: str, f: SeriesFigures) -> str:
    return (
        f"{name} {f.mean:.4f}, improving by {f.slope:+.4f} and at most {f.upper:+.4f} per patience, "
        f"which had to be below {f.limit:.4f} (noise {f.noise:.4f})"
    )


class PlateauRule:
    """Takes logged values one after the other and says when to stop. See the module for the test.

    Args:
        settings: of the rule.
    """

    def __init__(self, settings: PlateauSettings) -> None:
        self.settings = settings
        self.samples = 0.0
        self._blocks: list[tuple[float, float, int, float, float]] = []  # start, end (samples), step, reward, spread
        self._open: list[tuple[float, float, float]] = []  # samples, reward, spread of the block that is filling
        self._open_start = 0.0

    def update(self, step: int, samples: float, reward: float | None, spread: float | None = None) -> Decision | None:
        """Take the values logged at ``step``.

        Args:
            step: optimizer steps so far.
            samples: prompts drawn so far; the values are means over those since the last call.
            reward: mean reward; None or NaN where there was none, which counts the samples and nothing else.
            spread: mean standard deviation of the rewards within a group; None or NaN where there was none.

        Raises:
            ValueError: ``samples`` did not grow.
        """
        if not samples > self.samples:
            raise ValueError(f"step {step}: {samples:g} samples so far, after {self.samples:g}: they must grow")
        weight, self.samples = samples - self.samples, samples
        if reward is None or not math.isfinite(reward):
            return None
        if not self._open:
            self._open_start = samples - weight
        self._open.append((weight, reward, math.nan if spread is None or not math.isfinite(spread) else spread))
        size = self.settings.patience / BLOCKS
        if sum(entry[0] for entry in self._open) < size * (1 - 1e-9):
            return None
        weights, rewards, spreads = (np.array(column) for column in zip(*self._open, strict=True))
        self._open = []
        self._blocks.append(
            (
                self._open_start,
                samples,
                step,
                float(np.average(rewards, weights=weights)),
                _average(spreads, weights),
            )
        )
        return self._decide(step) if step >= self.settings.min_steps else None

    def _decide(self, step: int) -> Decision | None:
        start, end, steps, rewards, spreads = (np.array(column) for column in zip(*self._blocks, strict=True))
        n = len(rewards)
        patience = self.settings.patience
        lengths = np.arange(MIN_BLOCKS, n + 1)
        lengths = lengths[end[-1] - start[n - lengths] >= patience * (1 - 1e-9)]
        if not len(lengths):
            return None
        x = (start + end) / 2 / patience
        block = np.mean(end - start) / patience
        reward = _Trends(x, rewards, lengths, block, self.settings)
        measured = 2 * np.isfinite(spreads).sum() >= n
        spread = _Trends(x, -spreads, lengths, block, self.settings) if measured else None
        flat = reward.flat & spread.flat if spread is not None else reward.flat
        falls = reward.fall
        if falls.any():
            chosen = int(np.argmax(falls))
            begin = _peak(start, end, rewards, patience)
            reason: Literal["plateau", "fall"] = "fall"
        elif flat.any():
            flats = np.nonzero(flat)[0]
            chosen = int(flats[len(flats) // 2])
            begin = n - int(lengths[chosen])
            reason = "plateau"
        else:
            return None
        first = int(lengths[chosen])
        return Decision(
            reason=reason,
            step=step,
            samples=float(end[-1]),
            start_step=int(steps[begin - 1]) if begin else 0,
            start_samples=float(start[begin]),
            window=float(end[-1] - start[n - first]),
            reward=reward.figures(chosen, rewards[-first:]),
            spread=None if spread is None or not spread.enough[chosen] else spread.figures(chosen, spreads[-first:]),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that later decisions depend on, besides the settings, as JSON types."""
        return {
            "samples": self.samples,
            "blocks": [[_json(v) for v in block] for block in self._blocks],
            "open": [[_json(v) for v in entry] for entry in self._open],
            "open_start": self._open_start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`."""
        self.samples = float(state["samples"])
        self._blocks = [(a, b, int(step), _float(r), _float(s)) for a, b, step, r, s in state["blocks"]]
        self._open = [(w, _float(r), _float(s)) for w, r, s in state["open"]]
        self._open_start = float(state["open_start"])


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else value


def _average(values: Array, weights: Array) -> float:
    """Of the values that are numbers; NaN where none is."""
    known = np.isfinite(values)
    return float(np.average(values[known], weights=weights[known])) if known.any() else math.nan


class _Trends:
    """Least-squares lines through the last blocks of a series, for many numbers of blocks at once.

    Args:
        x: middles of the blocks in patiences, shape ``(n,)``.
        y: the series, up for improvement, NaN in blocks that have no value, at most half of them, shape ``(n,)``.
        lengths: numbers of blocks, ascending, the last one at most n, shape ``(m,)``.
        block: length of a block in patiences.

    Attributes:
        slope, upper, noise, limit: as in :class:`SeriesFigures`, of each window, shape ``(m,)``.
        enough: whether a window has values enough; where it has not, the others are NaN.
        flat, fall: what the window shows.
    """

    def __init__(self, x: Array, y: Array, lengths: NDArray[np.int64], block: float, settings: PlateauSettings) -> None:
        known = np.isfinite(y)
        # Sums from the end backwards, around the last point so that nothing cancels; a missing block adds nothing.
        dx = np.where(known, x - x[-1], 0.0)[::-1]
        dy = np.where(known, _settled(y - y[known][-1], y[known]), 0.0)[::-1]
        index = lengths - 1
        counts = np.cumsum(known[::-1])[index]
        self.enough = counts >= MIN_BLOCKS
        counts = np.where(self.enough, counts, MIN_BLOCKS)
        sx, sy, sxx, sxy, syy = (np.cumsum(v)[index] for v in (dx, dy, dx * dx, dx * dy, dy * dy))
        sxx, sxy, syy = sxx - sx * sx / counts, sxy - sx * sy / counts, syy - sy * sy / counts
        sxx = np.where(self.enough, sxx, np.nan)  # a window with too few blocks is neither flat nor falling
        self.slope = sxy / sxx
        variance = np.maximum(syy - self.slope * sxy, 0.0) / (counts - 2)
        error = np.sqrt(variance / sxx)
        quantile, strict = (
            np.array([student_quantile(p, int(n) - 2) for n in counts]) for p in (settings.confidence, FALL_CONFIDENCE)
        )
        self.upper = self.slope + quantile * error
        self.noise = np.sqrt(variance * block)
        x, y = x[known], y[known]
        typical = _robust_noise(y) * np.sqrt(block)
        self.limit = np.minimum(self.noise, OUTLIERS * typical) if typical > 0 else self.noise
        improved, pace = _whole_run(x, y)
        if improved:
            self.limit = np.minimum(self.limit, pace)
        self.flat = self.upper <= self.limit
        self.fall = self.slope + strict * error < 0

    def figures(self, chosen: int, values: Array) -> SeriesFigures:
        mean = float(values[np.isfinite(values)].mean())
        return SeriesFigures(mean, *(float(v[chosen]) for v in (self.slope, self.upper, self.noise, self.limit)))


def _settled(change: Array, y: Array) -> Array:
    """``change`` without what is rounding of the values ``y`` alone, so that a constant series has no trend."""
    return np.where(np.abs(change) > ROUNDING * np.abs(y).max(), change, 0.0)


def _robust_noise(y: Array) -> float:
    """Standard deviation of the noise by the median of second differences, which neither trends nor outliers move."""
    second = y[2:] - 2 * y[1:-1] + y[:-2]
    return 1.4826 * float(np.median(np.abs(second))) / math.sqrt(6)


def _whole_run(x: Array, y: Array) -> tuple[bool, float]:
    """Whether the whole run has improved beyond doubt, and its average slope."""
    y = _settled(y - y[-1], y)
    dx, dy = x - x.mean(), y - y.mean()
    sxx = float(dx @ dx)
    slope = float(dx @ dy) / sxx
    n = len(x)
    residual = dy - slope * dx
    error = math.sqrt(float(residual @ residual) / (n - 2) / sxx)
    return slope - student_quantile(PROGRESS_CONFIDENCE, n - 2) * error > 0, slope


def _peak(start: Array, end: Array, rewards: Array, patience: float) -> int:
    """The block in the middle of the patience with the highest mean reward."""
    middle = (start + end) / 2
    means = [rewards[np.abs(middle - m) <= patience / 2].mean() for m in middle]
    return int(np.argmax(means))


@lru_cache(maxsize=8192)
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile, above the median, of Student's t with a whole number of degrees of freedom.

    >>> round(student_quantile(0.95, 10), 4)
    1.8125
    """
    low, high = 0.0, 1.0
    while _student_share(high, freedom) < 2 * probability - 1:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_share(middle, freedom) < 2 * probability - 1 else (low, middle)
    return (low + high) / 2


def _student_share(t: float, freedom: int) -> float:
    """Probability between -t and t: finite sums for whole degrees of freedom (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (k + 1) / (k + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
