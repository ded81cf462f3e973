"""The plateau rule on simulated reward curves with a known truth: how often it stops too early, in time, or never.

    python benchmarks/plateau_simulation.py                      # 1,000 seeds, prints the tables
    python benchmarks/plateau_simulation.py --write docs/plateau.md

Each simulated run has 300 optimizer steps, logged one by one. A curve gives the progress p of a run between 0 and 1;
the mean reward is ``0.35 + 0.2 p``, the spread within a group ``0.25 - 0.12 p``. Noise is what P prompts with 8
completions a step give where rewards differ by 0.3 (standard deviation) from prompt to prompt, by 0.25 within a group,
and the standard deviations of groups by 0.08. Curves, with t from 0 to 1 over the run and ``ease`` a parabola that
arrives at 1 with slope 0:

- *rise, then flat*: ``ease`` until t = 0.4, then flat
- *slow rise*: the same total gain in a straight line over the whole run
- *flat*: no progress
- *rise, then fall*: ``ease`` until 0.4, flat until 0.5, then the reward loses 0.8 of its gain until the end while the
  spread goes on shrinking, as in a collapse
- *two stages*: 0.6 by ``ease`` until 0.25, a pause, 0.4 by ``ease`` from 0.30 to 0.55, then flat

Words of the table:

- *false stop*: a stop before 95 % of the gain is reached; for the slow rise, any stop
- *in time*: no false stop, and a stop at most 15 % of the run after the end of the last rise (for *flat*: after
  min_steps, 10 % of the run); for *rise, then fall*: within the first third of the fall; for the slow rise: no stop
- *best*: the start of the plateau that the rule reports is at most 15 % of the run from the true one (for *rise, then
  fall*: from the flat top)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.plateau.rule import Decision, PlateauRule, PlateauSettings, suggested_patience

Array = NDArray[np.float64]

STEPS = 300
MIN_STEPS = 30
GENERATIONS = 8
LATE = 0.15
MARK = "<!-- table: benchmarks/plateau_simulation.py -->"


def ease(u: Array) -> Array:
    """A parabola from 0 to 1 that arrives with slope 0."""
    u = np.clip(u, 0.0, 1.0)
    return 1 - (1 - u) ** 2


def fallen(t: Array) -> Array:
    return np.clip((t - 0.5) / 0.5, 0.0, 1.0)


@dataclass(frozen=True)
class Curve:
    """Progress of reward and spread; when 95 % of the gain is reached; until when a stop is in time; the true start."""

    reward: Callable[[Array], Array]
    spread: Callable[[Array], Array]
    earliest: float
    latest: float
    start: tuple[float, float] | None


def _same(
    progress: Callable[[Array], Array], earliest: float, latest: float, start: tuple[float, float] | None
) -> Curve:
    return Curve(progress, progress, earliest, latest, start)


CURVES = {
    "rise, then flat": _same(lambda t: ease(t / 0.4), 0.4 * (1 - 0.05**0.5), 0.4 + LATE, (0.4, 0.4)),
    "slow rise": _same(lambda t: t, np.inf, np.inf, None),
    "flat": _same(lambda t: 0 * t, 0.0, MIN_STEPS / STEPS + LATE, (0.0, 0.0)),
    "rise, then fall": Curve(
        lambda t: ease(t / 0.4) - 0.8 * fallen(t),
        lambda t: ease(t / 0.4) + 0.5 * fallen(t),
        0.4 * (1 - 0.05**0.5),
        0.5 + 0.5 / 3,
        (0.4, 0.5),
    ),
    "two stages": _same(
        lambda t: 0.6 * ease(t / 0.25) + 0.4 * ease((t - 0.3) / 0.25),
        0.3 + 0.25 * (1 - (0.05 / 0.4) ** 0.5),
        0.55 + LATE,
        (0.55, 0.55),
    ),
}


def noise(kind: str, rng: np.random.Generator) -> Array:
    """Noise of unit variance, shape ``(2, STEPS)``."""
    if kind == "normal":
        return rng.standard_normal((2, STEPS))
    if kind == "heavy tails":  # Student's t with 3 degrees of freedom: now and then a step far off
        return rng.standard_t(3, (2, STEPS)) / np.sqrt(3)
    if kind == "correlated":  # steps that share a third of their noise with the one before
        white = rng.standard_normal((2, STEPS + 1))
        return (white[:, 1:] + 0.4 * white[:, :-1]) / np.sqrt(1.16)
    raise ValueError(f"unknown noise {kind!r}")


def simulate(curve: Curve, prompts: int, patience: int, kind: str, seed: int) -> Decision | None:
    """What the rule says about one run."""
    rng = np.random.default_rng([seed, prompts])
    t = np.arange(1, STEPS + 1) / STEPS
    of_reward = np.sqrt(0.3**2 / prompts + 0.25**2 / (GENERATIONS * prompts))
    of_spread = 0.08 / np.sqrt(prompts)
    reward_noise, spread_noise = noise(kind, rng)
    rewards = 0.35 + 0.2 * curve.reward(t) + of_reward * reward_noise
    spreads = 0.25 - 0.12 * curve.spread(t) + of_spread * spread_noise
    rule = PlateauRule(PlateauSettings(patience=patience, min_steps=MIN_STEPS))
    for step, (reward, spread) in enumerate(zip(rewards, spreads, strict=True), 1):
        if decision := rule.update(step, step * prompts, float(reward), float(spread)):
            return decision
    return None


def row(name: str, prompts: int, kind: str, seeds: range) -> str:
    """One line of the table, over all seeds."""
    curve = CURVES[name]
    patience = suggested_patience(STEPS * prompts)
    decisions = [simulate(curve, prompts, patience, kind, seed) for seed in seeds]
    stops = np.array([d.step / STEPS if d else np.inf for d in decisions])
    if curve.start is None:
        false, in_time, best = np.isfinite(stops).mean(), np.isinf(stops).mean(), None
    else:
        starts = np.array([d.start_step / STEPS if d else np.nan for d in decisions])
        low, high = curve.start
        false = (stops < curve.earliest).mean()
        in_time = ((stops >= curve.earliest) & (stops <= curve.latest)).mean()
        best = ((starts >= low - LATE) & (starts <= high + LATE)).mean()
    low, middle, high = np.quantile(stops, [0.05, 0.5, 0.95], method="nearest")
    quantiles = " / ".join("–" if np.isinf(q) else f"{q:.2f}" for q in (low, middle, high))
    cells = [
        f"{prompts}",
        kind,
        name,
        f"{100 * false:.1f}",
        f"{100 * in_time:.1f}",
        "" if best is None else f"{100 * best:.1f}",
        f"{100 * np.isinf(stops).mean():.1f}",
        quantiles,
    ]
    return "| " + " | ".join(cells) + " |"


HEADER = (
    "| prompts a step | noise | curve | false stop % | in time % | best % | no stop % | stop at 5 / 50 / 95 % |\n"
    "|---|---|---|---|---|---|---|---|"
)
SETUPS = ((128, "normal"), (64, "normal"), (64, "heavy tails"), (64, "correlated"), (32, "normal"), (8, "normal"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first-seed", type=int, default=100_000, help="settings were chosen on seeds below 1,000")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path, help="replace the table in this file")
    args = parser.parse_args()
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    lines = [HEADER]
    print(HEADER)
    with ProcessPoolExecutor(args.jobs) as pool:
        tasks = [(name, prompts, kind) for prompts, kind in SETUPS for name in CURVES]
        for line in pool.map(partial(_row, seeds), tasks):
            print(line, flush=True)
            lines.append(line)
    if args.write:
        before, _, after = args.write.read_text().partition(MARK)
        _, _, rest = after.partition(MARK)
        args.write.write_text(f"{before}{MARK}\n" + "\n".join(lines) + f"\n{MARK}{rest}")
    return 0


def _row(seeds: range, task: tuple[str, int, str]) -> str:
    return row(*task, seeds)


if __name__ == "__main__":
    sys.exit(main())
