"""``timelens score``: score result files of TimeLens or lmms-eval under both readings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timelens_plugins.metrics import (
    READINGS,
    THRESHOLDS,
    Disagreement,
    Joined,
    Sample,
    Scores,
    average,
    evaluate,
    join_annotations,
    load_results,
    video_name,
)

SHOWN = 5  # examples of a kind that are printed; --json has all of them

EPILOG = """\
readings:
  official  predictions rounded to whole seconds before the IoU, exact duplicates (video, query, span) once
  exact     nothing rounded, every annotation counts
Under both, an answer without a span and an annotation without an answer have IoU 0, the first span of an answer counts,
and the best of several annotated spans. Figures are percentages; the interval is that of the mIoU at 95 %, clustered by
video. The average gives every subset the same weight.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens score``."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="result file: TimeLens json or jsonl, or a samples jsonl of lmms-eval --log_samples",
    )
    parser.add_argument(
        "--annotations",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="annotations the results were made from, one file for all results or one for each, in order; every "
        "annotation without a result then counts as missing",
    )
    parser.add_argument(
        "--reading", choices=[*READINGS, "both"], default="both", help="which reading of the protocol (default: both)"
    )
    parser.add_argument(
        "--reparse",
        action="store_true",
        help="read predictions from the answers with this package's parser, instead of taking the stored ones",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures, as fractions of 1, to this file")


def run(args: argparse.Namespace) -> int:
    """Score the files, print the table, write the JSON."""
    annotations: list[Path] = args.annotations
    if len(annotations) not in (0, 1, len(args.files)):
        raise ValueError(
            f"--annotations takes one file, or as many as there are result files ({len(args.files)}), "
            f"got {len(annotations)}"
        )
    if len(annotations) == 1:
        annotations = annotations * len(args.files)
    inputs = [_read(file, annotations[i] if annotations else None, args.reparse) for i, file in enumerate(args.files)]
    readings = READINGS if args.reading == "both" else (args.reading,)
    parts = _parts(inputs)
    rows = [(name, [evaluate(samples, reading) for reading in readings]) for name, samples in parts]
    shared = _share_videos([samples for _, samples in parts])
    if len(rows) > 1 and not shared:
        rows.append(("average", [average([row[1][i] for row in rows]) for i in range(len(readings))]))
    print(_table(rows))
    if shared:
        print(
            "\nNo average: the rows share videos, so they are runs on the same data and not subsets of one benchmark."
        )
    for scored in inputs:
        for note in _notes(scored):
            print(f"\n{scored.file}: {note}")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(_as_json(rows, inputs), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


@dataclass(frozen=True, slots=True)
class _Input:
    """One result file, joined with its annotations if there are any."""

    file: Path
    format: str
    samples: Sequence[Sample]
    disagreements: Sequence[Disagreement]
    read_from_answer: int
    videos_left_out: int
    reparse: bool
    annotations: Path | None = None
    repeated: int = 0
    loaded: str = ""


def _read(file: Path, annotations: Path | None, reparse: bool) -> _Input:
    results = load_results(file, reparse=reparse)
    common = (results.disagreements, results.read_from_answer, results.videos_left_out, reparse)
    if annotations is None:
        return _Input(file, results.format, results.samples, *common)
    try:
        joined, summary = _join(annotations, results.samples)
    except ValueError as error:
        raise ValueError(f"{file}, with annotations {annotations}: {error}") from None
    return _Input(file, results.format, joined.samples, *common, annotations, joined.repeated, summary)


def _join(annotations: Path, results: Sequence[Sample]) -> tuple[Joined, str]:
    from timelens_plugins.moments import load_moments

    loaded = load_moments(annotations)
    expected = [
        Sample(m.video_id, m.query, m.spans, None, "missing", subset=m.source, duration=m.duration) for m in loaded
    ]
    return join_annotations(expected, results), loaded.report.summary()


def _parts(inputs: Sequence[_Input]) -> list[tuple[str, list[Sample]]]:
    """Name and samples of every file and subset."""
    files = _short_names([scored.file for scored in inputs])
    parts: list[tuple[str, list[Sample]]] = []
    for name, scored in zip(files, inputs, strict=True):
        subsets: dict[str, list[Sample]] = {}
        for sample in scored.samples:
            subsets.setdefault(sample.subset, []).append(sample)
        alone = len(subsets) == 1
        parts += [(name if alone else f"{name}:{subset or '-'}", samples) for subset, samples in subsets.items()]
    return parts


def _short_names(files: Sequence[Path]) -> list[str]:
    """File names without extension and lmms-eval's date, or as much more of each path as tells the files apart."""
    names = [file.stem.split("_samples_", 1)[-1] for file in files]
    depth = 1
    while len(set(names)) < len(files) and depth <= max(len(file.parts) for file in files):
        names = ["/".join(file.parts[-depth:]) for file in files]
        depth += 1
    return names


def _share_videos(parts: Sequence[Sequence[Sample]]) -> bool:
    videos = [{video_name(sample.video) for sample in part} for part in parts]
    return len(set().union(*videos)) < sum(map(len, videos))


def _table(rows: Sequence[tuple[str, Sequence[Scores]]]) -> str:
    recalls = [f"R1@{t:g}" for t in THRESHOLDS]
    lines = [["", "reading", "n", "videos", *recalls, "mIoU", "95 % interval", "unparsed", "missing", "duplicates"]]
    for name, readings in rows:
        for i, s in enumerate(readings):
            interval = s.intervals["mIoU"]
            lines.append(
                [
                    "" if i else name,
                    s.reading,
                    *map(str, (s.n, s.videos)),
                    *(_percent(s.recall[t]) for t in THRESHOLDS),
                    _percent(s.miou),
                    "one video" if interval is None else f"{_percent(interval.low)} – {_percent(interval.high)}",
                    *map(str, (s.parse_failures, s.missing)),
                    f"{s.duplicates_dropped} dropped" if s.reading == "official" else "kept",
                ]
            )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _notes(scored: _Input) -> list[str]:
    """What a reader of the table has to know about one file."""
    notes = []
    if scored.loaded:
        notes.append(f"annotations {scored.loaded}")
    missing = [s for s in scored.samples if s.status == "missing"]
    if missing:
        notes.append(f"annotations without an answer, counted with IoU 0: {len(missing)}" + _some(missing))
    if scored.repeated:
        notes.append(f"annotations that share the answer of an earlier duplicate: {scored.repeated}")
    differing = evaluate(scored.samples, "official").duplicates_differing
    if differing:
        notes.append(f"duplicates answered differently (the last answer counts in the official reading): {differing}")
    if scored.videos_left_out:
        notes.append(
            f"videos absent from the evaluation and left out of it: {scored.videos_left_out}"
            + ("" if scored.annotations else " (with --annotations their annotations count as missing)")
        )
    if scored.read_from_answer:
        notes.append(f"predictions not stored and read from the answer: {scored.read_from_answer}")
    if scored.disagreements:
        counts = "what the answer says counts" if scored.reparse else "what is stored counts (--reparse for the answer)"
        examples = "".join(
            f"\n  row {d.row}: stored {_pair(d.stored)}, answer {_pair(d.parsed)}: {d.answer!r}"
            for d in scored.disagreements[:SHOWN]
        )
        count = len(scored.disagreements)
        notes.append(
            f"stored predictions that are not the first span of the answer: {count}; {counts}{examples}{_more(count)}"
        )
    return notes


def _pair(span: tuple[float, float] | None) -> str:
    return "no span" if span is None else f"[{span[0]:g}, {span[1]:g}]"


def _some(samples: Sequence[Sample]) -> str:
    return "".join(f"\n  {sample.describe()}" for sample in samples[:SHOWN]) + _more(len(samples))


def _more(count: int) -> str:
    return f"\n  … and {count - SHOWN} more (--json lists all)" if count > SHOWN else ""


def _as_json(rows: Sequence[tuple[str, Sequence[Scores]]], inputs: Sequence[_Input]) -> dict[str, Any]:
    return {
        "scores": [
            {"name": name}
            | asdict(s)
            | {"intervals": {metric: interval and interval._asdict() for metric, interval in s.intervals.items()}}
            for name, readings in rows
            for s in readings
        ],
        "files": [
            {
                "file": str(scored.file),
                "format": scored.format,
                "annotations": None if scored.annotations is None else str(scored.annotations),
                "reparse": scored.reparse,
                "read_from_answer": scored.read_from_answer,
                "videos_left_out": scored.videos_left_out,
                "annotations_sharing_an_answer": scored.repeated,
                "disagreements": [asdict(d) for d in scored.disagreements],
                "missing": [
                    {"subset": s.subset, "video": s.video, "query": s.query, "spans": s.target}
                    for s in scored.samples
                    if s.status == "missing"
                ],
            }
            for scored in inputs
        ],
    }
