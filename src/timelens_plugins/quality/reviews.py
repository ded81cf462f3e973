"""What reviewers decided: read, checked, applied to the annotations, and two of them merged with their agreement.

Agreement on what to do with a moment is Cohen's kappa (J. Cohen, Educational and Psychological Measurement, 1960) over
*keep*, *change* and *reject*; agreement on where the event is, the mean IoU of the spans that both leave.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from timelens_plugins.moments import Moment
from timelens_plugins.spans import Span, set_iou

__all__ = ["Agreement", "Decision", "Part", "Review", "apply_review", "digest_of", "merge_reviews", "read_review"]

Action = Literal["accept", "edit", "split", "reject"]
ACTIONS: tuple[Action, ...] = get_args(Action)

SAME_SPAN = 0.9
"""IoU from which two reviewers' spans are one answer; the first reviewer's is then taken."""

_HUNDREDTH = 0.01  # seconds: times are typed in hundredths, so the end of a clip may be rounded up


@dataclass(frozen=True, slots=True)
class Part:
    """A query and its spans in seconds, as a reviewer left them."""

    query: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """About one moment. ``parts`` are what becomes of it: one for *edit*, several for *split*, none otherwise."""

    moment: str
    action: Action
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Review:
    """One reviewer's decisions about one annotation file, by moment.

    ``faults`` are decisions that could not be read, a sentence each.
    """

    file: str
    digest: str
    reviewer: str
    decisions: Mapping[str, Decision]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two reviewers.

    Attributes:
        both: moments that both decided.
        same: of these, decided alike.
        kappa: chance-corrected; None where there is nothing to correct (no moment, or everyone always decides alike).
        iou: mean IoU of the spans where both left one; None where neither did.
        conflicts: ids of moments that stay as annotated because the two disagree.
    """

    both: int
    same: int
    kappa: float | None
    iou: float | None
    conflicts: tuple[str, ...]


