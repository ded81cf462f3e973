"""The numbers of the report, as JSON types: headline, chance levels, differences, scores by length. Shares are 0..1."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.metrics import (
    READINGS,
    Difference,
    Interval,
    Reading,
    Sample,
    Scores,
    average,
    chance_levels,
    clustered_interval,
    count_rejections,
    drop_duplicates,
)
from timelens_plugins.metrics.intervals import cluster_numbers
from timelens_plugins.metrics.scores import MIOU, THRESHOLDS, recall_name
from timelens_plugins.report.table import Row, Table
from timelens_plugins.results import Case
from timelens_plugins.results.result_file import samples_of
from timelens_plugins.results.scoring import METRICS, answers_given, case_columns, counted, difference, score_cases
from timelens_plugins.spans import total_length

__all__ = ["FACETS", "by_facet", "differences", "headline", "overlaps", "rejections"]

CHANCE = ("best constant span", "random span")
MOST_BINS = 6
LEAST_IN_BIN = 8  # moments, on average: fewer bins where there are not enough

FACETS: dict[str, tuple[str, str, Callable[[Row], float | None]]] = {
    "duration": ("video duration", "s", lambda row: row.duration),
    "length": ("length of the annotated span", "s", lambda row: total_length(row.target)),
    "share": (
        "share of the video that the span covers",
        "%",
        lambda row: None if not row.duration else min(100.0, 100 * total_length(row.target) / row.duration),
    ),
}
"""Name, unit and value of what the score is broken down by. Several annotated spans count with their total length."""


def headline(table: Table) -> list[dict[str, Any]]:
    """A block for all moments, one for the average over subsets, and one for every subset.

    Each has ``title``, ``runs`` (per run, per reading, the scores) and ``chance`` (per distinct set of moments).
    """
    subsets = table.subsets
    blocks = [_block("All moments" if len(subsets) > 1 else _shown(subsets), table, None)]
    if len(subsets) > 1:
        of_subsets = [_block(_shown([subset]), table, subset) for subset in subsets]
        if not _share_videos(table):
            blocks.append(_average_block(table, subsets))
        blocks += of_subsets
    return blocks


def rejections(table: Table) -> list[dict[str, Any]]:
    """Counts and rates of answers that say "not in this video", for every run and subset with such events."""
    found = []
    for i, run in enumerate(table.runs):
        for subset in dict.fromkeys(case.moment.subset for case in run.absent):
            cases = [case for case in (*run.cases, *run.absent) if case.moment.subset == subset]
            counts = count_rejections(samples_of(cases))
            assert counts is not None  # the subset is of one such case
            found.append({"run": i, "subset": _shown([subset]), **asdict(counts), "rates": counts.rates})
    return found


def differences(table: Table) -> list[dict[str, Any]]:
    """Every pair of runs, later minus earlier, on the moments both hold: in all, and by subset."""
    found = []
    for a, b in combinations(range(len(table.runs)), 2):
        shared = len(table.shared(a, b))
        parts: list[str | None] = [None, *(table.subsets if len(table.subsets) > 1 else ())]
        found.append(
            {
                "a": a,
                "b": b,
                "shared": shared,
                "only_a": len(table.runs[a].cases) - shared,
                "only_b": len(table.runs[b].cases) - shared,
                "parts": [
                    {
                        "title": "All shared moments" if part is None else _shown([part]),
                        "readings": {
                            reading: _difference(difference(table.shared(a, b, part), reading)) for reading in READINGS
                        },
                    }
                    for part in parts
                ],
            }
        )
    return found


def overlaps(table: Table) -> dict[str, Any]:
    """How many moments all runs hold, and how many not all of them."""
    held = [sum(case is not None for case in row.cases) for row in table.rows]
    everywhere = sum(count == len(table.runs) for count in held)
    return {"moments": len(table.rows), "in_all": everywhere, "not_in_all": len(table.rows) - everywhere}


def by_facet(table: Table) -> list[dict[str, Any]]:
    """mIoU with intervals in bins of every facet, the same for all runs, with about equally many moments in each."""
    facets = []
    held = [np.array([row.cases[i] is not None for row in table.rows], dtype=bool) for i in range(len(table.runs))]
    measured = [_measured(run.cases) for run in table.runs]
    for name, (title, unit, value_of) in FACETS.items():
        values = [value_of(row) for row in table.rows]
        known = np.array([value for value in values if value is not None])
        edges = bin_edges(known)
        bins = np.full(len(values), -1)
        bins[[value is not None for value in values]] = np.searchsorted(edges[1:-1], known, side="right")
        runs = [
            {reading: _bin_scores(bins[there], len(edges) - 1, of_run, reading) for reading in READINGS}
            for there, of_run in zip(held, measured, strict=True)
        ]
        facets.append(
            {
                "name": name,
                "title": title,
                "unit": unit,
                "edges": edges,
                "unknown": sum(value is None for value in values),
                "runs": runs,
            }
        )
    return facets


def bin_edges(values: np.ndarray[Any, Any]) -> list[float]:
    """Ends of up to six bins with about equally many values, at round numbers; the first and last hold all values."""
    if not len(values):
        return []
    count = int(min(MOST_BINS, max(1, len(values) // LEAST_IN_BIN)))
    low, high = float(values.min()), float(values.max())
    least = 1.0 if (values == np.rint(values)).all() else 0.0
    inner = {_round_to(float(np.quantile(values, i / count)), (high - low) / count, least) for i in range(1, count)}
    edges = [low]
    for edge in sorted(inner):
        if ((values >= edges[-1]) & (values < edge)).any() and (values >= edge).any():
            edges.append(edge)
    return [*edges, high]


def _round_to(value: float, width: float, least: float) -> float:
    """``value`` to a multiple of a round number (1, 2 or 5 times a power of ten) that is small beside ``width``.

    ``least`` is the smallest such number: 1 for values that are whole.
    """
    if width <= 0:
        return value
    power = 10.0 ** np.floor(np.log10(width / 4))
    step = power * max(factor for factor in (1, 2, 5) if factor * power <= width / 4)
    step = max(step, least)
    return float(round(round(value / step) * step, 9))


@dataclass(frozen=True)
class _Measured:
    """Of the cases of a run: numbers of their videos, and by reading which cases count, and their IoU."""

    clusters: NDArray[np.intp]
    kept: Mapping[str, NDArray[np.bool_]]
    ious: Mapping[str, NDArray[np.float64]]


def _measured(cases: Sequence[Case]) -> _Measured:
    return _Measured(
        cluster_numbers([case.moment.cluster for case in cases]),
        {"official": counted(cases), "exact": np.ones(len(cases), dtype=bool)},
        {reading: case_columns(cases, reading)[MIOU] if cases else np.zeros(0) for reading in READINGS},
    )


def _bin_scores(bins: NDArray[np.intp], count: int, of_run: _Measured, reading: Reading) -> list[dict[str, Any] | None]:
    """Scores in every bin; ``bins`` has the bin of every case, -1 for none."""
    results: list[dict[str, Any] | None] = []
    for number in range(count):
        chosen = np.flatnonzero(of_run.kept[reading] & (bins == number))
        if not len(chosen):
            results.append(None)
            continue
        values = of_run.ious[reading][chosen]
        clusters = cluster_numbers(of_run.clusters[chosen].tolist())
        results.append(
            {
                "n": len(chosen),
                "videos": int(clusters.max()) + 1,
                "miou": float(values.mean()),
                "ci": _ends(clustered_interval(values, clusters)),
            }
        )
    return results


def _block(title: str, table: Table, subset: str | None) -> dict[str, Any]:
    cases = [[case for case in run.cases if subset is None or case.moment.subset == subset] for run in table.runs]
    return {
        "title": title,
        "subset": subset,
        "runs": [
            {reading: _scores(score_cases(of_run, reading) if of_run else None, [of_run]) for reading in READINGS}
            for of_run in cases
        ],
        "chance": _chance(cases),
    }


def _average_block(table: Table, subsets: Sequence[str]) -> dict[str, Any]:
    """Every subset with the same weight; None for a run that lacks one of them."""
    runs = []
    for run in table.runs:
        parts = [[case for case in run.cases if case.moment.subset == subset] for subset in subsets]
        of_run = {}
        for reading in READINGS:
            found = [score_cases(part, reading) for part in parts if part]
            of_run[reading] = _scores(average(found), parts) if len(found) == len(subsets) else None
        runs.append(of_run)
    return {"title": "Average of the subsets", "subset": None, "runs": runs, "chance": []}


def _chance(cases_of_runs: Sequence[Sequence[Case]]) -> list[dict[str, Any]]:
    """Chance levels of every distinct set of moments, with the runs that hold it."""
    sets: dict[object, tuple[list[int], Sequence[Case]]] = {}
    for i, cases in enumerate(cases_of_runs):
        if cases:
            key = frozenset(Counter(case.moment.key for case in cases).items())
            sets.setdefault(key, ([], cases))[0].append(i)
    found = []
    for runs, cases in sets.values():
        moments = [case.moment for case in cases]
        readings = {reading: _chance_of(moments, reading) for reading in READINGS}
        found.append({"runs": runs, "without_duration": sum(m.duration is None for m in moments), "readings": readings})
    return found


def _chance_of(moments: Sequence[Sample], reading: Reading) -> dict[str, Any] | None:
    chosen = drop_duplicates(moments) if reading == "official" else list(moments)
    timed = [(m.target, m.duration) for m in chosen if m.duration is not None]
    if not timed:
        return None
    levels = chance_levels([target for target, _ in timed], [duration for _, duration in timed], reading, rules=CHANCE)
    return {
        name: {
            "n": len(timed),
            **{recall_name(t): level.recall[t] for t in THRESHOLDS},
            MIOU: level.miou,
            "span": level.span and list(level.span),
        }
        for name, level in levels.items()
    }


def _scores(s: Scores | None, parts: Sequence[Sequence[Case]]) -> dict[str, Any] | None:
    """``parts``: the cases that were scored, apart where they were averaged."""
    if s is None:
        return None
    means = {recall_name(t): s.recall[t] for t in THRESHOLDS} | {MIOU: s.miou}
    return {
        "n": s.n,
        "videos": s.videos,
        "metrics": {name: {"value": means[name], "ci": _ends(s.intervals[name])} for name in METRICS},
        "answers": sum(answers_given(part, s.reading) for part in parts),
        "unparsed": s.parse_failures,
        "failures": dict(s.failures),
        "missing": s.missing,
        "duplicates_dropped": s.duplicates_dropped,
    }


def _difference(d: Difference | None) -> dict[str, Any] | None:
    if d is None:
        return None
    means = {recall_name(t): d.recall[t] for t in THRESHOLDS} | {MIOU: d.miou}
    metrics = {name: {"value": means[name], "ci": _ends(d.intervals[name])} for name in METRICS}
    return {"n": d.n, "videos": d.videos, "metrics": metrics}


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _share_videos(table: Table) -> bool:
    pairs = {(row.subset, row.video) for row in table.rows}
    return len({video for _, video in pairs}) < len(pairs)


def _shown(subsets: Sequence[str]) -> str:
    return (subsets[0] if subsets else "") or "All moments"
