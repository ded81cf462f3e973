"""Scores of the demo's stages, beside those of answers that never look at the video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from timelens_plugins.demo.stages import Cost
from timelens_plugins.metrics import (
    THRESHOLDS,
    Difference,
    Interval,
    Sample,
    Scores,
    chance_levels,
    evaluate,
    paired_difference,
)
from timelens_plugins.plateau import Decision, read_reward_log
from timelens_plugins.results import load_run, load_runs

__all__ = ["READING", "Summary", "latest_samples", "summarise"]

READING = "official"
"""Under which the demo's figures are, as those of the papers."""

CHANCE = {"random span": "random span", "best constant span": "best constant span"}
"""Levels of :func:`~timelens_plugins.metrics.chance_levels` that the table has, and their names there."""


@dataclass(frozen=True)
class Summary:
    """What a run of the demo came to. Scores are fractions.

    Attributes:
        scores: of each evaluated stage, in order, under the official reading.
        chance: recall and mIoU of answers without a video.
        gain: of the last stage over the one before it, paired.
        costs: of each stage.
        steps: of reinforcement learning.
        stop: the plateau that was found, if one was.
        rewards, spreads: mean reward and mean spread within groups over the first and over the last tenth of its steps.
    """

    scores: Mapping[str, Scores]
    chance: Mapping[str, tuple[Mapping[float, float], float]]
    gain: Difference
    costs: Mapping[str, Cost]
    steps: int
    stop: str | None
    rewards: tuple[float, float]
    spreads: tuple[float, float]

    def table(self) -> str:
        """The table as Markdown, readable as text."""
        rows = [["", *(f"R1@{t:g}" for t in THRESHOLDS), "mIoU", "95 % CI", "seconds"]]
        for name, (recall, miou) in self.chance.items():
            rows.append([name, *(_percent(recall[t]) for t in THRESHOLDS), _percent(miou), "", ""])
        for name, scores in self.scores.items():
            figures = [*(_percent(scores.recall[t]) for t in THRESHOLDS), _percent(scores.miou)]
            rows.append([name, *figures, _range(scores.intervals["mIoU"]), self._seconds(name)])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "| "
            + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
            + " |"
            for r in rows
        ]
        rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
        return "\n".join([lines[0], rule, *lines[1:]])

    def outcome(self) -> str:
        """What a reader of the table wants to know besides, in a few lines."""
        before, after = list(self.scores)[-2:]
        lines = [
            f"{after} against {before}: {100 * self.gain.miou:+.1f} mIoU, paired 95 % CI "
            f"{_range(self.gain.intervals['mIoU'], sign=True)} ({self.gain.n} moments of {self.gain.videos} clips)",
            f"reward {self.rewards[0]:.3f} → {self.rewards[1]:.3f}, spread within groups {self.spreads[0]:.3f} → "
            f"{self.spreads[1]:.3f}, {self.steps} steps; " + (self.stop or "no plateau before the last step"),
            f"{sum(cost.seconds for cost in self.costs.values()):.0f} s in all, with clips, evaluations and difficulty",
        ]
        if any(cost.starts > 1 for cost in self.costs.values()):
            lines.append("* was interrupted: seconds of its last start alone")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """All figures, scores as fractions."""
        return {
            "scores": {
                name: {
                    "n": s.n,
                    "videos": s.videos,
                    "recall": {f"{t:g}": s.recall[t] for t in THRESHOLDS},
                    "miou": s.miou,
                    "miou_ci95": _ends(s.intervals["mIoU"]),
                    "parse_failures": s.parse_failures,
                }
                for name, s in self.scores.items()
            },
            "chance": {
                name: {"recall": {f"{t:g}": recall[t] for t in THRESHOLDS}, "miou": miou}
                for name, (recall, miou) in self.chance.items()
            },
            "gain": {"miou": self.gain.miou, "miou_ci95": _ends(self.gain.intervals["mIoU"])},
            "costs": {name: vars(cost) for name, cost in self.costs.items()},
            "rlvr": {"steps": self.steps, "stop": self.stop, "rewards": self.rewards, "spreads": self.spreads},
        }

    def _seconds(self, name: str) -> str:
        cost = self.costs.get(name)
        if cost is None:
            return ""
        return f"{cost.seconds:.0f}" + ("*" if cost.starts > 1 else "")


def summarise(results: Mapping[str, Path], costs: Mapping[str, Cost], reinforcement: Path) -> Summary:
    """Read the stages' results.

    Args:
        results: folders of lmms-eval's results, by the name of the stage; at least two, all about the same moments.
        costs: of the stages, by the same names where they have one.
        reinforcement: folder of the run of reinforcement learning.

    Raises:
        ValueError: a folder without samples, or stages about different moments.
    """
    runs = load_runs(list(results.values()), list(results))
    samples = {run.name: [case.moment for case in run.cases] for run in runs}
    first = next(iter(samples.values()))
    levels = chance_levels([s.target for s in first], [s.duration or 0.0 for s in first], reading=READING)
    before, after = list(samples.values())[-2:]
    log, state = read_reward_log(reinforcement)
    decision = next((e["plateau"] for e in state["log_history"] if "plateau" in e), None)
    tenth = max(1, len(log.steps) // 10)
    return Summary(
        scores={name: evaluate(s, READING) for name, s in samples.items()},
        chance={shown: (levels[name].recall, levels[name].miou) for name, shown in CHANCE.items()},
        gain=paired_difference(after, before, READING),
        costs=dict(costs),
        steps=log.steps[-1],
        stop=None if decision is None else Decision.from_dict(decision).summary(),
        rewards=(fmean(log.rewards[:tenth]), fmean(log.rewards[-tenth:])),
        spreads=(fmean(log.spreads[:tenth]), fmean(log.spreads[-tenth:])),
    )


def latest_samples(results: Path) -> list[Sample]:
    """Moments with the answers of the newest evaluation in a folder of lmms-eval's results."""
    return [case.moment for case in load_run(results, results.name).cases]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _ends(interval: Interval | None) -> Sequence[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _range(interval: Interval | None, *, sign: bool = False) -> str:
    if interval is None:
        return ""
    form = "{:+.1f} … {:+.1f}" if sign else "{:.1f} … {:.1f}"
    return form.format(100 * interval.low, 100 * interval.high)
