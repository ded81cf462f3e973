"""``timelens plateau``: where a finished run would have stopped, and a plot of its rewards."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from timelens_plugins.atomic import write_whole
from timelens_plugins.cli.bounds import POSITIVE, Real, Whole

_SETTINGS = ("patience", "min_steps", "confidence", "reward_key", "spread_key")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens plateau``."""
    parser.epilog = "What is not given is taken from what the run recorded. See docs/plateau.md for the rule."
    parser.add_argument(
        "path", type=Path, metavar="RUN", help="trainer_state.json, a checkpoint, or a run's output folder"
    )
    parser.add_argument(
        "--patience", type=Whole(), metavar="SAMPLES", help="default: as recorded, or from the run's length"
    )
    parser.add_argument(
        "--min-steps", type=Whole(0), metavar="STEPS", help="no stop before (default: as recorded, or 50)"
    )
    parser.add_argument(
        "--confidence",
        type=Real(0.5, 1.0, above=True, below=True),
        help="of the slopes' limits (default: as recorded, or 0.995)",
    )
    parser.add_argument(
        "--samples-per-step",
        type=POSITIVE,
        metavar="N",
        help="prompts drawn each optimizer step (default: as logged, or as this package's trainer saved it)",
    )
    parser.add_argument("--reward-key", help="name of the mean reward in the log (default: as recorded, or reward)")
    parser.add_argument(
        "--spread-key",
        help="of the spread (default: as recorded, or reward_within_group_std, or reward_std where it is absent)",
    )
    parser.add_argument("--plot", type=Path, metavar="OUT.png|OUT.svg", help="draw the curves with the stop marked")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write settings and decision to this file")


def run(args: argparse.Namespace) -> int:
    """Replay, print, draw; 0 whether or not there is a plateau."""
    from timelens_plugins.plateau.history import replay_run, saved_states

    given = {name: getattr(args, name) for name in _SETTINGS}
    replay = replay_run(args.path, samples_per_step=args.samples_per_step, **given)
    log, settings, decision = replay.log, replay.settings, replay.decision
    print(
        f"{len(log.steps)} logged steps up to step {log.steps[-1]} ({log.samples[-1]:g} samples), reward: "
        f"{replay.reward_key}, spread: {log.spread_key or 'not logged'}; patience {settings.patience} samples, "
        f"min_steps {settings.min_steps}, confidence {settings.confidence}"
    )
    if unknown := sum(map(math.isnan, log.rewards)):
        print(f"{unknown} of these steps have no finite {replay.reward_key} and count for nothing but their samples")
    print("no plateau: the run would have gone on" if decision is None else f"stop: {decision.summary()}")
    if decision is not None:
        saved = (file.parent for step, file in saved_states(args.path) if step >= decision.start_step)
        if (nearest := next(saved, None)) is not None:
            print(f"nearest saved checkpoint from where it began: {nearest}")
    if args.json is not None:
        used = asdict(settings) | {"reward_key": replay.reward_key, "spread_key": log.spread_key}
        content = {"settings": used, "decision": decision and decision.to_dict()}
        write_whole(args.json, json.dumps(content, indent=2) + "\n")
    if args.plot is not None:
        from timelens_plugins.plateau.plot import plot_rewards

        plot_rewards(log, args.plot, patience=settings.patience, decision=decision)
        print(f"plot written to {args.plot}")
    return 0
