"""``timelens ground``: find when something happens in a video, cut it out, and show it on a sheet."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timelens_plugins.cli.bounds import Whole
from timelens_plugins.cli.inputs import text

if TYPE_CHECKING:
    from timelens_plugins.grounding import FoundMoment

__all__ = ["add_arguments", "run"]

EPILOG = """\
Of several answers to a query, the one that agrees most with the others is the moment. Agreement is its mean IoU with
the others. Confidence, the chance that its IoU with the truth is at least 0.5, is given where it was measured for the
model and the number of answers: benchmarks/confidence.py does that, and leaves confidence.json beside a checkpoint.

Without --model, the model that `timelens demo` trains is asked, which knows coloured shapes and nothing else:
"a red circle appears", "the red circle jumps" (or grows, or blinks).
"""

ONLY_SHAPES = (
    "the demo's model answers: it knows coloured shapes that appear, grow, blink or jump, in clips of 12 to 20 s, and "
    "nothing else; for other videos give --model"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens ground``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("video", type=Path, metavar="VIDEO", help="video file, or a folder of them")
    parser.add_argument(
        "queries", nargs="+", type=text, metavar="QUERY", help="sentence that describes the event to find"
    )
    parser.add_argument("--model", metavar="PATH", help="checkpoint folder or hub id (default: the demo's model)")
    parser.add_argument(
        "-n", "--answers", type=Whole(), default=5, help="answers a query; 1: greedy (default: %(default)s)"
    )
    parser.add_argument("--seed", type=Whole(0, 2**63 - 1), help="of the sampled answers (default: 0)")
    parser.add_argument("--device", help="cuda, cpu, … (default: a GPU where there is one)")
    parser.add_argument(
        "--clip",
        type=Path,
        metavar="OUT.mp4",
        help="cut the moment out, to the frame; a folder where there are several",
    )
    parser.add_argument(
        "--sheet", type=Path, metavar="OUT.png", help="picture of the video with the moment marked; or a folder"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a video and query")


def run(args: argparse.Namespace) -> int:
    """Prints the moments; 1 where one of several videos cannot be read."""
    from timelens_plugins.moments.videos import read_address
    from timelens_plugins.suffixes import VIDEO_SUFFIXES

    if args.seed is not None and args.answers == 1:
        raise ValueError("--seed: without effect with -n 1, whose answer is not sampled")
    folder, videos = args.video.is_dir(), [args.video]
    if folder:
        videos = sorted(p for p in args.video.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
        if not videos:
            raise ValueError(f"{args.video}: no video in this folder ({', '.join(VIDEO_SUFFIXES)})")
    elif not Path(read_address(str(args.video))[0]).exists():
        raise ValueError(f"{args.video}: there is no such video")
    several = folder or len(args.queries) > 1
    for option, suffix in (("--clip", ".mp4"), ("--sheet", ".png")):
        _check_output(getattr(args, option[2:]), option, suffix, several)
    import torch

    from timelens_plugins.answers import grounding_prompt
    from timelens_plugins.families.load import load_model
    from timelens_plugins.grounding import find_moments, read_calibration
    from timelens_plugins.synthetic.grounder import TRAINED_CHECKPOINT
    from timelens_plugins.video import VideoError
    from timelens_plugins.video.source import local_path
    from timelens_plugins.video.stream import probe

    for query in args.queries:
        grounding_prompt(query)  # one without words is an error
    durations: dict[Path, float] = {}

    def looked_at(video: Path) -> str:
        """The path of a video that can be asked about."""
        path = local_path(str(video))
        if video not in durations:
            durations[video] = probe(path).duration
            if args.model is None:
                _check_square(path)
        return path

    if not folder:  # what is wrong with the one video is said before a model is loaded
        looked_at(args.video)
    if args.model is None:
        print(f"timelens ground: {ONLY_SHAPES}", file=sys.stderr)
    model, processor = load_model(
        args.model or TRAINED_CHECKPOINT,
        device=args.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        times="stream",  # the player's clock, which the clip is cut by and a person reads
    )
    calibration = read_calibration(args.model or TRAINED_CHECKPOINT)
    rows: list[dict[str, Any]] = []
    failed = 0
    for video in videos:
        try:
            path = looked_at(video)
            found = find_moments(
                model,
                processor,
                path,
                args.queries,
                answers=args.answers,
                seed=args.seed or 0,
                duration=durations[video],
                calibration=calibration,
            )
            for number, moment in enumerate(found):
                row = _written(args, moment, durations[video], video, number, several)
                rows.append(row)
                if not args.json:
                    print("\n".join(_lines(row, folder)), flush=True)
        except VideoError as error:
            if not folder:
                raise
            failed += 1
            rows.append({"video": str(video), "error": str(error)})
            print(f"timelens ground: {error}", file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    elif failed:
        print(f"{failed} of {len(videos)} videos could not be read", file=sys.stderr)
    return 1 if failed else 0


def _check_square(path: str) -> None:
    """The demo's model sees a frame as one token."""
    from timelens_plugins.video import VideoError
    from timelens_plugins.video.source import open_video

    container, stream = open_video(path)
    with container:
        width, height = stream.width, stream.height
    if width != height:
        raise VideoError(
            path, f"its frames are {width}x{height}; the demo's model knows only its own square clips: give --model"
        )


