"""``timelens review``: a page on which to decide an audit's findings, and what becomes of the annotations."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from timelens_plugins.cli.bounds import SHARE, Whole
from timelens_plugins.moments import FORMATS, Moment

EPILOG = """\
First a page: timelens review mine.json --findings findings.jsonl --videos clips -o review.html
Then its exports: timelens review mine.json --apply mine.review.json [second.review.json] -o corrected.jsonl
With two reviews, what the reviewers see differently stays as annotated and is listed, with their agreement.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens review``."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", type=Path, metavar="FILE", help="the annotations that were audited")
    parser.add_argument("--format", choices=sorted(FORMATS), help="of FILE (default: recognised)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--findings", type=Path, metavar="FINDINGS", help="of `timelens audit`: write a page about them")
    what.add_argument("--apply", type=Path, nargs="+", metavar="REVIEW", help="exported from the page, by one or two")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="page, or corrected annotations"
    )
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder that the paths of the videos start from")
    parser.add_argument("--kind", action="append", default=[], metavar="KIND", help="findings of this kind alone")
    parser.add_argument("--min-score", type=SHARE, metavar="SCORE", help="and of this score or more")
    parser.add_argument("--strips", type=Whole(0), metavar="N", help="clips with a film strip (default: 150)")


def run(args: argparse.Namespace) -> int:
    """Write the page, or apply what was decided on it."""
    from timelens_plugins.moments import load_moments

    _check_options(args)
    moments = load_moments(args.file, format=args.format, on_error="skip")
    if moments.report.skipped:
        print(moments.report.summary(), file=sys.stderr)
    if args.findings is not None:
        return _page(args, list(moments))
    return _apply(args, list(moments))


def _check_options(args: argparse.Namespace) -> None:
    """Refuse what would have no effect."""
    of_page = ("kind", "min_score", "strips", "videos")
    if args.apply is not None and (idle := [name for name in of_page if getattr(args, name) not in (None, [])]):
        raise ValueError(
            f"--{idle[0].replace('_', '-')}: without effect with --apply; it is for the page of --findings"
        )
    if args.strips is not None and args.videos is None:
        raise ValueError("--strips needs --videos: film strips are made of them")


def _page(args: argparse.Namespace, moments: list[Moment]) -> int:
    from timelens_plugins.quality.auditing import read_findings
    from timelens_plugins.quality.findings import KINDS
    from timelens_plugins.quality.review_page import write_review_page
    from timelens_plugins.report.strips import StripBudget

    if unknown := set(args.kind) - set(KINDS):
        raise ValueError(f"--kind {', '.join(sorted(unknown))}: unknown; known: {', '.join(KINDS)}")
    findings = [
        finding
        for finding in read_findings(args.findings)
        if finding.score >= (args.min_score or 0.0) and (not args.kind or finding.kind in args.kind)
    ]
    if not findings:
        raise ValueError("no finding is left to review: lower --min-score, or leave --kind out")
    strips = 0 if args.videos is None else 150 if args.strips is None else args.strips
    budget = StripBudget(clips=strips)
    page = write_review_page(moments, findings, args.output, file=args.file, videos=args.videos, strips=budget)
    print(f"{page}: {len(findings):,} findings about {len({f.moment for f in findings}):,} moments")
    return 0


def _apply(args: argparse.Namespace, moments: list[Moment]) -> int:
    from timelens_plugins.moments import save_moments
    from timelens_plugins.quality.reviews import apply_review, merge_reviews, read_review

    if len(args.apply) > 2:
        raise ValueError(f"--apply takes one or two reviews, got {len(args.apply)}")
    if len(args.apply) == 2 and args.apply[0].samefile(args.apply[1]):
        raise ValueError(f"--apply {args.apply[1]}: given twice; two reviewers' agreement needs two reviews")
    reviews = [read_review(path, moments) for path in args.apply]
    faults = [fault for review in reviews for fault in review.faults]
    for fault in faults:
        print(f"left out: {fault}", file=sys.stderr)
    decisions = reviews[0].decisions
    if len(reviews) == 2:
        decisions, agreement = merge_reviews(moments, *reviews)
        kappa, iou = ("–" if v is None else f"{v:.2f}" for v in (agreement.kappa, agreement.iou))
        names = " and ".join(review.reviewer or str(path) for review, path in zip(reviews, args.apply, strict=True))
        print(
            f"{names}: {agreement.both:,} moments decided by both, {agreement.same:,} alike; "
            f"kappa {kappa}, mean IoU of their spans {iou}"
        )
        for name in agreement.conflicts:
            print(f"conflict, left as annotated: {name}")
    corrected = apply_review(moments, decisions)
    if not corrected:
        raise ValueError("nothing is left to write: every moment was rejected")
    save_moments(corrected, args.output)
    print(f"{args.output}: {len(corrected):,} moments after {len(decisions):,} decisions on {len(moments):,}")
    return 1 if faults else 0
