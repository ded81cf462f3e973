"""The curves of a run with the plateau's start and the stop marked, as PNG or SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.locations import how_to_install
from timelens_plugins.plateau.history import RewardLog
from timelens_plugins.plateau.rule import Decision

__all__ = ["plot_rewards", "smoothed"]

SUFFIXES = (".png", ".svg")


def plot_rewards(log: RewardLog, path: str | Path, *, patience: float, decision: Decision | None = None) -> Path:
    """Draw mean reward and spread over the steps: logged values, their means over a patience, and the decision.

    Raises:
        ValueError: ``path`` ends in neither ``.png`` nor ``.svg``; matplotlib is not installed.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: plots are written as {' or '.join(SUFFIXES)}")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(f"plots need matplotlib: {how_to_install('report')}") from None
    series = [("mean reward", np.array(log.rewards))]
    if log.spread_key is not None:
        series.append((log.spread_key, np.array(log.spreads)))
    figure = Figure(figsize=(8, 3 * len(series)), layout="constrained")
    axes = figure.subplots(len(series), 1, sharex=True, squeeze=False)[:, 0]
    steps, samples = np.array(log.steps), np.array(log.samples)
    for axis, (name, values) in zip(axes, series, strict=True):
        axis.plot(steps, values, ".", color="0.7", markersize=3, label="logged")
        axis.plot(steps, smoothed(samples, values, patience), color="C0", label=f"mean over {patience:g} samples")
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        if decision is not None:
            start = "plateau begins" if decision.reason == "plateau" else "highest reward"
            axis.axvline(decision.start_step, color="C2", linestyle="--", label=f"{start}: step {decision.start_step}")
            axis.axvline(decision.step, color="C3", label=f"stop ({decision.reason}): step {decision.step}")
    axes[0].legend(fontsize="small")
    axes[-1].set_xlabel("optimizer step")
    figure.savefig(path, dpi=150)
    return path


def smoothed(samples: NDArray[np.float64], values: NDArray[np.float64], patience: float) -> NDArray[np.float64]:
    """Mean over the last ``patience`` samples at each entry, weighted by samples; NaN values do not count.

    Args:
        samples: drawn so far, ascending, shape ``(n,)``.
        values: shape ``(n,)``.
    """
    weights = np.diff(samples, prepend=0.0) * np.isfinite(values)
    total = np.cumsum(weights * np.nan_to_num(values))
    count = np.cumsum(weights)
    before = np.searchsorted(samples, samples - patience * (1 - 1e-9), side="right")
    total, count = (v - np.concatenate([[0.0], v])[before] for v in (total, count))
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)
