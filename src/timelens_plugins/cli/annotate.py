"""``timelens annotate``: annotations of videos made by a model, each confirmed by an independent grounding."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timelens_plugins.cli.bounds import Real, Whole
from timelens_plugins.cli.engines import add_engine, chosen_model, plain_faults

EPILOG = """\
OUT.jsonl gets rows as TimeLens-100K's, OUT.jsonl.dropped.jsonl what was proposed and dropped, with the reason,
OUT.jsonl.failed.jsonl what could not be asked, OUT.jsonl.report.json the counts. The same command goes on where a run
was killed. Exit status: 0, or 1 where something could not be asked or nothing was annotated. docs/annotate.md has more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens annotate``."""
    parser.epilog = EPILOG
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video files, or folders of them")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.jsonl", help="file of rows to write")
    add_engine(parser, "the annotator", required=True)
    parser.add_argument(
        "--grounder",
        action="append",
        default=[],
        metavar="model=NAME,…",
        help="a model that has to confirm every annotation, with engine= and that engine's arguments; may be repeated "
        "(default: the annotator, which gets the sentence alone)",
    )
    parser.add_argument("--events", type=Whole(), default=5, help="of a video, at most (default: %(default)s)")
    parser.add_argument(
        "--min-iou",
        type=Real(most=1.0, above=True),
        default=0.5,
        help="set IoU with a grounding that confirms (default: %(default)s)",
    )
    parser.add_argument(
        "--repairs", type=Whole(0), default=1, help="tries to correct what is not confirmed (default: 1)"
    )
    parser.add_argument("--refine", action="store_true", help="look at the ends of every span once more")
    parser.add_argument(
        "--prompts", type=Path, metavar="DIR", help="texts in place of the shipped ones, by their names"
    )
    parser.add_argument("--max-new-tokens", type=Whole(), default=1024, help="of an answer (default: %(default)s)")
    parser.add_argument("--journal", type=Path, metavar="DIR", help="of finished answers (default: OUT.jsonl.journal)")
    parser.add_argument(
        "--video-root", type=Path, metavar="DIR", help="that paths in rows start from (default: what all videos share)"
    )
    parser.add_argument("--source", default="annotated", help="of the rows (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Annotate, write, print the counts."""
    from timelens_plugins.quality.annotate import AnnotateSettings, annotate
    from timelens_plugins.quality.asking import parse_choice

    with plain_faults():
        report = annotate(
            args.videos,
            args.output,
            chosen_model(args),
            [parse_choice(text) for text in args.grounder],
            settings=AnnotateSettings(args.events, args.min_iou, args.repairs, args.refine),
            prompts=args.prompts,
            max_new_tokens=args.max_new_tokens,
            journal=args.journal,
            video_root=args.video_root,
            source=args.source,
            progress=sys.stderr.isatty(),
        )
    print(report.table())
    return 1 if report.failed or not report.annotations else 0
