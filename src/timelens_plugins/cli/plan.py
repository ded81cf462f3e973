"""``timelens plan``: memory, operations and hours of a training run, before it is started."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import write_whole
from timelens_plugins.cli.bounds import POSITIVE, Real, Whole

EPILOG = """\
Arithmetic from the model's shape; nothing is measured on this machine. What is assumed, and how far the memory is from
measured peaks: docs/scaling.md. Exit status: 0 where some setting fits the memory, 1 where none does.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens plan``."""
    from timelens_plugins.scaling import SHAPES, Hardware

    own = Hardware()
    parser.epilog = EPILOG
    add = parser.add_argument
    add("--model", required=True, metavar="SHAPE", help=f"{', '.join(SHAPES)}, a checkpoint, or its config.json")
    add("--frames", type=Whole(2), default=448, metavar="N", help="sampled frames of a video (default: %(default)s)")
    add(
        "--tokens",
        type=Whole(),
        default=14336,
        metavar="N",
        help="its vision tokens, all frames (default: %(default)s)",
    )
    add("--generations", type=Whole(), default=8, metavar="G", help="completions of a prompt (default: %(default)s)")
    add("--completion-tokens", type=Whole(), default=24, metavar="N", help="mean length (default: %(default)s)")
    add("--queries-per-video", type=Whole(), default=1, metavar="K", help="of a video in a step (default: %(default)s)")
    add("--prompts", type=Whole(), default=8, metavar="N", help="of a step, all GPUs together (default: %(default)s)")
    add("--steps", type=Whole(), default=100, metavar="N", help="of the training (default: %(default)s)")
    add("--gpus", type=Whole(), nargs="+", default=[8, 64, 512], metavar="N", help="GPUs in all (default: 8 64 512)")
    add("--memory", type=POSITIVE, default=own.memory / 1e9, metavar="GB", help="of a GPU (default: %(default)g)")
    add("--peak", type=POSITIVE, default=own.peak / 1e12, metavar="TFLOPS", help="bf16, dense (default: %(default)g)")
    add(
        "--mfu",
        type=Real(most=1.0, above=True),
        default=own.utilisation,
        metavar="SHARE",
        help="of the peak (default: %(default)g)",
    )
    add("--network", type=POSITIVE, default=own.network / 1e9, metavar="GB/S", help="of a GPU (default: %(default)g)")
    add("--json", type=Path, metavar="OUT", help="write all figures to this file, in bytes, operations and hours")


def run(args: argparse.Namespace) -> int:
    """Compute, print the tables, write what was asked for."""
    from timelens_plugins.scaling import Hardware, Work, read_shape
    from timelens_plugins.scaling.report import plan, tables

    work = Work(args.frames, args.tokens, args.generations, args.completion_tokens, args.queries_per_video)
    hardware = Hardware(
        peak=args.peak * 1e12, utilisation=args.mfu, network=args.network * 1e9, memory=args.memory * 1e9
    )
    found: dict[str, Any] = plan(
        read_shape(args.model), work, hardware, gpus=[*dict.fromkeys(args.gpus)], prompts=args.prompts, steps=args.steps
    )
    print(tables(found))
    if args.json is not None:
        write_whole(args.json, json.dumps(found, indent=1) + "\n")
    return 0 if any(row["fits"] for row in found["settings"]) else 1
