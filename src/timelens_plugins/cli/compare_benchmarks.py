"""``timelens compare-benchmarks``: models on a benchmark as first released and as refined."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from timelens_plugins.atomic import write_whole

PAIRS = {
    "charades": ("charades-sta", "charades-timelens"),
    "activitynet": ("activitynet-captions", "activitynet-timelens"),
    "qvhighlights": ("qvhighlights", "qvhighlights-timelens"),
}

EPILOG = """\
Without --run, the published figures of the paper that relabelled the benchmarks. An asterisk there marks a number taken
from a model's own paper; which figures those are is not recorded here. docs/quality.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens compare-benchmarks``."""
    parser.epilog = EPILOG
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"of {', '.join(PAIRS)} (default: all)")
    parser.add_argument(
        "--run",
        dest="runs",
        nargs=3,
        action="append",
        default=[],
        metavar=("MODEL", "ORIGINAL", "REFINED"),
        help="results of a model on the original and on the refined annotations; needs one BENCHMARK",
    )
    parser.add_argument("--no-published", action="store_true", help="the given runs alone")
    parser.add_argument(
        "--findings", type=Path, metavar="FILE", help="of `timelens audit` on the original annotations; names errors"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write everything to this file")


def run(args: argparse.Namespace) -> int:
    """Compare, print, write."""
    from timelens_plugins.leaderboard import load_published
    from timelens_plugins.quality.auditing import read_findings
    from timelens_plugins.quality.comparing import compare_benchmarks
    from timelens_plugins.results import load_run

    if unknown := [name for name in args.benchmarks if name not in PAIRS]:
        raise ValueError(f"unknown benchmark {', '.join(unknown)}; known: {', '.join(PAIRS)}")
    if args.runs and len(set(args.benchmarks)) != 1:
        raise ValueError("--run needs one BENCHMARK that both results belong to")
    if args.no_published and not args.runs:
        raise ValueError("--no-published needs --run: nothing is left to compare")
    if args.findings is not None and not args.runs:
        raise ValueError("--findings needs --run: errors are named among a run's moments")
    published = load_published()
    runs = {}
    for model, original, refined in args.runs:
        if model in runs:
            raise ValueError(f"--run {model}: given twice")
        if Path(original).exists() and Path(refined).exists() and Path(original).samefile(refined):
            raise ValueError(f"--run {model}: {original} is given as results on the original and on the refined labels")
        runs[model] = (load_run(original, model), load_run(refined, model))
    findings = read_findings(args.findings) if args.findings is not None else ()
    compared = []
    for name in dict.fromkeys(args.benchmarks or PAIRS):
        before, after = (published.benchmarks[key] for key in PAIRS[name])
        figures: dict[str, dict[str, float]] = {}
        for entry in published.entries:
            figures.setdefault(entry.model, {})[entry.benchmark] = entry.miou
        known = {
            model: (scores[before.key], scores[after.key])
            for model, scores in figures.items()
            if before.key in scores and after.key in scores and not args.no_published
        }
        compared.append(compare_benchmarks(before.title, after.title, known, runs, findings=findings))
    print("\n\n".join(comparison.table() for comparison in compared))
    if args.json is not None:
        write_whole(args.json, json.dumps([asdict(c) for c in compared], indent=1) + "\n")
    return 0
