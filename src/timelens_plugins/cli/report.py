"""``timelens report``: one HTML file about one or several runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

EPILOG = """\
Files that lmms-eval wrote at the same time are one run, as are files given the same --name; every other file is a run
of its own. Of a folder, the newest samples of each task are one run; what is passed over or put together is said. With
several runs the report compares them on the moments they share. docs/report.md says what each panel shows.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens report``."""
    parser.epilog = EPILOG
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="SAMPLES",
        help="samples jsonl of lmms-eval --log_samples or a folder of them, result file of TimeLens, difficulty file",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.html", help="the file to write")
    parser.add_argument("--name", nargs="+", default=[], metavar="NAME", help="names of the runs, one for each SAMPLES")
    parser.add_argument("--title", help="of the page (default: the names of the runs)")
    parser.add_argument(
        "--annotations",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="annotations the results were made from, one file for all or one for each: unanswered moments then count "
        "as missing, and durations become known",
    )
    parser.add_argument(
        "--reparse", action="store_true", help="read predictions from the answers, instead of taking the stored ones"
    )
    parser.add_argument(
        "--videos",
        nargs="+",
        type=Path,
        default=[],
        metavar="DIR",
        help="folders with the clips, to show and play them",
    )
    parser.add_argument(
        "--training",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="trainer_state.json, or folders of training runs, for their curves",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a film strip (default: as many as fit)")
    parser.add_argument("--no-frames", action="store_true", help="embed no frames; clips can still be played")
    parser.add_argument(
        "--strips", type=int, default=150, metavar="N", help="clips with a film strip at most (default: %(default)s)"
    )
    parser.add_argument(
        "--frame-budget",
        type=float,
        default=8.0,
        metavar="MB",
        help="size of all strips at most (default: %(default)s)",
    )
    parser.add_argument("--charts", type=Path, metavar="DIR", help="write the charts there, too, as PNG and SVG")


def run(args: argparse.Namespace) -> int:
    """Read, write, say where."""
    from timelens_plugins.report import StripBudget, load_runs, write_report
    from timelens_plugins.report.writing import check_output

    check_output(args.output)
    if args.no_frames and args.frames is not None:
        raise ValueError("--frames and --no-frames exclude each other")
    runs = load_runs(args.files, args.name, annotations=args.annotations, reparse=args.reparse)
    budget = StripBudget(0 if args.no_frames else args.strips, args.frames, args.frame_budget)
    output = write_report(
        runs, args.output, videos=args.videos, training=args.training, strips=budget, title=args.title
    )
    for run in runs:
        for kind, said in (("warning", run.warnings), ("note", run.notes)):
            for sentence in said:
                print(f"timelens report: {kind}: {sentence}", file=sys.stderr)
    moments = ", ".join(f"{run.name}: {len(run.cases)} moments" for run in runs)
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB; {moments})")
    if args.charts is not None:
        from timelens_plugins.report.charts import write_charts

        written = write_charts(runs, args.charts, training=args.training)
        print(f"{len(written)} charts in {args.charts}")
    return 0
