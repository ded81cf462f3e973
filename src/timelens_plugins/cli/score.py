"""``timelens score``: score result files of TimeLens or lmms-eval under both readings."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import write_whole
from timelens_plugins.cli.inputs import EPILOG, add_inputs, names_and_paths
from timelens_plugins.metrics import (
    READINGS,
    THRESHOLDS,
    Reading,
    Rejections,
    Scores,
    average,
    count_rejections,
    video_name,
)
from timelens_plugins.results import Case, ResultFile, Run, load_runs, score_cases
from timelens_plugins.results.result_file import samples_of

SHOWN = 5  # examples of a kind that are printed; --json has all of them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``timelens score``."""
    parser.epilog = f"""{EPILOG}
readings:
  official  predictions rounded to whole seconds before the IoU, exact duplicates (video, query, span) once
  exact     nothing rounded, every annotation counts
Under both, an answer without a span and an annotation without an answer have IoU 0, the first span of an answer counts,
and the best of several annotated spans. Figures are percentages; the interval is that of the mIoU at 95 %, clustered by
video. The average gives every subset the same weight. Several answers to a moment count with their mean.
Annotations without a span, of events that are not in the video, have a table of their own: how many answers say so,
how many give a span all the same, and how many reject an event that is there.
"""
    add_inputs(parser)
    parser.add_argument(
        "--reading", choices=[*READINGS, "both"], default="both", help="which reading of the protocol (default: both)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures, as fractions of 1, to this file")


