"""``timelens convert``: annotations filtered, split by video, and as rows of another trainer's data."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import get_args

from timelens_plugins.adapters.rows import ROWS, rows_for
from timelens_plugins.answers import GROUNDING_PROMPT, PROMPTS, read_prompt
from timelens_plugins.atomic import write_whole
from timelens_plugins.cli.bounds import POSITIVE, Real, Whole
from timelens_plugins.cli.inputs import text
from timelens_plugins.moments import (
    FORMATS,
    Moment,
    filter_moments,
    find_video,
    load_moments,
    save_moments,
    split_by_video,
)
from timelens_plugins.moments.faults import skipped_by
from timelens_plugins.moments.loading import OnError

OWN = "moments"

EPILOG = """\
The rows carry their target as JSON, which timelens_plugins.adapters.rewards reads; docs/other-trainers.md says how each
trainer is told of it. TRL itself drops the video of such rows: timelens_plugins.grpo does not.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens convert``."""
    parser.epilog = EPILOG
    parser.add_argument("file", type=Path, metavar="FILE", help="annotations in any format that can be loaded")
    parser.add_argument(
        "--to", required=True, choices=[OWN, *ROWS], help="whose rows to write; moments: this package's own"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.jsonl", help="JSON Lines")
    parser.add_argument("--videos", type=Path, metavar="DIR", help="folder that the paths of videos start from")
    parser.add_argument("--format", choices=sorted(FORMATS), help="of FILE (default: recognised)")
    parser.add_argument(
        "--prompt", type=text, metavar="PROMPT", help=f"{', '.join(PROMPTS)}, a text with {{query}}, or a file of one"
    )
    parser.add_argument("--answers", action="store_true", help="with the answer to learn, for supervised training")
    parser.add_argument(
        "--on-bad-annotation",
        choices=get_args(OnError),
        default="raise",
        help="stop at one that cannot be read, or leave it out and count it (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out moments whose video is not there, and count them"
    )
    filters = parser.add_argument_group(
        "filters, as the recipes'; TimeLens-100K was used with 5 and 500 s, 200 words, and no audio queries"
    )
    filters.add_argument("--min-duration", type=Real(), default=0.0, metavar="S", help="shorter videos are left out")
    filters.add_argument("--max-duration", type=POSITIVE, default=inf, metavar="S", help="longer videos are left out")
    filters.add_argument(
        "--max-words", type=Whole(), default=sys.maxsize, metavar="N", help="longer queries are left out"
    )
    filters.add_argument(
        "--audio-queries", choices=["keep", "drop"], default="keep", help="queries about sounds (default: keep)"
    )
    held = parser.add_argument_group("validation: videos held out, none of which is in OUT")
    held.add_argument(
        "--validation-share",
        type=Real(most=1.0, above=True, below=True),
        metavar="SHARE",
        help="of the videos, above 0 and below 1",
    )
    held.add_argument("--validation-output", type=Path, metavar="OUT.jsonl", help="their rows")
    held.add_argument("--seed", type=Whole(0), help="of the choice of videos (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Load, look for the videos, write."""
    if (args.validation_share is None) != (args.validation_output is None):
        raise ValueError("--validation-share and --validation-output are set together, or not at all")
    if args.seed is not None and args.validation_share is None:
        raise ValueError("--seed needs --validation-share: it chooses the videos that are held out")
    if args.to == OWN and (idle := [name for name in ("prompt", "answers", "allow_missing") if getattr(args, name)]):
        raise ValueError(
            f"--{idle[0].replace('_', '-')}: without effect with --to {OWN}, whose rows hold no prompts, keep the "
            "answers they have, and are written without a look at the videos; leave it out"
        )
    with skipped_by("pass --on-bad-annotation skip"):
        loaded = load_moments(args.file, args.format, args.videos, args.on_bad_annotation)
    print(loaded.report.summary(), file=sys.stderr)
    moments = _suitable(loaded, args)
    if args.to != OWN:
        moments = _available(moments, args.allow_missing)
    parts = {args.output: moments}
    if args.validation_share is not None:
        train, held = split_by_video(moments, args.validation_share, args.seed or 0)
        parts = {args.output: train, args.validation_output: held}
    prompt = GROUNDING_PROMPT if args.prompt is None else read_prompt(args.prompt)
    for output, part in parts.items():
        if args.to == OWN:
            save_moments(part, output)
        else:
            rows = rows_for(args.to, part, prompt=prompt, answers=args.answers)
            write_whole(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        print(f"{len(part)} rows written to {output}")
    return 0


def _suitable(moments: Sequence[Moment], args: argparse.Namespace) -> Sequence[Moment]:
    """Those that the filters keep, where any is set; what is left out is counted."""
    audio = args.audio_queries == "keep"
    if (args.min_duration, args.max_duration, args.max_words, audio) == (0.0, inf, sys.maxsize, True):
        return moments
    kept, report = filter_moments(
        moments,
        min_duration=args.min_duration,
        max_duration=args.max_duration,
        max_words=args.max_words,
        audio_queries=audio,
    )
    print(report.summary(), file=sys.stderr)
    if not kept:
        raise ValueError(f"the filters leave no moment ({report.summary()})")
    return kept


def _available(moments: Sequence[Moment], allow_missing: bool) -> list[Moment]:
    """Those whose videos are there; what is missing is an error, or counted."""
    kept, missing = _with_videos(moments)
    if missing:
        lost = f"{len(missing)} videos are missing, such as {missing[0]}"
        if not allow_missing or not kept:
            raise FileNotFoundError(f"{lost}: set --videos" + ("" if allow_missing else ", or --allow-missing"))
        print(f"{lost}; {len(moments) - len(kept)} moments are left out", file=sys.stderr)
    return kept


def _with_videos(moments: Sequence[Moment]) -> tuple[list[Moment], list[str]]:
    """Moments with the whole paths of files that are there, and the videos that are not."""
    found: dict[str, str | None] = {}
    for video in dict.fromkeys(moment.video for moment in moments):
        try:
            found[video] = str(find_video(video).resolve())
        except FileNotFoundError:
            found[video] = None
    kept = [replace(m, video=path) for m in moments if (path := found[m.video]) is not None]
    return kept, [video for video, path in found.items() if path is None]
