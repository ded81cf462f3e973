"""``timelens leaderboard``: runs of one's own among the published results on TimeLens-Bench."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timelens_plugins.atomic import write_whole
from timelens_plugins.cli.inputs import EPILOG, add_inputs, names_and_paths
from timelens_plugins.leaderboard import FORMATS, build_board, load_published, read_entries, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens leaderboard``."""
    parser.epilog = f"""{EPILOG}
  Result files of TimeLens are recognised by the name of their benchmark (charades-timelens.json, …jsonl). Every
  evaluation in a folder is a row; a run with all three benchmarks has an average.

ranking:
  A row is ranked only where all annotations of the benchmark were answered under the official protocol. Everything else
  stands apart, with the reason. Scores are computed from the samples where lmms-eval logged them, otherwise taken from
  results.json. See docs/leaderboard.md.
"""
    add_inputs(parser, nargs="*")
    parser.add_argument("--format", choices=list(FORMATS), default="table", help="default: table")
    parser.add_argument("--sets", action="store_true", help="also what was published on benchmarks of sets of spans")
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
    of_results = ("name", "annotations", "reparse", "benchmark", "assume_protocol")
    if not args.results and (idle := [name for name in of_results if getattr(args, name)]):
        raise ValueError(f"--{idle[0].replace('_', '-')}: without effect without RESULTS")
    published = load_published()
    names, paths = names_and_paths(args)
    read = read_entries(
        paths,
        published,
        names,
        annotations=args.annotations,
        reparse=args.reparse,
        benchmark=args.benchmark,
        assume_protocol=args.assume_protocol,
    )
    if paths and not read.entries:
        raise ValueError(f"no results on TimeLens-Bench. {' '.join(read.passed_over)}")
    if args.benchmark is not None and all(entry.benchmark != args.benchmark for entry in read.entries):
        raise ValueError(f"--benchmark {args.benchmark}: without effect, as every file says which benchmark is its own")
    board = render(build_board(published, read.entries, original=args.original, sets=args.sets), args.format)
    if args.output is None:
        print(board)
    else:
        write_whole(args.output, board.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    for said in read.passed_over:
        print(f"timelens leaderboard: {said}", file=sys.stderr)
    return 0