def run(args: argparse.Namespace) -> int:
    """Score the files, print the table, write the JSON."""
    names, paths = names_and_paths(args)
    runs = load_runs(paths, names, annotations=args.annotations, reparse=args.reparse)
    readings: tuple[Reading, ...] = READINGS if args.reading == "both" else (args.reading,)
    rows, shared = _rows(runs, readings)
    rejections = _rejections(runs)
    if rows:
        print(_table(rows))
    if rejections:
        print(("\n" if rows else "") + _aligned(_rejection_lines(rejections), named=1))
    if shared:
        print(
            "\nNo average over all: the rows share videos, so they are runs on the same data and not subsets of one "
            "benchmark."
        )
    for run in runs:
        for said in (*run.warnings, *run.notes):
            print(f"\n{said}")
        for file in run.parts:
            for remark in file.remarks():
                more = f"\n  … and {remark.count - SHOWN} more (--json lists all)" if remark.count > SHOWN else ""
                print(f"\n{file.path}: {remark.text}" + "".join(f"\n  {e}" for e in remark.examples[:SHOWN]) + more)
    if args.json is not None:
        files = [file for run in runs for file in run.parts]
        text = json.dumps(_as_json(rows, rejections, files), indent=2, ensure_ascii=False)
        # Half a character, which JSON can hold and UTF-8 cannot, becomes JSON's own escape of it.
        write_whole(args.json, text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    return 0


Rows = list[tuple[str, list[Scores]]]


def _rows(runs: Sequence[Run], readings: Sequence[Reading]) -> tuple[Rows, bool]:
    """Name and scores of every subset of every run, averages, and whether rows of different runs share videos.

    Subsets of one run are averaged where they share no videos; and all rows, where none of them do.
    """
    rows: Rows = []
    everything: list[Sequence[Case]] = []
    for run in runs:
        given = _subsets(run)
        prefix = _prefix(run, runs, given)
        found = ((name, [case for case in cases if case.moment.target]) for name, cases in given.items())
        parts = {name: cases for name, cases in found if cases}
        scored = [(name, [score_cases(cases, reading) for reading in readings]) for name, cases in parts.items()]
        rows += [(prefix + name, by_reading) for name, by_reading in scored]
        if len(runs) > 1 and len(scored) > 1 and not _share_videos(list(parts.values())):
            rows.append((f"{prefix}average", _average(scored)))
        everything += parts.values()
    shared = _share_videos(everything)
    if len(everything) > 1 and not shared:
        rows.append(("average", _average([row for row in rows if not row[0].endswith(":average")])))
    return rows, shared


def _prefix(run: Run, runs: Sequence[Run], subsets: Mapping[str, object]) -> str:
    return f"{run.name}:" if len(runs) > 1 and list(subsets) != [run.name] else ""


def _rejections(runs: Sequence[Run]) -> dict[str, Rejections]:
    """Of every subset in which an event is not in the video, by the name of its row."""
    found = {
        _prefix(run, runs, subsets) + name: count_rejections(samples_of(cases))
        for run in runs
        for subsets in [_subsets(run)]
        for name, cases in subsets.items()
    }
    return {name: counts for name, counts in found.items() if counts is not None}


def _subsets(run: Run) -> dict[str, list[Case]]:
    """The cases of a run by subset, those without a span too; by the run's name, where its file names no subset."""
    subsets: dict[str, list[Case]] = {}
    for case in (*run.cases, *run.absent):
        subsets.setdefault(case.moment.subset, []).append(case)
    if not subsets:
        raise ValueError(f"{', '.join(run.files) or run.name}: there are no samples to score")
    if len(run.parts) == 1 and not run.parts[0].task:
        if len(subsets) == 1:
            return {run.name: next(iter(subsets.values()))}
        return {f"{run.name}:{subset or '-'}": cases for subset, cases in subsets.items()}
    return {subset or "-": cases for subset, cases in subsets.items()}


def _average(rows: Sequence[tuple[str, Sequence[Scores]]]) -> list[Scores]:
    return [average([row[1][i] for row in rows]) for i in range(len(rows[0][1]))]


def _share_videos(parts: Sequence[Sequence[Case]]) -> bool:
    videos = [{video_name(case.moment.video) for case in part} for part in parts]
    return len(set().union(*videos)) < sum(map(len, videos))


def _table(rows: Sequence[tuple[str, Sequence[Scores]]]) -> str:
    recalls = [f"R1@{t:g}" for t in THRESHOLDS]
    lines = [
        [
            "",
            "reading",
            "n",
            "videos",
            *recalls,
            "mIoU",
            "95 % interval",
            "unparsed",
            "missing",
            "duplicates",
        ]
    ]
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
    return _aligned(lines, named=2)


def _rejection_lines(rejections: Mapping[str, Rejections]) -> list[list[str]]:
    def of(count: int, total: int, rate: float | None) -> str:
        return "–" if rate is None else f"{count} of {total}, {_percent(rate)}"

    lines = [["not in the video", "annotations", "right rejections", "missed rejections", "wrong rejections"]]
    for name, r in rejections.items():
        right, missed = of(r.right, r.absent, r.rates["right"]), of(r.missed, r.absent, r.rates["missed"])
        lines.append([name, str(r.absent), right, missed, of(r.wrong, r.present, r.rates["wrong"])])
    return lines


def _aligned(lines: Sequence[Sequence[str]], named: int) -> str:
    """Columns of one width; the first ``named`` ones begin at the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < named else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _as_json(
    rows: Sequence[tuple[str, Sequence[Scores]]], rejections: Mapping[str, Rejections], files: Sequence[ResultFile]
) -> dict[str, Any]:
    of_absent = [{"name": name} | asdict(r) | {"rates": r.rates} for name, r in rejections.items()]
    return ({"rejections": of_absent} if of_absent else {}) | {
        "scores": [
            {"name": name}
            | asdict(s)
            | {"intervals": {metric: interval and interval._asdict() for metric, interval in s.intervals.items()}}
            for name, readings in rows
            for s in readings
        ],
        "files": [
            {
                "file": str(scored.path),
                "format": scored.format,
                "annotations": None if scored.annotations is None else str(scored.annotations),
                "reparse": scored.reparse,
                "read_from_answer": scored.read_from_answer,
                "videos_left_out": scored.videos_left_out,
                "annotations_sharing_an_answer": scored.repeated,
                "disagreements": [asdict(d) for d in scored.disagreements],
                "missing": [
                    {"subset": s.subset, "video": s.video, "query": s.query, "spans": s.target}
                    for s in samples_of((*scored.cases, *scored.absent))
                    if s.status == "missing"
                ],
            }
            for scored in files
        ],
    }
