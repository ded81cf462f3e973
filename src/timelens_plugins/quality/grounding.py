"""Signs in a model's answers: several groundings of each query, held against one another and against the label.

Answers that agree with one another and not with the label say that the label is *inaccurate*, or, where they do not
touch it at all, that the query is of something else and the event *absent*; answers that fall into two places, that it
occurs *several* times; answers all over the clip, or none, that it is *absent*. What a sign is worth depends on how
well the model grounds: the scores are those of the model they were measured with.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from timelens_plugins.moments import Moment
from timelens_plugins.quality.findings import Evidence
from timelens_plugins.results import Case
from timelens_plugins.spans import Span, set_iou, temporal_iou

__all__ = ["answers_by_moment", "evidence_of_spans", "grounding_evidence"]

_SAME = 0.5  # IoU from which two answers are about the same place
_APART = 0.1  # IoU up to which a place is another than the label's
_SECOND = 0.25  # share of the answers that make a second place


def answers_by_moment(moments: Sequence[Moment], cases: Sequence[Case]) -> tuple[dict[str, Case], int]:
    """The answers to each moment, found by video, window and query; and how many cases are of none of them.

    Raises:
        ValueError: no case is of any of the moments.
    """
    asked: dict[tuple[str, str, tuple[float, float] | None], list[Moment]] = {}
    for moment in moments:
        asked.setdefault(_key(moment), []).append(moment)
    found: dict[str, Case] = {}
    foreign = 0
    for case in cases:
        same = asked.get((_video(case.moment.video), case.moment.query, case.window), [])
        same = [m for m in same if _spans(case.moment.target) == _spans(m.spans)] or same
        foreign += not same
        found |= {moment.id: case for moment in same}
    if not found:
        raise ValueError(f"none of {len(cases)} answers is to one of these moments: other annotations?")
    return found, foreign


def _video(name: str) -> str:
    from timelens_plugins.metrics.samples import video_name

    return video_name(name)


def _key(moment: Moment) -> tuple[str, str, tuple[float, float] | None]:
    window = None if moment.video_start is None or moment.video_end is None else (moment.video_start, moment.video_end)
    return _video(moment.video_id), moment.query, window


def _spans(spans: Sequence[Span]) -> set[tuple[float, float]]:
    return {(round(span.start, 3), round(span.end, 3)) for span in spans}


def grounding_evidence(moments: Sequence[Moment], cases: Mapping[str, Case]) -> Iterator[Evidence]:
    """Evidence from the answers to each moment, by :func:`answers_by_moment`; moments without answers have none."""
    for moment in moments:
        if (case := cases.get(moment.id)) is None:
            continue
        spans = [sample.predicted for sample in case.samples if sample.predicted is not None]
        yield from evidence_of_spans(moment, spans, len(case.samples))


def evidence_of_spans(moment: Moment, spans: Sequence[Span], answers: int) -> Iterator[Evidence]:
    """Evidence from the first spans of the answers to one moment, of ``answers`` in all."""
    silent = 1 - len(spans) / answers
    if silent >= 0.5:
        reason = f"{answers - len(spans)} of {answers} answers name no span"
        yield Evidence(moment.id, "absent", "no answer", silent, reason)
    if not spans:
        return
    places = _places(spans)
    first = places[0]
    share = len(first) / len(spans)
    middle = _middle(first)
    spot = f"{middle.start:g} - {middle.end:g} s"
    label = max(set_iou([middle], [span]) for span in moment.spans)
    inside = _inside(middle, moment.spans)
    if label < _SAME and answers > 1:
        strength = share * (1 - label)
        reason = f"{len(first)} of {answers} answers agree on {spot} (IoU with the label {label:.2f})"
        yield Evidence(
            moment.id, "inaccurate", "answers agree elsewhere", strength, reason, (), ((middle.start, middle.end),)
        )
    if label <= _APART and answers > 1:
        reason = f"{len(first)} of {answers} answers agree on {spot}, which the label does not touch"
        yield Evidence(moment.id, "absent", "answers agree apart", share, reason, (), ((middle.start, middle.end),))
    if label < _SAME and answers == 1:
        reason = f"the answer is {spot} (IoU with the label {label:.2f})"
        yield Evidence(
            moment.id, "inaccurate", "answer elsewhere", 1 - label, reason, (), ((middle.start, middle.end),)
        )
    if answers > 1:
        agreement = _agreement(spans)
        if agreement < _SAME:
            reason = f"{answers} answers agree little (mean IoU of two {agreement:.2f})"
            yield Evidence(moment.id, "absent", "answers disagree", 1 - agreement, reason)
    second = next((p for p in places[1:] if len(p) / len(spans) >= _SECOND), None)
    if second is not None and temporal_iou(middle, other := _middle(second)) <= _APART and (label >= _SAME or inside):
        reason = f"{len(second)} of {answers} answers fall on {other.start:g} - {other.end:g} s"
        strength = 2 * min(len(first), len(second)) / len(spans)
        yield Evidence(moment.id, "several", "answers in two places", strength, reason, (), ((other.start, other.end),))


def _places(spans: Sequence[Span]) -> list[list[Span]]:
    """Answers gathered around the one that most others overlap, largest gathering first."""
    left = list(spans)
    places = []
    while left:
        near = [[b for b in left if _iou(a, b) >= _SAME] for a in left]
        best = max(near, key=len)
        places.append(best)
        left = [span for span in left if span not in best]
    return places


def _iou(a: Span, b: Span) -> float:
    """1 for equal spans of no length, too, whose intersection and union are both nothing."""
    return 1.0 if a == b else temporal_iou(a, b)


def _middle(spans: Sequence[Span]) -> Span:
    """The medians of starts and of ends."""
    return Span(float(np.median([s.start for s in spans])), float(np.median([s.end for s in spans])))


def _inside(span: Span, labels: Sequence[Span]) -> bool:
    return any(label.start <= span.start and span.end <= label.end for label in labels)


def _agreement(spans: Sequence[Span]) -> float:
    pairs = [_iou(a, b) for a, b in itertools.combinations(spans, 2)]
    return float(np.mean(pairs)) if pairs else 1.0
