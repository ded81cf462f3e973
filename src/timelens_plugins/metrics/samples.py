"""One annotation and what a model answered; which samples are duplicates; annotations nobody answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal, TypeAlias, get_args

from timelens_plugins.answers import normalize_query
from timelens_plugins.spans import Span

__all__ = ["Joined", "Sample", "Status", "drop_duplicates", "join_annotations", "video_name"]

Status: TypeAlias = Literal["parsed", "unparsed", "missing"]
STATUSES: tuple[Status, ...] = get_args(Status)

Key: TypeAlias = tuple[str, str, tuple[Span, ...]]

VIDEO_EXTENSIONS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotation and the answer to it.

    Attributes:
        video: name of the video; samples of one video are one cluster of the confidence intervals.
        query: the text query.
        target: the annotated spans, in seconds. Where there are several (QVHighlights), any one of them is a right
            answer: the best IoU over them counts.
        predicted: the first span of the answer, in seconds; None unless ``status`` is ``"parsed"``.
        status: ``"parsed"``; ``"unparsed"``: answered without a readable span; ``"missing"``: no answer at all.
        subset: the part of a benchmark the annotation belongs to; ``""`` where there are no parts.
        duration: length of the clip in seconds, where known.
        answer: the text of the model, where known.
    """

    video: str
    query: str
    target: tuple[Span, ...]
    predicted: Span | None
    status: Status
    subset: str = ""
    duration: float | None = None
    answer: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"{self.describe()}: status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        if not self.target:
            raise ValueError(f"{self.describe()}: a sample needs at least one target span")
        if (self.predicted is None) == (self.status == "parsed"):
            raise ValueError(f"{self.describe()}: status {self.status!r} does not go with prediction {self.predicted}")

    @property
    def cluster(self) -> tuple[str, str]:
        """What samples of the same video share."""
        return self.subset, self.video

    @property
    def key(self) -> tuple[str, Key]:
        """Equal for exact duplicates: same subset, video, query (normalised as by the official loader) and spans."""
        return self.subset, (self.video, normalize_query(self.query), self.target)

    def describe(self) -> str:
        """Video, query and spans in a few words, for messages."""
        spans = ", ".join(f"[{start:g}, {end:g}]" for start, end in self.target)
        return f"video {self.video!r}, query {self.query!r}, span {spans}"


def drop_duplicates(samples: Iterable[Sample]) -> list[Sample]:
    """Every video + query + span once, in order of first appearance.

    Of several answers to one key the last counts, as in a dictionary of results; a missing one never replaces another.
    """
    kept: dict[tuple[str, Key], Sample] = {}
    for sample in samples:
        key = sample.key
        if sample.status != "missing" or key not in kept:
            kept[key] = sample
    return list(kept.values())


@dataclass(frozen=True, slots=True)
class Joined:
    """Annotations with their answers.

    Attributes:
        samples: one per annotation, in the order of the annotations.
        repeated: annotations that share the answer of an earlier exact duplicate, because the results, keyed by video +
            query + span, hold it only once.
    """

    samples: list[Sample]
    repeated: int


def join_annotations(annotations: Sequence[Sample], results: Sequence[Sample]) -> Joined:
    """Give every annotation its answer; one without an answer stays ``"missing"``.

    Videos are matched by file name without folder and extension, queries after normalisation, spans exactly.

    Args:
        annotations: samples with status ``"missing"``; their video, query, target, subset and duration are kept.
        results: samples as read from a result file; their prediction, status and answer are taken over.

    Raises:
        ValueError: results that belong to no annotation, or more results for one annotation than there are annotations.
    """
    answers: dict[Key, list[Sample]] = defaultdict(list)
    for result in results:
        answers[_match_key(result)].append(result)
    used: dict[Key, int] = defaultdict(int)
    samples, repeated = [], 0
    for annotation in annotations:
        key = _match_key(annotation)
        given = answers.get(key)
        if not given:
            samples.append(annotation)
            continue
        repeated += used[key] >= len(given)
        result = given[min(used[key], len(given) - 1)]
        used[key] += 1
        samples.append(replace(annotation, predicted=result.predicted, status=result.status, answer=result.answer))
    _refuse_leftovers(annotations, answers, used)
    return Joined(samples, repeated)


def _refuse_leftovers(annotations: Sequence[Sample], answers: dict[Key, list[Sample]], used: dict[Key, int]) -> None:
    left = [sample for key, given in answers.items() for sample in given[used.get(key, 0) :]]
    if not left:
        return
    first = left[0]
    key = _match_key(first)
    message = (
        f"{len(left)} of {sum(map(len, answers.values()))} results belong to no annotation, first {first.describe()}"
    )
    if key in used:
        message += f": {len(answers[key])} results for {used[key]} annotation(s); was a file written twice?"
    elif twins := [a for a in annotations if _match_key(a)[:2] == key[:2]]:
        message += f": annotated as {twins[0].describe()}; were the results made from other annotations?"
    else:
        message += ": give the annotations the results were made from"
    raise ValueError(message)


def video_name(video: str) -> str:
    """File name of a video without folder and extension: what annotations and results made on other machines share."""
    path = PurePosixPath(video)
    return path.stem if path.suffix.lower() in VIDEO_EXTENSIONS else path.name


def _match_key(sample: Sample) -> Key:
    return video_name(sample.video), normalize_query(sample.query), sample.target
