"""The demo over several seeds, with its controls; what difficulty sampling, the plateau's stop and several queries of a
video in a step do in it.

    python benchmarks/demo.py seeds --seeds 1 2 3 4 5 --output build/demo_seeds
    python benchmarks/demo.py sampling --seeds 1 2 3 --output build/demo_seeds
    python benchmarks/demo.py videos --seeds 1 2 3 --output build/demo_seeds

*seeds* runs ``timelens demo`` for each seed and then the control: as many CPU seconds as reinforcement learning and the
estimate of difficulty took, spent on more supervised fine-tuning, on the clips of both stages.

*sampling* trains each seed's fine-tuned model to the last step, without a stop, on moments that are drawn in four ways,
at a constant rate, so that a stop changes the length of a run and nothing else. It evaluates three checkpoints of each:
the one the plateau's rule would have kept, the one where it would have stopped, and the last one.

*videos* trains each seed's fine-tuned model as the demo does, to the last step, once with each prompt of a step from
another clip and once with up to three of the same clip: equally many groups, and the same moments for the evaluation.
Seconds are those of the training command, start included. *--at* compares them at an earlier step, also of runs that
were ended before the last one.

All evaluations are those of the demo: ``lmms-eval`` on the held-out moments, official reading. Interrupted, the same
command continues.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

from timelens_plugins.demo import SIZES
from timelens_plugins.demo.stages import Cost
from timelens_plugins.demo.story import Demo
from timelens_plugins.demo.table import READING, Summary, latest_samples
from timelens_plugins.metrics import Difference, Sample, evaluate, paired_difference
from timelens_plugins.plateau import PlateauSettings, read_reward_log, suggested_patience

PROMPTS = 8  # of a step, as in demo_rlvr.yaml
MOMENTS = 300  # that an offline selection keeps
RATE = "4e-4"  # where the demo's begins, which falls to 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["seeds", "sampling", "videos"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--control", type=int, nargs="*", help="seeds that get the control; default: all")
    parser.add_argument("--size", choices=SIZES, default="default")
    parser.add_argument("--processes", type=int, help="as of timelens demo")
    parser.add_argument("--rl-steps", type=int, default=400, help="of each run of 'sampling'")
    parser.add_argument("--queries-per-video", type=int, nargs="+", default=[1, 3], help="of each run of 'videos'")
    parser.add_argument("--at", type=int, help="step at which runs of 'videos' are compared, one of a checkpoint")
    parser.add_argument("--output", type=Path, default=Path("build/demo_seeds"))
    args = parser.parse_args()
    demos = [
        Demo(args.output / f"seed-{seed}", SIZES[args.size], seed, args.processes, lambda line: print(line, flush=True))
        for seed in args.seeds
    ]
    if args.part == "seeds":
        controlled = args.seeds if args.control is None else args.control
        rows = [(demo.seed, demo.run(), more_sft(demo) if demo.seed in controlled else None) for demo in demos]
        print(seeds_table(rows))
    elif args.part == "videos":
        print(videos_table([videos(demo, k, args.at) for demo in demos for k in args.queries_per_video]))
    else:
        ways = [(demo.seed, name, way) for demo in demos for name, way in sampling(demo, args.rl_steps)]
        print(sampling_table(ways))
    return 0


# ---------------------------------------------------------------------- seeds


def more_sft(demo: Demo) -> tuple[Sequence[Sample], int]:
    """Samples of the control, and its number of steps."""
    costs = demo.stages.costs
    per_step = costs["after SFT"].cpu_seconds / demo.settings.sft_steps
    spent = costs["after RLVR"].cpu_seconds + costs["difficulty"].cpu_seconds
    steps = demo.settings.sft_steps + round(spent / per_step)
    target = demo.output / "more_sft"
    both = demo.output / "both.jsonl"
    join_training_sets([demo.training, demo.pool], both)
    flags = ("--annotations", both, "--video_root", demo.output.resolve(), "--max_steps", steps)
    demo.stages.run("more SFT", lambda: demo.fine_tune(target, *flags), demo.said)
    demo.stages.run("evaluate more SFT", lambda: demo.evaluate(target, "more_sft"), demo.said)
    return latest_samples(demo.results("more_sft")), steps


def join_training_sets(folders: Sequence[Path], target: Path) -> None:
    """One annotation file for several sets beside it."""
    rows = []
    for folder in folders:
        for line in (folder / "timelens-100k.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append(json.dumps(row | {"video_path": f"{folder.name}/videos/{row['video_path']}"}) + "\n")
    target.write_text("".join(rows), encoding="utf-8")


def seeds_table(rows: Sequence[tuple[int, Summary, tuple[Sequence[Sample], int] | None]]) -> str:
    lines = [
        "| seed | random | best constant | base | SFT | RLVR | gain, paired 95 % CI | steps | CPU s | "
        "more SFT (steps) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for seed, summary, control in rows:
        base, sft, rlvr = (100 * s.miou for s in summary.scores.values())
        random, constant = (100 * miou for _, miou in summary.chance.values())
        more = "–" if control is None else f"{100 * evaluate(control[0], READING).miou:.1f} ({control[1]})"
        cost = summary.costs["after RLVR"].cpu_seconds
        lines.append(
            f"| {seed} | {random:.1f} | {constant:.1f} | {base:.1f} | {sft:.1f} | {rlvr:.1f} | {_gain(summary.gain)} | "
            f"{summary.steps} | {cost:.0f} | {more} |"
        )
    gains = [100 * summary.gain.miou for _, summary, _ in rows]
    clear = sum(interval.low > 0 for _, s, _ in rows if (interval := s.gain.intervals["mIoU"]) is not None)
    lines.append(f"\nmedian gain {median(gains):+.1f} mIoU; paired interval above 0 in {clear} of {len(rows)} seeds")
    return "\n".join(lines)


def _gain(difference: Difference) -> str:
    interval = difference.intervals["mIoU"]
    ends = "" if interval is None else f" ({100 * interval.low:+.1f} … {100 * interval.high:+.1f})"
    return f"{100 * difference.miou:+.1f}{ends}"


# ---------------------------------------------------------------------- several queries of a video


@dataclass(frozen=True)
class Joined:
    """A run with up to so many prompts of a clip in a step.

    Attributes:
        samples: its answers about the held-out moments.
        prompts: of a clip in a step, on average.
    """

    demo: Demo
    queries: int
    samples: Sequence[Sample]
    prompts: float

    @property
    def cost(self) -> Cost | None:
        """Of the whole run, where it reached its last step."""
        return self.demo.stages.costs.get(f"videos_{self.queries}")

    def against(self, other: Sequence[Sample]) -> Difference:
        return paired_difference(self.samples, other, READING)


def videos(demo: Demo, queries: int, at: int | None) -> Joined:
    demo.until_difficulty()
    short = name = f"videos_{queries}"
    target = model = demo.output / short
    flags = ("--difficulty_file", demo.difficulty, "--queries_per_video", queries)
    steps = at or demo.settings.rl_steps
    reached = target / f"checkpoint-{steps}"
    to_the_end = ("--min_steps", 10 * demo.settings.rl_steps)
    if at is None or not reached.exists():
        demo.stages.run(short, lambda: demo.reinforce(target, *flags, *to_the_end), demo.said)
    if not reached.exists():
        raise SystemExit(f"{target} has no {reached.name}, so its groups are not as many as those of other runs")
    if at is not None:
        name, model = f"{short}_{at}", reached
    demo.stages.run(f"evaluate {name}", lambda: demo.evaluate(model, name), demo.said)
    history = json.loads((reached / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    joined = [entry["queries_per_video"] for entry in history if "queries_per_video" in entry]
    run = Joined(demo, queries, latest_samples(demo.results(name)), fmean(joined) if joined else 1.0)
    demo.said(f"seed {demo.seed}, k = {queries}: {100 * evaluate(run.samples, READING).miou:.1f} mIoU")
    return run


def videos_table(runs: Sequence[Joined]) -> str:
    """The first number of queries is what the others are compared with."""
    first = runs[0].queries
    lines = [
        f"| seed | queries_per_video | prompts a clip | mIoU | gain on SFT, paired 95 % CI | against k = {first}, "
        "paired 95 % CI | CPU s | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    means: dict[int, list[tuple[float, ...]]] = {}
    for run in runs:
        miou, cost = 100 * evaluate(run.samples, READING).miou, run.cost
        gain = run.against(latest_samples(run.demo.results("sft")))
        [base] = [other for other in runs if other.demo is run.demo and other.queries == first]
        more = run.against(base.samples)
        means.setdefault(run.queries, []).append((run.prompts, miou, 100 * gain.miou, 100 * more.miou))
        mark = "*" if cost is not None and cost.starts > 1 else ""
        spent = "– | –" if cost is None else f"{cost.cpu_seconds:.0f}{mark} | {cost.seconds:.0f}{mark}"
        lines.append(
            f"| {run.demo.seed} | {run.queries} | {run.prompts:.2f} | {miou:.1f} | {_gain(gain)} | "
            f"{'–' if run is base else _gain(more)} | {spent} |"
        )
    for queries, found in means.items():
        prompts, miou, gained, over = (fmean(column) for column in zip(*found, strict=True))
        beside = "–" if queries == first else f"{over:+.1f}"
        lines.append(f"| mean | {queries} | {prompts:.2f} | {miou:.1f} | {gained:+.1f} | {beside} | | |")
    return "\n".join([*lines, "", "* was interrupted: of its last start alone"])


# ---------------------------------------------------------------------- sampling and stopping


def sampling(demo: Demo, steps: int) -> list[tuple[str, Way]]:
    """Each way to draw by its name."""
    demo.run()
    greedy = demo.output / "difficulty_greedy.jsonl"
    demo.stages.run("difficulty, greedy", lambda: demo.estimate(greedy, 1), demo.said)
    drawn = ("--strata", "none", "--target_size", MOMENTS)
    ways: dict[str, tuple[str | int | Path, ...]] = {
        "all alike": ("--difficulty", "none"),
        "greedy, as released": ("--difficulty", "offline", "--difficulty_file", greedy, *drawn),
        f"{demo.settings.samples} answers, shrunk": (
            *("--difficulty", "offline", "--difficulty_file", demo.difficulty, "--shrink", "true"),
            *drawn,
        ),
        "online": ("--difficulty", "online", "--difficulty_file", demo.difficulty),
    }
    start = latest_samples(demo.results("sft"))
    return [
        (name, one_way(demo, f"sampling_{steps}_{i}", flags, start, steps))
        for i, (name, flags) in enumerate(ways.items())
    ]


@dataclass(frozen=True)
class Way:
    """A run on moments drawn in one way.

    Attributes:
        rewards, spreads: mean over the first and over the last tenth of the steps.
        gains: step and gain of the checkpoint that the rule keeps, of the one where it stops (None where it does not),
            and of the last.
    """

    rewards: tuple[float, float]
    spreads: tuple[float, float]
    gains: tuple[tuple[int, Difference] | None, ...]


def one_way(demo: Demo, short: str, flags: Sequence[str | int | Path], start: Sequence[Sample], steps: int) -> Way:
    target = demo.output / short
    # The log counts samples where the plateau is watched; its stop is put beyond the end.
    kept = ("--min_steps", 10 * steps, "--max_steps", steps, "--save_total_limit", 1000)
    rate = ("--learning_rate", RATE, "--lr_scheduler_type", "constant")
    demo.stages.run(short, lambda: demo.reinforce(target, *flags, *kept, *rate), demo.said)
    log, _ = read_reward_log(target)
    decision = log.replay(PlateauSettings(suggested_patience(steps * PROMPTS)))

    def gain_at(step: int) -> tuple[int, Difference]:
        found = min(saved for saved in saved_steps(target) if saved >= step)
        name = f"{short}_{found}"
        checkpoint = target / f"checkpoint-{found}"
        demo.stages.run(f"evaluate {name}", lambda: demo.evaluate(checkpoint, name), demo.said)
        return found, paired_difference(latest_samples(demo.results(name)), start, READING)

    stops = (None, None) if decision is None else (gain_at(decision.start_step), gain_at(decision.step))
    return Way(_ends(log.rewards), _ends(log.spreads), (*stops, gain_at(log.steps[-1])))


def _ends(values: Sequence[float]) -> tuple[float, float]:
    tenth = max(1, len(values) // 10)
    return fmean(values[:tenth]), fmean(values[-tenth:])


def saved_steps(run: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in run.glob("checkpoint-*"))


def sampling_table(rows: Sequence[tuple[int, str, Way]]) -> str:
    lines = [
        "| seed | moments drawn | reward, first → last tenth | spread within groups | kept by the rule: step, gain | "
        "where it stops | last step |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, name, way in rows:
        moved = [f"{first:.3f} → {last:.3f}" for first, last in (way.rewards, way.spreads)]
        gains = ["–" if gain is None else f"{gain[0]}: {_gain(gain[1])}" for gain in way.gains]
        lines.append("| " + " | ".join([str(seed), name, *moved, *gains]) + " |")
    for name in dict.fromkeys(name for _, name, _ in rows):
        # Without a stop, what the rule leaves is the last step.
        left = [[gain or way.gains[-1] for gain in way.gains] for _, n, way in rows if n == name]
        means = [
            f"{100 * fmean(g[1].miou for g in column if g is not None):+.1f}" for column in zip(*left, strict=True)
        ]
        lines.append("| " + " | ".join(["mean", name, "", "", *means]) + " |")
    return "\n".join([*lines, "", "gain: mIoU against the fine-tuned model, paired 95 % CI"])


if __name__ == "__main__":
    raise SystemExit(main())
