"""``timelens validate``: what is broken or doubtful in an annotation file and its videos."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from timelens_plugins.atomic import write_whole
from timelens_plugins.cli.bounds import Whole
from timelens_plugins.cli.inputs import check_workers
from timelens_plugins.moments import FORMATS

EPILOG = """\
Exit status: 0 where no error was found (with --strict: no warning either), 1 where one was, 2 where the file cannot be
read at all. docs/quality.md lists the checks.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens validate``."""
    parser.epilog = EPILOG
    parser.add_argument("file", type=Path, metavar="FILE", help="annotations in any format that can be loaded")
    parser.add_argument("--format", choices=sorted(FORMATS), help="of FILE (default: recognised)")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder that the paths of the videos start from")
    parser.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="OTHER",
        help="annotations whose videos and queries must not occur in FILE",
    )
    parser.add_argument("--against-videos", type=Path, metavar="DIR", help="their videos, to compare contents too")
    parser.add_argument("--workers", type=Whole(), metavar="N", help="videos looked at at a time (default: one a core)")
    parser.add_argument("--strict", action="store_true", help="warnings fail as errors do")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every finding to this file")
    parser.add_argument(
        "--fix", type=Path, metavar="OUT", help="write a corrected copy to this file, and every change beside it"
    )


def run(args: argparse.Namespace) -> int:
    """Validate, print the table, write what was asked for."""
    from timelens_plugins.quality.validation import validated

    if args.against_videos is not None and (args.videos is None or not args.against):
        raise ValueError("--against-videos needs --against and --videos: contents are compared between both")
    check_workers(args)
    checked = validated(
        args.file,
        args.videos,
        against=args.against,
        against_videos=args.against_videos,
        format=args.format,
        workers=args.workers,
        progress=sys.stderr.isatty(),
    )
    report = checked.report
    print(report.table())
    if args.json is not None:
        write_whole(args.json, json.dumps(report.to_json(), indent=1) + "\n")
    if args.fix is not None:
        from timelens_plugins.quality.repair import repair, write_repaired

        facts = {fact.path: fact for fact in checked.facts if fact.error is None}
        moments, changes = repair(checked.moments, report.problems, facts)
        if not moments:
            raise ValueError("nothing is left to write: every moment has an error")
        log = write_repaired(moments, changes, args.fix, args.videos)
        left_out = sum(change.field == "moment" for change in changes)
        skipped = sum(problem.check == "schema" for problem in report.problems)
        print(
            f"{args.fix}: {len(moments):,} moments; {len(changes) - left_out:,} changes, {left_out:,} left out, "
            f"{skipped:,} unreadable rows not carried over ({log.name})"
        )
    failed = report.count("error") or (args.strict and report.count("warning"))
    return 1 if failed else 0
