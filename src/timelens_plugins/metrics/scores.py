"""Recall, mIoU and their intervals: of one set of samples, averaged over subsets, and as difference of two runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.metrics.intervals import Interval, average_interval, cluster_numbers, clustered_interval
from timelens_plugins.metrics.readings import Reading, check_reading, reading_ious
from timelens_plugins.metrics.samples import Sample, differing_duplicates, drop_duplicates

__all__ = [
    "MIOU",
    "THRESHOLDS",
    "Difference",
    "Scores",
    "average",
    "count_failures",
    "evaluate",
    "paired_difference",
    "recall_name",
]

THRESHOLDS = (0.3, 0.5, 0.7)
MIOU = "mIoU"


def recall_name(threshold: float) -> str:
    """``R1@0.5``."""
    return f"R1@{threshold:g}"


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of one set of samples under one reading. All shares are fractions, 0..1; the papers print them times 100.

    Attributes:
        reading: ``"official"`` or ``"exact"``.
        n: annotations counted, answered or not.
        videos: distinct videos among them.
        recall: share of annotations whose IoU reaches each threshold.
        miou: mean IoU, 0 for what is not parsed or missing.
        intervals: confidence interval per metric name (``"R1@0.3"``, …, ``"mIoU"``), clustered by video; None where
            there is only one video.
        parse_failures: answers without a span.
        failures: how many of them for which reason, as :attr:`Sample.failure` names it (``"unparsed"`` where unknown).
        missing: annotations without an answer.
        duplicates_dropped: samples left out because they repeat video, query and span (official reading only).
        duplicates_differing: dropped samples whose prediction was not that of the one counted.
        confidence: of the intervals.
    """

    reading: Reading
    n: int
    videos: int
    recall: Mapping[float, float]
    miou: float
    intervals: Mapping[str, Interval | None]
    parse_failures: int
    failures: Mapping[str, int]
    missing: int
    duplicates_dropped: int
    duplicates_differing: int
    confidence: float

    @property
    def reasons(self) -> str:
        """``failures`` in words: ``2 denied, 1 swapped``."""
        return ", ".join(f"{count} {reason}" for reason, count in self.failures.items())


def evaluate(
    samples: Sequence[Sample],
    reading: str,
    thresholds: Sequence[float] = THRESHOLDS,
    confidence: float = 0.95,
) -> Scores:
    """Score samples under one reading.

    ``"official"``: predictions rounded to whole seconds, exact duplicates once (the last answer counts). ``"exact"``:
    nothing rounded, every annotation counts. Under both, what is unparsed or missing has IoU 0, a threshold is reached
    with ``IoU >= threshold``, and the best of several target spans counts.

    Raises:
        ValueError: no samples, one without a target span, an unknown reading, a threshold outside 0..1.
    """
    chosen = check_reading(reading)
    _check_thresholds(thresholds)
    if not samples:
        raise ValueError("there are no samples to score")
    counted = drop_duplicates(samples) if chosen == "official" else list(samples)
    clusters = cluster_numbers([sample.cluster for sample in counted])
    columns = _columns(reading_ious(counted, chosen), thresholds)
    return Scores(
        reading=chosen,
        n=len(counted),
        videos=int(clusters.max()) + 1,
        recall={t: float(columns[recall_name(t)].mean()) for t in thresholds},
        miou=float(columns[MIOU].mean()),
        intervals={name: clustered_interval(x, clusters, confidence=confidence) for name, x in columns.items()},
        parse_failures=sum(sample.status == "unparsed" for sample in counted),
        failures=count_failures(counted),
        missing=sum(sample.status == "missing" for sample in counted),
        duplicates_dropped=len(samples) - len(counted),
        duplicates_differing=differing_duplicates(samples) if len(counted) < len(samples) else 0,
        confidence=confidence,
    )


def count_failures(samples: Iterable[Sample]) -> dict[str, int]:
    """How many answers hold no span, by reason."""
    return dict(sorted(Counter(s.failure or s.status for s in samples if s.status == "unparsed").items()))


def _check_thresholds(thresholds: Sequence[float]) -> None:
    if bad := [t for t in thresholds if not 0 < t <= 1]:
        raise ValueError(f"IoU thresholds lie above 0 and at most at 1, got {bad[0]}")