def _check_output(path: Path | None, option: str, suffix: str, several: bool) -> None:
    if path is None:
        return
    if several:
        if path.suffix.lower() == suffix or path.is_file():
            raise ValueError(f"{option} {path}: several moments need a folder, not a file")
    elif path.suffix.lower() != suffix:
        raise ValueError(f"{option} {path}: expected a file that ends in {suffix}")


def _written(
    args: argparse.Namespace, found: FoundMoment, duration: float, video: Path, number: int, several: bool
) -> dict[str, Any]:
    """The clip and the sheet of a moment, and all of it as JSON types."""
    from timelens_plugins.grounding import cut_clip, moment_sheet

    row: dict[str, Any] = {
        "video": str(video),
        "query": found.query,
        "spans": [list(span) for span in found.spans],
        "status": str(found.status),
        "confidence": found.confidence,
        "agreement": found.agreement,
        "votes": found.votes,
        "duration": duration,
        "answers": [
            {"text": text, "spans": [list(span) for span in spans]}
            for text, spans in zip(found.answers, found.readings, strict=True)
        ],
    }
    if args.clip is not None and found.spans:
        output = _place(args.clip, args.video, video, number, found.query, ".mp4") if several else args.clip
        row["clip"], row["clip_frames"] = str(output), cut_clip(found.video, found.spans, output)
    if args.sheet is not None:
        output = _place(args.sheet, args.video, video, number, found.query, ".png") if several else args.sheet
        moment_sheet(found).save(output)
        row["sheet"] = str(output)
    return row


def _place(folder: Path, root: Path, video: Path, number: int, query: str, suffix: str) -> Path:
    """A file of its own for each video and query, in folders as the videos'."""
    below = video.relative_to(root).parent if root.is_dir() else Path()
    words = re.sub(r"[^\w]+", "-", query).strip("-")[:60]
    path = folder / below / f"{video.name}-{number + 1}-{words}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _lines(row: dict[str, Any], folder: bool) -> Iterator[str]:
    if row["spans"]:
        where = ", ".join(f"{start:.2f} - {end:.2f} s" for start, end in row["spans"])
    else:
        where = "not in this video" if row["status"] == "denied" else f"not found: no readable answer ({row['status']})"
    total = len(row["answers"])
    sure = ""
    if row["agreement"] is not None:
        sure = f"   agreement {row['agreement']:.2f} ({row['votes']} of {total} answers)"
    if row["confidence"] is not None:
        sure += f"   confidence {row['confidence']:.2f}"
    yield f"{row['video'] + ': ' if folder else ''}{row['query']}: {where}{sure}"
    if "clip" in row:
        yield f"  clip   {row['clip']}, {row['clip_frames']} frames"
    if "sheet" in row:
        yield f"  sheet  {row['sheet']}"
