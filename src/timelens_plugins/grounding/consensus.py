"""What several answers to one query agree on. Pure Python.

Two answers agree by the IoU of the times they state (as sets of spans); two that say "not in this video" agree fully;
an answer that cannot be read agrees with none. The answer chosen is the one that agrees most with the others: that of
the least expected error, if the answers are draws of what may be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from timelens_plugins.answers import AnswerStatus, ParsedAnswer
from timelens_plugins.spans import Span, merge_spans, set_iou

__all__ = ["AGREES", "Consensus", "consensus"]

AGREES = 0.5
"""IoU from which on two answers count as the same moment, as in R1@0.5."""


@dataclass(frozen=True)
class Consensus:
    """The answer chosen among several.

    Attributes:
        spans: in seconds, merged and in order; empty where the event is said not to be in the video, or no answer could
            be read.
        status: ``parsed``, ``denied``, or what is wrong with the first answer where none could be read.
        agreement: mean agreement of the chosen answer with the others, 0..1; None for a single answer.
        votes: how many answers, the chosen one included, mean the same moment: agree by at least :data:`AGREES`.
    """

    spans: tuple[Span, ...]
    status: AnswerStatus
    agreement: float | None
    votes: int


def consensus(answers: Sequence[ParsedAnswer]) -> Consensus:
    """The answer that agrees most with the others; of equals the first.

    Raises:
        ValueError: no answers.
    """
    if not answers:
        raise ValueError("no answers to choose from")
    readable = [i for i, answer in enumerate(answers) if answer.spans or answer.status is AnswerStatus.DENIED]
    if not readable:
        return Consensus((), answers[0].status, 0.0 if len(answers) > 1 else None, 0)
    shared = {i: [_agreement(answers[i], other) for j, other in enumerate(answers) if j != i] for i in readable}
    chosen = max(readable, key=lambda i: sum(shared[i]))
    spans, others = tuple(merge_spans(answers[chosen].spans)), shared[chosen]
    agreement = sum(others) / len(others) if others else None
    return Consensus(spans, answers[chosen].status, agreement, 1 + sum(value >= AGREES for value in others))


def _agreement(a: ParsedAnswer, b: ParsedAnswer) -> float:
    if AnswerStatus.DENIED in (a.status, b.status):
        return float(a.status is b.status)
    return set_iou(a.spans, b.spans)