def digest_of(moments: Sequence[Moment]) -> str:
    """Tells annotation files apart by what is in them."""
    text = "\n".join(json.dumps([m.id, m.query, [list(s) for s in m.spans]]) for m in moments)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def read_review(path: str | Path, moments: Sequence[Moment]) -> Review:
    """A review that the page exported, held against the annotations it is about.

    A decision that does not fit (an unknown moment, an action or a span that cannot be) is left out and named in
    ``faults``; the others count.

    Raises:
        ValueError: not a review, or one of other annotations.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != "timelens-review":
        raise ValueError(f"{path}: not a review exported from a page of `timelens review`")
    if content.get("digest") != digest_of(moments):
        raise ValueError(
            f"{path}: a review of other annotations ({content.get('annotations')!r}); give those the page was made of"
        )
    known = {moment.id: moment for moment in moments}
    decisions: dict[str, Decision] = {}
    faults: list[str] = []
    rows = content.get("decisions")
    if not isinstance(rows, list):
        raise ValueError(f"{path}: has no list of decisions")
    for number, row in enumerate(rows, 1):
        try:
            decision = _decision(row, known)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            faults.append(f"{path}, decision {number}: {error}")
            continue
        if decision.moment in decisions:
            faults.append(f"{path}, decision {number}: {decision.moment!r} is decided twice; the first counts")
            continue
        decisions[decision.moment] = decision
    return Review(
        str(content.get("annotations", "")),
        content["digest"],
        str(content.get("reviewer", "")),
        decisions,
        tuple(faults),
    )


def _decision(row: Any, known: Mapping[str, Moment]) -> Decision:
    if not isinstance(row, dict):
        raise ValueError(f"an object was expected, got {type(row).__name__}")
    if (moment := known.get(str(row.get("moment")))) is None:
        raise ValueError(f"no moment {row.get('moment')!r} in the annotations")
    if (action := row.get("action")) not in ACTIONS:
        raise ValueError(f"unknown action {action!r}; known: {', '.join(ACTIONS)}")
    parts = tuple(_part(part, moment) for part in row.get("parts") or ())
    wanted = {"edit": 1, "split": 2}.get(action, 0)
    if len(parts) < wanted or (action != "split" and len(parts) > wanted):
        raise ValueError(f"{action} of {moment.id!r} with {len(parts)} parts")
    return Decision(moment.id, action, parts)


def _part(part: Any, moment: Moment) -> Part:
    query = part["query"]
    if not isinstance(query, str) or not query.strip():
        raise ValueError(f"an empty query for {moment.id!r}")
    if re.search("[\0\ud800-\udfff]", query):
        raise ValueError(f"a query for {moment.id!r} that no file can hold: {query!a}")
    spans = tuple(Span(float(a), float(b)) for a, b in part["spans"])
    if not spans:
        raise ValueError(f"no span for {moment.id!r}")
    latest = max((moment.duration or float("inf")) + _HUNDREDTH, *(span.end for span in moment.spans))
    for span in spans:
        if not 0 <= span.start < span.end < float("inf"):
            raise ValueError(f"{list(span)} for {moment.id!r} is no span")
        if moment.duration is not None and span.start >= moment.duration:
            raise ValueError(f"{list(span)} for {moment.id!r} starts after the clip of {moment.duration:g} s")
        if span.end > latest:
            raise ValueError(f"{list(span)} for {moment.id!r} ends after the clip of {moment.duration:g} s")
    return Part(query, spans)


def apply_review(moments: Sequence[Moment], decisions: Mapping[str, Decision]) -> list[Moment]:
    """The annotations as decided. What nobody decided stays; parts of a split get the id and ``/1``, ``/2`` …

    Raises:
        ValueError: a part would get the id of another moment.
    """
    kept: list[Moment] = []
    taken = {moment.id for moment in moments}
    for moment in moments:
        decision = decisions.get(moment.id)
        if decision is None or decision.action == "accept":
            kept.append(moment)
        elif decision.action != "reject":
            for number, part in enumerate(decision.parts, 1):
                name = f"{moment.id}/{number}" if len(decision.parts) > 1 else moment.id
                if name != moment.id and name in taken:
                    raise ValueError(f"{moment.id!r} is split, and its part {name!r} has the id of another moment")
                kept.append(replace(moment.relabelled(part.query, part.spans), id=name))
    return kept


def merge_reviews(moments: Sequence[Moment], first: Review, second: Review) -> tuple[dict[str, Decision], Agreement]:
    """Decisions that one or both made alike, and how far the two agree.

    Of two changes whose queries are equal and whose spans overlap by :data:`SAME_SPAN`, the first reviewer's is taken.
    Everything else that the two see differently is a conflict and stays as annotated.
    """
    merged: dict[str, Decision] = {}
    conflicts: list[str] = []
    labels: list[tuple[str, str]] = []
    overlaps: list[float] = []
    for moment in moments:
        a, b = first.decisions.get(moment.id), second.decisions.get(moment.id)
        if a is None or b is None:
            if (only := a or b) is not None:
                merged[moment.id] = only
            continue
        labels.append((_label(a), _label(b)))
        left, right = _left(moment, a), _left(moment, b)
        if left and right:
            overlaps.append(set_iou([s for p in left for s in p.spans], [s for p in right for s in p.spans]))
        if _alike(left, right):
            merged[moment.id] = a
        else:
            conflicts.append(moment.id)
    agreement = Agreement(
        both=len(labels),
        same=len(labels) - len(conflicts),
        kappa=_kappa(labels),
        iou=sum(overlaps) / len(overlaps) if overlaps else None,
        conflicts=tuple(conflicts),
    )
    return merged, agreement


def _label(decision: Decision) -> str:
    return {"accept": "keep", "reject": "reject"}.get(decision.action, "change")


def _left(moment: Moment, decision: Decision) -> tuple[Part, ...]:
    if decision.action == "accept":
        return (Part(moment.query, moment.spans),)
    return decision.parts


def _alike(a: Sequence[Part], b: Sequence[Part]) -> bool:
    return len(a) == len(b) and all(
        x.query.strip() == y.query.strip() and set_iou(x.spans, y.spans) >= SAME_SPAN for x, y in zip(a, b, strict=True)
    )


def _kappa(labels: Sequence[tuple[str, str]]) -> float | None:
    if not labels:
        return None
    names = {name for pair in labels for name in pair}
    n = len(labels)
    observed = sum(a == b for a, b in labels) / n
    expected = sum(sum(a == k for a, _ in labels) * sum(b == k for _, b in labels) for k in names) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)
