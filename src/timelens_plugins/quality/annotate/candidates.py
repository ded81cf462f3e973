"""An event on its way from a proposal to an annotation, and what decides about it without a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from timelens_plugins.answers import AnswerStatus, ParsedAnswer
from timelens_plugins.moments import Moment, is_audio_query
from timelens_plugins.quality.annotate.replies import Said
from timelens_plugins.quality.pairs import pair_evidence
from timelens_plugins.quality.wording import unclear_reasons
from timelens_plugins.spans import Span, set_iou

__all__ = ["Candidate", "Grounding", "Reason", "drop_doubles", "fault_of_query", "judge", "spread"]

Reason: TypeAlias = Literal[
    "too many",
    "unreadable answer",
    "declined",
    "audio query",
    "unclear query",
    "absent",
    "several",
    "inaccurate",
    "unreadable grounding",
    "duplicate",
]
"""Why a proposed event does not become an annotation:

- *too many*: more were proposed than asked for; those kept are spread over the video.
- *unreadable answer*: the annotator wrote something else than was asked for.
- *declined*: it says itself that no sentence fits the event alone.
- *audio query*: the sentence is about something heard.
- *unclear query*: the sentence refers to something outside it, or tells nothing.
- *absent*, *several*, *inaccurate*: an independent grounding finds the sentence nowhere, at several times, elsewhere.
- *unreadable grounding*: what was asked for the independent grounding did not state one.
- *duplicate*: another annotation of the video asks the same.
"""

_UNCLEAR = frozenset({"refers", "pronoun", "vague"})  # of the reasons of ``unclear_reasons``, those beyond doubt
_SURE = 0.8  # strength of a sign in a pair of queries from which it decides


@dataclass(frozen=True, slots=True)
class Grounding:
    """What one grounder found for a sentence."""

    grounder: str
    spans: tuple[Span, ...]
    iou: float


@dataclass(slots=True)
class Candidate:
    """One proposed event.

    Attributes:
        video: path of its file.
        number: place among the proposals of the video, from 1.
        proposed: as it was proposed; None where the proposal could not be read.
        said: sentence and span as they stand now; None before there are any.
        groundings: what the grounders found for it last.
        repairs: what it was before each repair, and why it was not left so.
        refined: span before its boundaries were refined.
        dropped: why it does not become an annotation; None while it may.
        detail: of the reason, in words.
        error: why it could not be asked about: a video that broke, a request that failed.
    """

    video: str
    number: int
    proposed: Said | None = None
    said: Said | None = None
    groundings: tuple[Grounding, ...] = ()
    repairs: list[tuple[Said, Reason]] = field(default_factory=list)
    refined: Span | None = None
    dropped: Reason | None = None
    detail: str = ""
    error: str | None = None

    @property
    def alive(self) -> bool:
        """Whether it may still become an annotation in this run."""
        return self.dropped is None and self.error is None

    def drop(self, reason: Reason, detail: str = "") -> None:
        """It does not become an annotation."""
        self.dropped, self.detail = reason, detail

    def to_row(self) -> dict[str, Any]:
        """All that is known of it, as JSON types."""
        row: dict[str, Any] = {"number": self.number}
        if self.proposed is not None:
            row["proposed"] = {"event": self.proposed.text, "span": list(self.proposed.span)}
        row["repairs"] = [{"query": was.text, "span": list(was.span), "for": why} for was, why in self.repairs]
        row["groundings"] = [
            {"grounder": g.grounder, "spans": [list(span) for span in g.spans], "iou": round(g.iou, 4)}
            for g in self.groundings
        ]
        if self.refined is not None:
            row["before_refinement"] = list(self.refined)
        return row


def spread(proposals: Sequence[Said], most: int) -> list[int]:
    """Which of the proposals to keep: at most so many, as far apart in time as they go, in their order.

    The earliest is kept; each further one is the farthest from those kept.
    """
    if len(proposals) <= most:
        return list(range(len(proposals)))
    centres = [(said.span.start + said.span.end) / 2 for said in proposals]
    kept = [min(range(len(centres)), key=lambda i: centres[i])]
    while len(kept) < most:
        left = [i for i in range(len(centres)) if i not in kept]
        kept.append(max(left, key=lambda i: min(abs(centres[i] - centres[k]) for k in kept)))
    return sorted(kept)


def fault_of_query(query: str) -> tuple[Reason, str] | None:
    """What is wrong with a sentence whatever the video shows."""
    if is_audio_query(query):
        return "audio query", query
    if reasons := [reason for reason in unclear_reasons(query) if reason in _UNCLEAR]:
        return "unclear query", f"{query!r}: {', '.join(reasons)}"
    return None


def judge(label: Span, answers: Sequence[ParsedAnswer], min_iou: float) -> tuple[Reason, str] | None:
    """What independent groundings say against a label; None where all confirm it: set IoU of at least ``min_iou``."""
    for answer in answers:
        if answer.status is AnswerStatus.DENIED:
            return "absent", "the grounding finds it nowhere"
        if not answer.spans:
            return "unreadable grounding", f"the grounding states no span ({answer.status})"
        iou = set_iou(answer.spans, [label])
        if iou >= min_iou:
            continue
        where = ", ".join(f"{span.start:g} - {span.end:g}" for span in answer.spans)
        if len(answer.spans) > 1 and max(set_iou([span], [label]) for span in answer.spans) >= min_iou:
            return "several", f"the grounding finds it at {where} s"
        return "inaccurate", f"the grounding finds it at {where} s (IoU {iou:.2f})"
    return None


def drop_doubles(candidates: Sequence[Candidate]) -> None:
    """Of annotations that ask the same about a video the earlier one stays, and none that is true of another's time."""
    moments: list[Moment] = []
    by_id: dict[str, Candidate] = {}
    for number, candidate in enumerate(sorted(candidates, key=_order)):
        assert candidate.said is not None
        by_id[str(number)] = candidate
        said = candidate.said
        moments.append(Moment(str(number), candidate.video, candidate.video, said.text, (said.span,), None, "annotate"))
    signs = [sign for sign in pair_evidence(moments) if sign.strength >= _SURE]
    for sign in signs:
        earlier, later = by_id[sign.others[0]], by_id[sign.moment]
        if sign.kind != "several" and int(sign.others[0]) < int(sign.moment) and earlier.alive and later.alive:
            later.drop("duplicate", sign.reason)
    left = {name for name, candidate in by_id.items() if candidate.alive}
    for sign in signs:
        if sign.kind == "several" and left.issuperset((sign.moment, *sign.others)):
            by_id[sign.moment].drop("several", sign.reason)


def _order(candidate: Candidate) -> tuple[str, float, int]:
    assert candidate.said is not None
    return candidate.video, candidate.said.span.start, candidate.number