def _columns(ious: NDArray[np.float64], thresholds: Sequence[float]) -> dict[str, NDArray[np.float64]]:
    """Per-sample values of every metric, each of shape ``(n,)``."""
    return {**{recall_name(t): (ious >= t).astype(np.float64) for t in thresholds}, MIOU: ious}


def average(scores: Sequence[Scores]) -> Scores:
    """The plain average over subsets, each with the same weight whatever its size; counts are summed.

    The intervals take the subsets as independent: they must not share videos.
    """
    if not scores:
        raise ValueError("there are no scores to average")
    first = scores[0]
    if any(
        (s.reading, s.confidence, list(s.recall)) != (first.reading, first.confidence, list(first.recall))
        for s in scores
    ):
        raise ValueError("scores of different readings, thresholds or confidence cannot be averaged")
    means = {recall_name(t): [s.recall[t] for s in scores] for t in first.recall} | {MIOU: [s.miou for s in scores]}
    return Scores(
        reading=first.reading,
        n=sum(s.n for s in scores),
        videos=sum(s.videos for s in scores),
        recall={t: math.fsum(means[recall_name(t)]) / len(scores) for t in first.recall},
        miou=math.fsum(means[MIOU]) / len(scores),
        intervals={name: average_interval(m, [s.intervals[name] for s in scores]) for name, m in means.items()},
        parse_failures=sum(s.parse_failures for s in scores),
        failures=dict(sorted(sum((Counter(s.failures) for s in scores), Counter()).items())),
        missing=sum(s.missing for s in scores),
        duplicates_dropped=sum(s.duplicates_dropped for s in scores),
        duplicates_differing=sum(s.duplicates_differing for s in scores),
        confidence=first.confidence,
    )


@dataclass(frozen=True, slots=True)
class Difference:
    """How far run ``a`` lies above run ``b`` on the same annotations; fractions, -1..1.

    ``intervals`` are those of the paired difference, clustered by video: far narrower than the two runs' own intervals
    suggest, because what makes a sample hard is shared by both runs.
    """

    reading: Reading
    n: int
    videos: int
    recall: Mapping[float, float]
    miou: float
    intervals: Mapping[str, Interval | None]
    confidence: float


def paired_difference(
    a: Sequence[Sample],
    b: Sequence[Sample],
    reading: str,
    thresholds: Sequence[float] = THRESHOLDS,
    confidence: float = 0.95,
) -> Difference:
    """``a`` minus ``b``, sample by sample. Both hold the same annotations, in any order.

    Raises:
        ValueError: an annotation is in one run only (or more often), no samples, an unknown reading.
    """
    chosen = check_reading(reading)
    _check_thresholds(thresholds)
    if not a and not b:
        raise ValueError("there are no samples to compare")
    if chosen == "official":
        a, b = drop_duplicates(a), drop_duplicates(b)
    # Stable sort: exact duplicates of one annotation are paired in order of appearance.
    left, right = sorted(a, key=lambda s: s.key), sorted(b, key=lambda s: s.key)
    _check_same_annotations(left, right)
    clusters = cluster_numbers([sample.cluster for sample in left])
    of_a = _columns(reading_ious(left, chosen), thresholds)
    of_b = _columns(reading_ious(right, chosen), thresholds)
    columns = {name: of_a[name] - of_b[name] for name in of_a}
    return Difference(
        reading=chosen,
        n=len(left),
        videos=int(clusters.max()) + 1,
        recall={t: float(columns[recall_name(t)].mean()) for t in thresholds},
        miou=float(columns[MIOU].mean()),
        intervals={
            name: clustered_interval(x, clusters, confidence=confidence, bounds=(-1.0, 1.0))
            for name, x in columns.items()
        },
        confidence=confidence,
    )


def _check_same_annotations(a: Sequence[Sample], b: Sequence[Sample]) -> None:
    keys_a, keys_b = [s.key for s in a], [s.key for s in b]
    if keys_a == keys_b:
        return
    only_a, only_b = set(keys_a) - set(keys_b), set(keys_b) - set(keys_a)
    example = next((s for s in [*a, *b] if s.key in only_a | only_b), None)
    detail = f"{len(only_a)} only in the first, {len(only_b)} only in the second"
    if example is not None:
        detail += f", for instance {example.describe()}"
    raise ValueError(f"the two runs do not hold the same annotations ({len(a)} and {len(b)}): {detail}")
