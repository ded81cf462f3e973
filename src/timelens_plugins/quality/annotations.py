"""Checks that need the annotations alone: fields, spans, repetitions, characters of queries."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

from timelens_plugins.moments import LoadedMoments, Moment
from timelens_plugins.quality.problems import Problem
from timelens_plugins.quality.wording import same_words

__all__ = ["annotation_problems"]

_DURATION_SLACK = 0.5  # seconds by which two statements of one video's length may differ

# Categories of Unicode that no annotator types: control, format, private use, surrogate, unassigned.
_ODD_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Cn"})


def annotation_problems(loaded: LoadedMoments) -> Iterator[Problem]:
    """Everything that is wrong with annotations read with ``on_error="skip"``, whatever the videos are."""
    for fault in loaded.report.skipped:
        field = f"field {fault.field!r}: " if fault.field else ""
        yield Problem("schema", fault.row or fault.file, f"{field}{fault.reason}")
    for moment in loaded:
        yield from _spans(moment)
        if odd := _odd_characters(moment.query):
            yield Problem("odd_query", moment.id, f"{odd} in {moment.query!r}", (moment.id,))
    yield from _durations(loaded)
    yield from _repetitions(loaded)


def _spans(moment: Moment) -> Iterator[Problem]:
    if "zero_length_span" in moment.flags:
        spans = [list(span) for span in moment.spans if span.start == span.end]
        yield Problem("zero_length_span", moment.id, f"{spans}", (moment.id,))
    if "span_beyond_duration" in moment.flags and moment.duration is not None:
        end = max(span.end for span in moment.spans)
        reason = f"ends at {end:g} s, the duration is {moment.duration:g} s"
        yield Problem("span_beyond_duration", moment.id, reason, (moment.id,))


def _odd_characters(query: str) -> str:
    if query.isascii() and query.isprintable():
        return ""
    odd = sorted({c for c in query if unicodedata.category(c) in _ODD_CATEGORIES or c == "\ufffd"})
    return ", ".join(f"U+{ord(c):04X}" for c in odd)


def _durations(moments: Sequence[Moment]) -> Iterator[Problem]:
    stated: dict[tuple[str, float | None, float | None], list[Moment]] = defaultdict(list)
    for moment in moments:
        if moment.duration is not None:
            stated[moment.video_id, moment.video_start, moment.video_end].append(moment)
    for (video, _, _), group in stated.items():
        lengths = [moment.duration for moment in group if moment.duration is not None]
        if max(lengths) - min(lengths) > _DURATION_SLACK:
            said = ", ".join(f"{length:g}" for length in sorted(set(lengths)))
            yield Problem("several_durations", video, f"stated as {said} s", tuple(m.id for m in group))


def _repetitions(moments: Sequence[Moment]) -> Iterator[Problem]:
    asked: dict[tuple[str, float | None, float | None, str], list[Moment]] = defaultdict(list)
    for moment in moments:
        asked[moment.video_id, moment.video_start, moment.video_end, same_words(moment.query)].append(moment)
    for group in asked.values():
        if len(group) == 1:
            continue
        by_spans: dict[tuple[tuple[float, float], ...], list[Moment]] = defaultdict(list)
        for moment in group:
            by_spans[tuple((span.start, span.end) for span in moment.spans)].append(moment)
        for first, *again in by_spans.values():
            for moment in again:
                yield Problem("duplicate", moment.id, f"{moment.query!r} as {first.id}", (first.id, moment.id))
        if len(by_spans) > 1:
            spans = "; ".join(", ".join(f"{a:g} - {b:g}" for a, b in key) for key in by_spans)
            first = group[0]
            reason = f"{first.query!r} about {first.video_id} has {len(by_spans)} answers: {spans} s"
            yield Problem("repeated_query", first.id, reason, tuple(m.id for m in group))
