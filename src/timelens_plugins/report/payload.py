"""What the page's script is given: every moment, every answer, every figure, as compact JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from timelens_plugins import __version__
from timelens_plugins.metrics import Sample
from timelens_plugins.report.figures import by_facet, differences, headline, overlaps, rejections
from timelens_plugins.report.strips import Strips
from timelens_plugins.report.table import Table
from timelens_plugins.results import Case, Run, Window
from timelens_plugins.results.scoring import counted, ious_of
from timelens_plugins.spans import temporal_iou

__all__ = ["MOST_TEXT", "nearest_target", "payload", "strip_order"]

MOST_TEXT = 2000  # characters of an answer that the page holds
STATUS = {"parsed": 0, "unparsed": 1, "missing": 2}


def payload(
    table: Table,
    clips: Sequence[Path | None],
    links: Mapping[Path, str],
    strips: Strips,
    training: Sequence[Mapping[str, Any]],
    *,
    title: str,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """All that the page shows.

    Args:
        table: the moments.
        clips: the video of each moment, None where it is not there.
        links: address of each clip.
        strips: film strips by clip and window.
        training: curves, see :func:`~timelens_plugins.report.training.training_curves`.
        title: of the page.
        notes: beside those of table and runs.
    """
    addresses = list(dict.fromkeys(links[clip] for clip in clips if clip is not None))
    places = {address: i for i, address in enumerate(addresses)}
    keys = [None if clip is None else (clip, row.window) for clip, row in zip(clips, table.rows, strict=True)]
    images = list(strips.images)
    numbers = {key: i for i, key in enumerate(images)}
    texts: dict[str, int] = {}
    subsets = table.subsets
    return {
        "title": title,
        "version": __version__,
        "subsets": subsets,
        "moments": {
            "subset": [subsets.index(row.subset) for row in table.rows],
            "video": [_shown_name(row.video) for row in table.rows],
            "query": [row.query for row in table.rows],
            "duration": [row.duration for row in table.rows],
            "target": [[time for span in row.target for time in span] for row in table.rows],
            "window": [row.window and list(row.window) for row in table.rows],
            "media": [-1 if clip is None else places[links[clip]] for clip in clips],
            "strip": [-1 if key is None else numbers.get(key, -1) for key in keys],
        },
        "media": addresses,
        "strips": [strips.images[key] for key in images],
        "strips_skipped": strips.skipped,
        "runs": [_run(table, i, run, texts) for i, run in enumerate(table.runs)],
        "texts": list(texts),
        "headline": headline(table),
        "rejections": rejections(table),
        "differences": differences(table),
        "overlap": overlaps(table),
        "facets": by_facet(table),
        "training": list(training),
        "warnings": [warning for run in table.runs for warning in run.warnings],
        "notes": [*notes, *table.notes, *(note for run in table.runs for note in run.remarks), *_fault_notes(strips)],
    }


def _shown_name(video: str) -> str:
    """A video as the page calls it: of an absolute path the end, as where a file lies on one machine says nothing."""
    path = PurePath(video)
    return "/".join(path.parts[-2:]) if path.is_absolute() and len(path.parts) > 2 else video


def strip_order(table: Table, clips: Sequence[Path | None]) -> list[tuple[Path, Window | None]]:
    """Clips in the order in which they should get frames: worst, typical, best and most different moments in turn."""
    there = [i for i, clip in enumerate(clips) if clip is not None]
    if not there:
        return []
    means = _mean_ious(table)
    orders: list[list[int]] = []
    for of_run in means:
        held = [i for i in there if of_run[i] is not None]
        scores = sorted(v for v in of_run if v is not None)
        middle = scores[len(scores) // 2] if scores else 0.0
        value = {i: of_run[i] or 0.0 for i in held}
        orders += [
            sorted(held, key=lambda i: value[i]),
            sorted(held, key=lambda i: abs(value[i] - middle)),
            sorted(held, key=lambda i: -value[i]),
        ]
    if len(means) > 1:
        gaps = {}
        for i in there:
            of_moment = [v for of_run in means if (v := of_run[i]) is not None]
            gaps[i] = max(of_moment) - min(of_moment)
        orders.insert(0, sorted(there, key=lambda i: -gaps[i]))
    turns = [order[place] for place in range(len(there)) for order in orders if place < len(order)]
    return list(dict.fromkeys((clip, table.rows[i].window) for i in turns if (clip := clips[i]) is not None))


def _mean_ious(table: Table) -> list[list[float | None]]:
    """Per run and moment the mean exact IoU of its answers, None where the run lacks the moment."""
    columns: list[list[float | None]] = []
    for i, run in enumerate(table.runs):
        means = iter([sum(values) / len(values) for values in ious_of(run.cases, "exact")])
        columns.append([None if row.cases[i] is None else next(means) for row in table.rows])
    return columns


def _run(table: Table, number: int, run: Run, texts: dict[str, int]) -> dict[str, Any]:
    official, exact = iter(ious_of(run.cases, "official")), iter(ious_of(run.cases, "exact"))
    kept = iter(counted(run.cases).tolist())
    answers: list[list[list[Any]] | None] = []
    left_out: list[int] = []
    for place, row in enumerate(table.rows):
        case = row.cases[number]
        if case is None:
            answers.append(None)
            continue
        if not next(kept):
            left_out.append(place)
        answers.append(_answers(case, next(official), next(exact), texts))
    return {
        "name": run.name,
        "files": list(run.files),
        "answers": answers,
        "duplicates": left_out,
        "several": not run.single,
    }


def _answers(case: Case, official: Sequence[float], exact: Sequence[float], texts: dict[str, int]) -> list[list[Any]]:
    """Per answer: status, start, end, IoU official, IoU exact, which target it is compared with, number of its text."""
    found: list[list[Any]] = []
    for sample, in_official, in_exact in zip(case.samples, official, exact, strict=True):
        start, end = sample.predicted or (None, None)
        text = -1 if sample.answer is None else texts.setdefault(_shortened(sample.answer), len(texts))
        found.append(
            [STATUS[sample.status], start, end, round(in_official, 6), round(in_exact, 6), nearest_target(sample), text]
        )
    return found


def nearest_target(sample: Sample) -> int:
    """The target span that a prediction is compared with: of the best IoU, and of the nearest ends without overlap."""
    if sample.predicted is None or len(sample.target) == 1:
        return 0
    p = sample.predicted
    ranks = [(-temporal_iou(p, t), abs(p.start - t.start) + abs(p.end - t.end)) for t in sample.target]
    return ranks.index(min(ranks))


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} … ({len(text) - MOST_TEXT:,} more characters)"


def _fault_notes(strips: Strips) -> list[str]:
    if not strips.faults:
        return []
    return [f"No frames of {len(strips.faults)} clips that could not be read: {'; '.join(strips.faults[:3])}."]
