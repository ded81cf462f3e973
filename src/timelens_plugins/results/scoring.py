"""Scores of cases with one or several answers; with one, exactly those of :mod:`timelens_plugins.metrics`.

A case of several answers counts with its mean over them: what one answer drawn at random scores on average. Intervals
are clustered by video, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.metrics import (
    THRESHOLDS,
    Difference,
    Reading,
    Sample,
    Scores,
    clustered_interval,
    evaluate,
    paired_difference,
    reading_ious,
)
from timelens_plugins.metrics.intervals import cluster_numbers
from timelens_plugins.metrics.scores import MIOU, count_failures, recall_name
from timelens_plugins.results.result_file import Case
from timelens_plugins.spans import Span

__all__ = ["METRICS", "answers_given", "case_columns", "counted", "difference", "ious_of", "score_cases"]

METRICS = (*map(recall_name, THRESHOLDS), MIOU)

Array = NDArray[np.float64]


def score_cases(cases: Sequence[Case], reading: Reading) -> Scores:
    """Scores of a run's cases under one reading.

    ``n`` counts cases; ``parse_failures`` and ``missing`` count answers, to compare with :func:`answers_given`.
    """
    if all(len(case.samples) == 1 for case in cases):
        return evaluate([case.moment for case in cases], reading)
    kept = counted(cases) if reading == "official" else np.ones(len(cases), dtype=bool)
    chosen = [case for case, keep in zip(cases, kept, strict=True) if keep]
    clusters = cluster_numbers([case.moment.cluster for case in chosen])
    columns = case_columns(chosen, reading)
    samples = [sample for case in chosen for sample in case.samples]
    return Scores(
        reading=reading,
        n=len(chosen),
        videos=int(clusters.max()) + 1,
        recall={t: float(columns[recall_name(t)].mean()) for t in THRESHOLDS},
        miou=float(columns[MIOU].mean()),
        intervals={name: clustered_interval(x, clusters) for name, x in columns.items()},
        parse_failures=sum(sample.status == "unparsed" for sample in samples),
        failures=count_failures(samples),
        missing=sum(sample.status == "missing" for sample in samples),
        duplicates_dropped=len(cases) - len(chosen),
        duplicates_differing=_differing(cases, kept),
        confidence=0.95,
    )


def _differing(cases: Sequence[Case], kept: NDArray[np.bool_]) -> int:
    """How many answered cases that are not kept have other predictions than the one of their key that is."""
    counting = {case.moment.key: _predicted(case) for case, keep in zip(cases, kept, strict=True) if keep}
    left_out = [case for case, keep in zip(cases, kept, strict=True) if not keep]
    return sum(bool(given := _predicted(case)) and given != counting[case.moment.key] for case in left_out)


def _predicted(case: Case) -> list[Span | None]:
    """What its answers predict; nothing where there are none."""
    return [sample.predicted for sample in case.samples if sample.status != "missing"]


def answers_given(cases: Sequence[Case], reading: Reading) -> int:
    """How many answers the reading counts, with or without a span; missing ones are none."""
    kept = counted(cases) if reading == "official" else np.ones(len(cases), dtype=bool)
    return sum(s.status != "missing" for case, keep in zip(cases, kept, strict=True) if keep for s in case.samples)


def difference(pairs: Sequence[tuple[Case, Case]], reading: Reading) -> Difference | None:
    """Second minus first run on the moments they share; None without any."""
    if not pairs:
        return None
    a, b = ([pair[i] for pair in pairs] for i in (0, 1))
    if all(len(case.samples) == 1 for case in (*a, *b)):
        return paired_difference([case.moment for case in b], [case.moment for case in a], reading)
    if reading == "official":
        keys = [case.moment.key for case in a]
        a, b = ([cases[i] for i in _chosen(cases, keys)] for cases in (a, b))
    clusters = cluster_numbers([case.moment.cluster for case in a])
    of_a, of_b = case_columns(a, reading), case_columns(b, reading)
    columns = {name: of_b[name] - of_a[name] for name in METRICS}
    return Difference(
        reading=reading,
        n=len(a),
        videos=int(clusters.max()) + 1,
        recall={t: float(columns[recall_name(t)].mean()) for t in THRESHOLDS},
        miou=float(columns[MIOU].mean()),
        intervals={name: clustered_interval(x, clusters, bounds=(-1.0, 1.0)) for name, x in columns.items()},
        confidence=0.95,
    )


def ious_of(cases: Sequence[Case], reading: Reading) -> list[list[float]]:
    """IoU of every answer of every case."""
    samples: list[Sample] = [sample for case in cases for sample in case.samples]
    if not samples:
        return []
    values = iter(reading_ious(samples, reading).tolist())
    return [[next(values) for _ in case.samples] for case in cases]


def case_columns(cases: Sequence[Case], reading: Reading) -> dict[str, Array]:
    """Every metric per case, mean over its answers, each of shape ``(len(cases),)``."""
    samples = [sample for case in cases for sample in case.samples]
    answers = np.array([len(case.samples) for case in cases])
    first = np.cumsum(answers) - answers
    ious = reading_ious(samples, reading)

    def mean(values: Array) -> Array:
        return np.asarray(np.add.reduceat(values, first) / answers)

    return {recall_name(t): mean((ious >= t).astype(np.float64)) for t in THRESHOLDS} | {MIOU: mean(ious)}


def counted(cases: Sequence[Case]) -> NDArray[np.bool_]:
    """Which cases the official reading counts: of exact repetitions of an annotation, the last that was answered."""
    kept = np.zeros(len(cases), dtype=bool)
    kept[_chosen(cases, [case.moment.key for case in cases])] = True
    return kept


def _chosen(cases: Sequence[Case], keys: Sequence[object]) -> list[int]:
    """Of each key the last case that was answered, or else its first one, in order of the keys' first appearance."""
    chosen: dict[object, int] = {}
    for i, (case, key) in enumerate(zip(cases, keys, strict=True)):
        if key not in chosen or any(sample.status != "missing" for sample in case.samples):
            chosen[key] = i
    return list(chosen.values())
