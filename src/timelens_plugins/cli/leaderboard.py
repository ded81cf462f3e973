"""``timelens leaderboard``: runs of one's own among the published results on TimeLens-Bench."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timelens_plugins.leaderboard import FORMATS, build_board, load_published, read_runs, render

EPILOG = """\
RESULTS are folders (searched for results), results.json or samples files of lmms-eval, and result files of TimeLens
named after their benchmark (charades-timelens.json, …jsonl). LABEL=PATH names a row; paths of one label are one run,
and a run with all three benchmarks has an average.

A row is ranked only where all annotations of the benchmark were answered under the official protocol. Everything else
stands apart, with the reason. Scores are computed from the samples where lmms-eval logged them (--log_samples),
otherwise taken from results.json. See docs/leaderboard.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens leaderboard``."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("results", nargs="*", metavar="[LABEL=]RESULTS", help="without any, the published rows alone")
    parser.add_argument("--format", choices=list(FORMATS), default="table", help="default: table")
    parser.add_argument("--original", action="store_true", help="also what was published on the original annotations")
    parser.add_argument(
        "--benchmark",
        choices=list(load_published().benchmarks),
        help="which benchmark result files belong to that are not named after it",
    )
    parser.add_argument(
        "--assume-protocol",
        action="store_true",
        help="take settings that a file does not record for the official ones; such rows carry a note",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write to this file instead of printing")


def run(args: argparse.Namespace) -> int:
    """Read the results, print the board."""
    published = load_published()
    runs = read_runs(
        [_labelled(given) for given in args.results],
        published,
        benchmark=args.benchmark,
        assume_protocol=args.assume_protocol,
    )
    if args.results and not runs.entries:
        raise ValueError(f"no results on TimeLens-Bench, only {', '.join(runs.passed_over)}")
    board = render(build_board(published, runs.entries, original=args.original), args.format)
    if args.output is None:
        print(board)
    else:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(board + "\n", encoding="utf-8")
    for task in runs.passed_over:
        print(f"timelens leaderboard: passed over, another benchmark: {task}", file=sys.stderr)
    return 0


def _labelled(given: str) -> tuple[str, Path]:
    label, found, path = given.partition("=")
    if not found or Path(given).exists():
        return "", Path(given)
    if not label or not path:
        raise ValueError(f"{given!r}: expected LABEL=PATH")
    return label, Path(path)
