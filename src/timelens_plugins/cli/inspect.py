"""``timelens inspect``: show the prompt that a model gets for a video and a query."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timelens_plugins.cli.bounds import POSITIVE, Real, Whole
from timelens_plugins.cli.inputs import text
from timelens_plugins.families import model_types

STAND_IN = "no --processor given: text tokens are counted by a small stand-in tokenizer; all else is as in the family"

PICTURES = (".png", ".jpg", ".webp")

SAMPLING: dict[str, Callable[[str], Any]] = {
    "fps": POSITIVE,
    "min_frames": Whole(),
    "max_frames": Whole(2),
    "min_tokens": Whole(),
    "total_tokens": Whole(),
    "max_pixels": Whole(),
    "times": str,
}
"""Fields of ``FrameSampling`` but those that the model decides; written out, as ``--help`` works without torch."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens inspect``."""
    parser.add_argument("video", metavar="VIDEO", help="video file")
    parser.add_argument("--query", type=text, required=True, help="sentence that describes the event to find")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--processor", metavar="PATH", help="checkpoint folder or hub id whose processor to use")
    source.add_argument(
        "--family", help=f"without a checkpoint: {', '.join(model_types())} (default: {model_types()[0]})"
    )
    parser.add_argument(
        "--encoding",
        help="how the frames' times reach the model, such as interleaved_timestamp or native (default: as saved)",
    )
    parser.add_argument(
        "--timestamp-format", type=text, help="text before each frame of interleaved_timestamp, like '{t:.1f}s: '"
    )
    parser.add_argument("--video-start", type=Real(), metavar="S", help="start of a window of the file, in seconds")
    parser.add_argument("--video-end", type=POSITIVE, metavar="S", help="end of that window")
    parser.add_argument("--backend", default="auto", help="auto, pyav, decord or torchcodec (default: auto)")
    for name, convert in SAMPLING.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=convert, help="frame sampling (default: as saved)")
    parser.add_argument("--all", action="store_true", help="print every frame pair, however many")
    parser.add_argument("--contact-sheet", type=Path, metavar="OUT.png", help="write a picture of all frames and times")


def run(args: argparse.Namespace) -> int:
    """Prints the prompt; 0 unless something cannot be read."""
    from timelens_plugins.encodings import load_processor
    from timelens_plugins.inspection.contact_sheet import contact_sheet
    from timelens_plugins.inspection.prompt_view import stand_in_processor, view_prompt
    from timelens_plugins.video import sample_frames

    if args.contact_sheet is not None and args.contact_sheet.suffix.lower() not in PICTURES:
        raise ValueError(f"--contact-sheet {args.contact_sheet}: expected a file that ends in {' or '.join(PICTURES)}")
    sampling: dict[str, Any] = {name: getattr(args, name) for name in SAMPLING if getattr(args, name) is not None}
    settings = {"encoding": args.encoding, "timestamp_format": args.timestamp_format}
    if args.processor is None:
        processor = stand_in_processor(args.family or model_types()[0]).configure(**settings, frame_sampling=sampling)
    else:
        processor = load_processor(args.processor, **settings, **sampling)
    clip = sample_frames(
        args.video,
        processor.frame_sampling,
        video_start=args.video_start,
        video_end=args.video_end,
        backend=args.backend,
    )
    view = view_prompt(processor, clip, args.query)
    for line in view.report(STAND_IN if args.processor is None else "", every_pair=args.all):
        print(line)
    if args.contact_sheet is not None:
        contact_sheet(view).save(args.contact_sheet)
        print(f"\ncontact sheet written to {args.contact_sheet}")
    return 0
