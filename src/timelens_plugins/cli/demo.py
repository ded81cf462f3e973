"""``timelens demo``: a tiny model learns to ground on synthetic clips, by the recipes and the real ``lmms-eval``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from timelens_plugins.cli.bounds import Whole
from timelens_plugins.locations import how_to_install

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="all stages, too short to learn"
    )
    size.add_argument("--full", dest="size", action="store_const", const="full", help="more moments, longer training")
    parser.add_argument(
        "--seed", type=Whole(0), default=0, help="of clips, training and sampling (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        help="folder; run again, an interrupted demo continues (default: %(default)s)",
    )
    parser.add_argument(
        "--processes",
        type=Whole(),
        help="that training is spread over, on the CPU (default: 2, or 1 on a single processor)",
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    missing = [name for name in ("lmms_eval", "trl", "peft", "datasets") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is not installed: {how_to_install('eval,train')}")
    from timelens_plugins.demo import SIZES, run_demo
    from timelens_plugins.demo.command import CommandError

    try:
        run_demo(args.output, SIZES[args.size or "default"], seed=args.seed, processes=args.processes)
    except CommandError as error:
        print(f"timelens demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ntimelens demo: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0
