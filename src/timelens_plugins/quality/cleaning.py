"""An audit's findings taken at their word: what is likely wrong is mended where a sign says how, and else left out.

A person who reviews findings decides better. This is for sets that are too large for that, and to measure what cleaning
is worth.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from timelens_plugins.moments import Moment
from timelens_plugins.moments.rows import TIME_TOLERANCE
from timelens_plugins.quality.findings import Finding
from timelens_plugins.quality.repair import Change, relabelling
from timelens_plugins.spans import Span

__all__ = ["clean"]

_BETTER_SPAN = frozenset({"no change at its ends", "answers agree elsewhere", "answer elsewhere"})
"""Signals whose spans are where the event is instead, and not what the label is compared with."""


def clean(
    moments: Sequence[Moment], findings: Iterable[Finding], threshold: float = 0.5, *, mend: bool = True
) -> tuple[list[Moment], list[Change]]:
    """The moments without what is likely wrong, and every change.

    Args:
        moments: in any order, which is kept.
        findings: of :func:`~timelens_plugins.quality.auditing.audit` on them.
        threshold: score from which a finding counts.
        mend: give a moment whose only error is an inaccurate span the better one, where a sign names it; without, it is
            left out like the others.

    Raises:
        ValueError: a threshold outside 0..1, or a finding of a moment that is not there.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie between 0 and 1, got {threshold}")
    known = {moment.id for moment in moments}
    likely: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.moment not in known:
            raise ValueError(f"a finding is about moment {finding.moment!r}, which the annotations do not hold")
        if finding.score >= threshold:
            likely[finding.moment].append(finding)
    kept: list[Moment] = []
    changes: list[Change] = []
    for moment in moments:
        found = likely.get(moment.id, [])
        if not found:
            kept.append(moment)
            continue
        span = _better_span(found, moment.duration) if mend else None
        if span is None:
            worst = max(found, key=lambda finding: finding.score)
            changes.append(Change(moment.id, "moment", moment.to_row(), None, worst.kind))
        else:
            kept.append(moment.relabelled(moment.query, (span,)))
            changes += relabelling(moment, kept[-1], "inaccurate")
    return kept, changes


def _better_span(findings: Sequence[Finding], duration: float | None) -> Span | None:
    """Where the event is instead; None where more than the span is wrong, or no sign says a time within the clip."""
    if {finding.kind for finding in findings} != {"inaccurate"}:
        return None
    for sign in findings[0].evidence:
        if sign.signal in _BETTER_SPAN and len(sign.spans) == 1:
            span = Span(*sign.spans[0])
            if 0 <= span.start < span.end and (duration is None or span.end <= duration + TIME_TOLERANCE):
                return span
    return None
