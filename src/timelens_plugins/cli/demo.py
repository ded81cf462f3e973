"""``timelens demo``: the whole line on synthetic clips and a tiny model."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=6, help="videos in each subset (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of clips and weights (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the demo."""
    from timelens_plugins.synthetic.demo import run_demo

    run_demo(args.output, args.clips, args.seed)
    return 0
