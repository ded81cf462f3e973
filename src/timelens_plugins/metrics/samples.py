"""One annotation and what a model answered; which samples are duplicates; annotations nobody answered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

from timelens_plugins.answers import normalize_query
from timelens_plugins.spans import Span
from timelens_plugins.suffixes import VIDEO_SUFFIXES

__all__ = [
    "Joined",
    "Sample",
    "Status",
    "Window",
    "differing_duplicates",
    "drop_duplicates",
    "join_annotations",
    "video_name",
]

Status: TypeAlias = Literal["parsed", "unparsed", "missing"]
STATUSES: tuple[Status, ...] = get_args(Status)

Window: TypeAlias = tuple[float, float]
Key: TypeAlias = tuple[str, str, tuple[Span, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One annotation and the answer to it.

    Attributes:
        video: name of the video; samples of one video are one cluster of the confidence intervals.
        query: the text query.
        target: the annotated spans, in seconds. Where there are several (QVHighlights), any one of them is a right
            answer: the best IoU over them counts. None at all where the event is not in the video.
        predicted: the first span of the answer, in seconds; None unless ``status`` is ``"parsed"``.
        status: ``"parsed"``; ``"unparsed"``: answered without a readable span; ``"missing"``: no answer at all.
        subset: the part of a benchmark the annotation belongs to; ``""`` where there are no parts.
        duration: length of the clip in seconds, where known.
        answer: the text of the model, where known.
        failure: why an unparsed answer holds no span, as :class:`~timelens_plugins.answers.AnswerStatus` calls it
            (``"swapped"``, ``"denied"``); ``""`` where that is not known, and for every other status.
        window: of a longer video, in seconds of the file, where the annotation is about one, from whose start spans
            count; else None.
    """

    video: str
    query: str
    target: tuple[Span, ...]
    predicted: Span | None
    status: Status
    subset: str = ""
    duration: float | None = None
    answer: str | None = None
    failure: str = ""
    window: Window | None = None
    _key: tuple[str, Key] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"{self.describe()}: status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        if (self.predicted is None) == (self.status == "parsed"):
            raise ValueError(f"{self.describe()}: status {self.status!r} does not go with prediction {self.predicted}")

    @property
    def cluster(self) -> tuple[str, str]:
        """What samples of the same video share."""
        return self.subset, self.video

    @property
    def key(self) -> tuple[str, Key]:
        """Equal for exact duplicates: same subset, video, window, query (normalised as by the official loader) and
        spans."""
        if self._key is None:  # asked for many times in a report
            key = self.video, normalize_query(self.query), self.target, self.window or ()
            object.__setattr__(self, "_key", (self.subset, key))
        assert self._key is not None
        return self._key

    def describe(self) -> str:
        """Video, window, query and spans in a few words, for messages."""
        spans = ", ".join(f"[{start:g}, {end:g}]" for start, end in self.target)
        window = "" if self.window is None else f" from {self.window[0]:g} to {self.window[1]:g} s"
        return f"video {self.video!r}{window}, query {self.query!r}, {f'span {spans}' if spans else 'no span'}"


def drop_duplicates(samples: Iterable[Sample]) -> list[Sample]:
    """Every video (or window of one) + query + span once, in order of first appearance.

    Of several answers to one key the last counts, as in a dictionary of results; a missing one never replaces another.
    """
    return list(_by_key(samples).values())


def _by_key(samples: Iterable[Sample]) -> dict[tuple[str, Key], Sample]:
    kept: dict[tuple[str, Key], Sample] = {}
    for sample in samples:
        key = sample.key
        if sample.status != "missing" or key not in kept:
            kept[key] = sample
    return kept


def differing_duplicates(samples: Sequence[Sample]) -> int:
    """How many answered samples predict something else than the one of their key that counts."""
    kept = _by_key(samples)
    if len(kept) == len(samples):
        return 0
    return sum(sample.predicted != kept[sample.key].predicted for sample in samples if sample.status != "missing")


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

    Videos are matched by file name without folder and extension, queries after normalisation, spans and windows
    exactly. Results that state no window are given to those of a video in order, where there is one for each.

    Args:
        annotations: samples with status ``"missing"``; their video, query, target, subset and duration are kept.
        results: samples as read from a result file; their prediction, status and answer are taken over.

    Raises:
        ValueError: results that belong to no annotation, more results for one annotation than there are annotations, or
            fewer that do not say which window they are about.
    """
    windows = any(result.window is not None for result in results)
    answers: dict[Key, list[Sample]] = defaultdict(list)
    for result in results:
        answers[_match_key(result, windows)].append(result)
    if not windows:
        _refuse_unknown_windows(annotations, answers)
    used: dict[Key, int] = defaultdict(int)
    samples, repeated = [], 0
    for annotation in annotations:
        key = _match_key(annotation, windows)
        given = answers.get(key)
        if not given:
            samples.append(annotation)
            continue
        repeated += used[key] >= len(given)
        result = given[min(used[key], len(given) - 1)]
        used[key] += 1
        samples.append(
            replace(
                annotation,
                predicted=result.predicted,
                status=result.status,
                answer=result.answer,
                failure=result.failure,
            )
        )
    _refuse_leftovers(annotations, answers, used, windows)
    return Joined(samples, repeated)


def _refuse_unknown_windows(annotations: Sequence[Sample], answers: Mapping[Key, Sequence[Sample]]) -> None:
    """An answer that is missing would leave the others with the wrong window."""
    alike: dict[Key, list[Sample]] = defaultdict(list)
    for annotation in annotations:
        alike[_match_key(annotation, False)].append(annotation)
    for key, held in alike.items():
        given = len(answers.get(key, ()))
        if 0 < given < len(held) and len({annotation.window for annotation in held}) > 1:
            raise ValueError(
                f"{given} results for {len(held)} annotations that differ in their windows alone, which the results do "
                f"not state, first {held[0].describe()}: evaluate again, as samples state them now"
            )


def _refuse_leftovers(
    annotations: Sequence[Sample], answers: dict[Key, list[Sample]], used: dict[Key, int], windows: bool
) -> None:
    left = [sample for key, given in answers.items() for sample in given[used.get(key, 0) :]]
    if not left:
        return
    first = left[0]
    key = _match_key(first, windows)
    message = (
        f"{len(left)} of {sum(map(len, answers.values()))} results belong to no annotation, first {first.describe()}"
    )
    if key in used:
        message += f": {len(answers[key])} results for {used[key]} annotation(s); was a file written twice?"
    elif twins := [a for a in annotations if _match_key(a, windows)[:2] == key[:2]]:
        message += f": annotated as {twins[0].describe()}; were the results made from other annotations?"
    else:
        message += ": give the annotations the results were made from"
    raise ValueError(message)


def video_name(video: str) -> str:
    """File name of a video without folder and extension: what annotations and results made on other machines share."""
    name = video.rstrip("/").rpartition("/")[2]
    stem, _, extension = name.rpartition(".")
    return stem if stem and f".{extension.lower()}" in VIDEO_SUFFIXES else name


def _match_key(sample: Sample, windows: bool) -> Key:
    window = sample.window or () if windows else ()
    return video_name(sample.video), normalize_query(sample.query), sample.target, window
