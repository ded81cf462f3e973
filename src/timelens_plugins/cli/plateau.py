"""``timelens plateau``: where a finished run would have stopped, and a plot of its rewards."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_RECORDED = ("patience", "min_steps", "confidence", "reward_key", "spread_key")
"""Options that the callback records by the same names."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens plateau``."""
    parser.epilog = "What is not given is taken from what the run recorded. See docs/plateau.md for the rule."
    parser.add_argument(
        "path", type=Path, metavar="RUN", help="trainer_state.json, a checkpoint, or a run's output folder"
    )
    parser.add_argument(
        "--patience", type=int, metavar="SAMPLES", help="default: as recorded, or from the run's length"
    )
    parser.add_argument("--min-steps", type=int, metavar="STEPS", help="no stop before (default: as recorded, or 50)")
    parser.add_argument("--confidence", type=float, help="of the slopes' limits (default: as recorded, or 0.995)")
    parser.add_argument(
        "--samples-per-step",
        type=float,
        metavar="N",
        help="prompts drawn each optimizer step; needed for runs that were trained without the callback",
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
    from timelens_plugins.plateau import PlateauSettings, read_reward_log, suggested_patience
    from timelens_plugins.plateau.history import REWARD_KEY, read_trainer_state, recorded_settings

    _, state = read_trainer_state(args.path)
    recorded = recorded_settings(state)
    values = {name: recorded[name] for name in _RECORDED if name in recorded} | {
        name: value for name in _RECORDED if (value := getattr(args, name)) is not None
    }
    reward_key, spread_key = values.pop("reward_key", REWARD_KEY), values.pop("spread_key", None)
    log, state = read_reward_log(
        args.path, reward_key=reward_key, spread_key=spread_key, samples_per_step=args.samples_per_step
    )
    if "patience" not in values:
        planned = max(float(state.get("max_steps") or 0), log.steps[-1])
        values["patience"] = suggested_patience(planned * log.samples[-1] / log.steps[-1])
    settings = PlateauSettings(**values)
    decision = log.replay(settings)
    print(
        f"{len(log.steps)} logged steps up to step {log.steps[-1]} ({log.samples[-1]:g} samples), reward: "
        f"{reward_key}, spread: {log.spread_key or 'not logged'}; patience {settings.patience} samples, min_steps "
        f"{settings.min_steps}, confidence {settings.confidence}"
    )
    print("no plateau: the run would have gone on" if decision is None else f"stop: {decision.summary()}")
    if args.json is not None:
        content = {"settings": values, "decision": decision and decision.to_dict()}
        args.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if args.plot is not None:
        from timelens_plugins.plateau.plot import plot_rewards

        plot_rewards(log, args.plot, patience=settings.patience, decision=decision)
        print(f"plot written to {args.plot}")
    return 0
