"""``timelens audit``: signs of label errors in an annotation file, ranked by the chance that they are real."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from timelens_plugins.cli.bounds import SHARE, Whole
from timelens_plugins.cli.engines import add_engine, chosen_model, plain_faults
from timelens_plugins.cli.inputs import check_workers
from timelens_plugins.moments import FORMATS

if TYPE_CHECKING:
    from timelens_plugins.quality.asking import ModelChoice

EPILOG = """\
A score is the share of moments with such signs that were wrong among seeded errors; docs/quality.md says how far that
carries. Without --videos no picture is looked at.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens audit``."""
    parser.epilog = EPILOG
    parser.add_argument("file", type=Path, metavar="FILE", help="annotations in any format that can be loaded")
    parser.add_argument("--format", choices=sorted(FORMATS), help="of FILE (default: recognised)")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="hold spans against the pictures of these videos")
    parser.add_argument(
        "--answers",
        type=Path,
        nargs="+",
        default=[],
        metavar="RESULTS",
        help="a model's answers to these annotations, best several each: of recipes/difficulty.py, or of an evaluation",
    )
    add_engine(parser, "asked where each query is, and whether it happens", required=False)
    parser.add_argument("--samples", type=Whole(), metavar="N", help="of its answers to a question (default: 8)")
    parser.add_argument(
        "--journal", type=Path, metavar="DIR", help="of its finished answers (default: OUT.jsonl.journal)"
    )
    parser.add_argument("--workers", type=Whole(), metavar="N", help="videos looked at at a time (default: one a core)")
    parser.add_argument(
        "--show", type=Whole(0), default=3, metavar="N", help="findings of each kind to print (default: 3)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.jsonl", help="write all findings to this file")
    parser.add_argument(
        "--clean",
        type=Path,
        metavar="OUT",
        help="write a copy without what is likely wrong, and every change beside it",
    )
    parser.add_argument("--threshold", type=SHARE, help="score from which --clean takes a finding (default: 0.5)")


def run(args: argparse.Namespace) -> int:
    """Audit, print the table, write the findings."""
    from timelens_plugins.quality.auditing import audit, write_findings

    if args.threshold is not None and args.clean is None:
        raise ValueError("--threshold needs --clean")
    check_workers(args)
    with plain_faults():
        found = audit(
            args.file,
            args.videos,
            answers=args.answers,
            model=_model(args),
            journal=_journal(args),
            samples=8 if args.samples is None else args.samples,
            format=args.format,
            workers=args.workers,
            progress=sys.stderr.isatty(),
        )
    print(found.table(args.show))
    if args.output is not None:
        write_findings(found.findings, args.output)
    if args.clean is not None:
        from timelens_plugins.quality.cleaning import clean
        from timelens_plugins.quality.repair import write_repaired

        threshold = 0.5 if args.threshold is None else args.threshold
        moments, changes = clean(found.moments, found.findings, threshold)
        if not moments:
            raise ValueError(f"nothing is left to write: every moment has a finding of {threshold:g} or more")
        log = write_repaired(moments, changes, args.clean, args.videos)
        left_out = sum(change.field == "moment" for change in changes)
        mended = sum(change.field == "spans" for change in changes)
        print(f"{args.clean}: {len(moments):,} moments; {mended:,} spans replaced, {left_out:,} left out ({log.name})")
    return 0


def _model(args: argparse.Namespace) -> ModelChoice | None:
    if args.model is None:
        if idle := [
            name for name in ("engine", "engine_args", "samples", "journal") if getattr(args, name) is not None
        ]:
            raise ValueError(f"--{idle[0].replace('_', '-')} needs --model")
        return None
    if args.videos is None:
        raise ValueError("--model needs --videos: it is asked about them")
    return chosen_model(args)


def _journal(args: argparse.Namespace) -> Path | None:
    if args.model is None:
        return None
    if args.journal is None and args.output is None:
        raise ValueError("--model needs -o or --journal: its answers are kept, so that an audit can go on")
    folder: Path = args.journal or args.output.with_name(f"{args.output.name}.journal")
    return folder
