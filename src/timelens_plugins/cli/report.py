"""``timelens report``: one HTML file about one or several runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from timelens_plugins.cli.bounds import POSITIVE, Whole
from timelens_plugins.cli.inputs import EPILOG, add_inputs, names_and_paths, text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens report``."""
    parser.epilog = f"""{EPILOG}
With several runs the report compares them on the moments they share. docs/report.md says what each panel shows.
"""
    add_inputs(parser)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.html", help="the file to write")
    parser.add_argument("--title", type=text, help="of the page (default: the names of the runs)")
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
    parser.add_argument(
        "--frames", type=Whole(2, 60), metavar="N", help="frames of a film strip (default: as many as fit)"
    )
    parser.add_argument("--no-frames", action="store_true", help="embed no frames; clips can still be played")
    parser.add_argument("--strips", type=Whole(0), metavar="N", help="clips with a film strip at most (default: 150)")
    parser.add_argument(
        "--frame-budget",
        type=POSITIVE,
        metavar="MB",
        help="size of all strips at most (default: 8)",
    )
    parser.add_argument("--charts", type=Path, metavar="DIR", help="write the charts there, too, as PNG and SVG")


def _check_options(args: argparse.Namespace) -> None:
    """Refuse what would have no effect."""
    of_frames = [name for name in ("frames", "strips", "frame_budget") if getattr(args, name) is not None]
    if args.no_frames and of_frames:
        raise ValueError(f"--{of_frames[0].replace('_', '-')} and --no-frames exclude each other")
    if of_frames and not args.videos:
        raise ValueError(f"--{of_frames[0].replace('_', '-')} needs --videos: frames are taken from them")


def run(args: argparse.Namespace) -> int:
    """Read, write, say where."""
    from timelens_plugins.report import StripBudget, write_report
    from timelens_plugins.report.writing import check_output
    from timelens_plugins.results import load_runs

    check_output(args.output)
    _check_options(args)
    names, paths = names_and_paths(args)
    runs = load_runs(paths, names, annotations=args.annotations, reparse=args.reparse)
    given: dict[str, Any] = {
        "clips": 0 if args.no_frames else args.strips,
        "frames": args.frames,
        "megabytes": args.frame_budget,
    }
    budget = StripBudget(**{name: value for name, value in given.items() if value is not None})
    output = write_report(
        runs, args.output, videos=args.videos, training=args.training, strips=budget, title=args.title
    )
    for run in runs:
        for kind, said in (("warning", run.warnings), ("note", run.remarks)):
            for sentence in said:
                print(f"timelens report: {kind}: {sentence}", file=sys.stderr)
    moments = ", ".join(f"{run.name}: {len(run.cases)} moments" for run in runs)
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB; {moments})")
    if args.charts is not None:
        from timelens_plugins.report.charts import write_charts

        written = write_charts(runs, args.charts, training=args.training)
        print(f"{len(written)} charts in {args.charts}")
    return 0
