"""The one parser: from a model's text to the spans it states."""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import NamedTuple

from timelens_plugins.answers.candidates import Candidate, find_candidates
from timelens_plugins.answers.choice import choose, negated
from timelens_plugins.answers.cleaning import clean, hide_query
from timelens_plugins.answers.denials import find_denials, is_withdrawn, says_nothing
from timelens_plugins.answers.regions import HEAD, TAIL, answer_regions
from timelens_plugins.answers.tokens import END_OF_VIDEO, Tokens, tokenize
from timelens_plugins.spans import Span, clip_span

__all__ = ["AnswerStatus", "ParsedAnswer", "parse_answer", "parse_spans"]


class AnswerStatus(StrEnum):
    """What a text amounted to. Every status but ``PARSED`` goes with an empty list of spans."""

    PARSED = "parsed"
    EMPTY = "empty"
    """No text at all."""
    NO_SPAN = "no_span"
    """Text without two times that are put forward as start and end."""
    DENIED = "denied"
    """It says that the event does not happen."""
    CUT_OFF = "cut_off"
    """It breaks off before the answer: inside a thought, or after the first time."""
    ZERO_LENGTH = "zero_length"
    """Start and end are the same."""
    OUTSIDE_CLIP = "outside_clip"
    """The span lies wholly before 0 s or at or after the end of the clip."""


class ParsedAnswer(NamedTuple):
    """The spans a text states, in its order and without repetitions, and what the text amounted to."""

    spans: list[Span]
    status: AnswerStatus


def parse_spans(text: str, *, query: str | None = None, duration: float | None = None) -> list[Span]:
    """The spans that a model's answer states, in seconds; empty where it states none. See :func:`parse_answer`.

    >>> parse_spans("The event happens in 3.5 - 12.0 seconds.")
    [Span(start=3.5, end=12.0)]
    >>> parse_spans("<think>maybe 0:10 to 0:20</think><answer>1m5s to 80 seconds</answer>")
    [Span(start=65.0, end=80.0)]
    >>> parse_spans("A person lifts 2 - 3 cups.")
    []
    """
    return parse_answer(text, query=query, duration=duration).spans


def parse_answer(text: str, *, query: str | None = None, duration: float | None = None) -> ParsedAnswer:
    """The spans that a model's answer states, and why there are none.

    What a text *states* beats what it mentions: the content of ``<answer>`` beats all else, then a conclusion (``the
    answer is``, ``therefore``), then ``the event happens in``, then start and end keys, then times in prose. Thoughts
    never count. Both times must be written; swapped ones are put in order, spans of no length are not answers.

    Args:
        text: what the model wrote. Any text is read in linear time, and none raises.
        query: the query of the prompt; numbers in an echo of it are not read as times.
        duration: length of the clip in seconds. Spans are cut at it; without it only at 0 s.

    Raises:
        TypeError: ``text`` or ``query`` is not text.
        ValueError: ``duration`` is not a positive number.
    """
    if not isinstance(text, str):
        raise TypeError(f"an answer is text, got {type(text).__name__}")
    if query is not None and not isinstance(query, str):
        raise TypeError(f"a query is text, got {type(query).__name__}")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    if not text.strip():
        return ParsedAnswer([], AnswerStatus.EMPTY)
    regions, in_thought = answer_regions(text)
    cleaned_query = clean(query[: HEAD + TAIL]).replace("\n", " ") if query else None
    results = []
    for region in regions:
        result = _read(region, cleaned_query, duration)
        if result.status not in (AnswerStatus.NO_SPAN, AnswerStatus.EMPTY):
            return result
        results.append(result)
    if in_thought:
        return ParsedAnswer([], AnswerStatus.CUT_OFF)
    return results[0]


def _read(region: str, query: str | None, duration: float | None) -> ParsedAnswer:
    """The answer of one region."""
    text = clean(region)
    if not text:
        return ParsedAnswer([], AnswerStatus.EMPTY)
    if says_nothing(text):
        return ParsedAnswer([], AnswerStatus.DENIED)
    if query:
        text = hide_query(text, query)
    tokens = tokenize(text)
    candidates = find_candidates(tokens)
    echoes = [c.seconds for c in find_candidates(tokenize(query))] if query and candidates else []
    chosen, standing = choose(candidates, tokens, echoes)
    denials = find_denials(text)
    if chosen and _breaks_off(chosen[-1], tokens):
        chosen = chosen[:-1]
        if not chosen:
            return ParsedAnswer([], AnswerStatus.CUT_OFF)
    if chosen and not is_withdrawn(chosen, standing, denials, tokens):
        return _finish(chosen, duration)
    if denials or any(negated(c, tokens) for c in candidates):
        return ParsedAnswer([], AnswerStatus.DENIED)
    cut = _OPEN_END.search(tokens.codes) is not None
    return ParsedAnswer([], AnswerStatus.CUT_OFF if cut else AnswerStatus.NO_SPAN)


_OPEN_END = re.compile(r"(?:[DOHFBASE(\[]|C[(\[]?|T[DO]|HT|FT|BT|ST|H[wSA]{1,2})[(\[nw]?$")


def _breaks_off(last: Candidate, tokens: Tokens) -> bool:
    """``The event happens in 12.5 - 1``: a sentence or bracket ends inside its second number, as that one is less.

    Elsewhere (``17.0 - 12.5``) the two are taken to be swapped.
    """
    start, end = last.seconds
    is_open = "H" in tokens.codes or sum(map(tokens.codes.count, "([")) > tokens.codes.count(")")
    return last.b is tokens.full[-1] and end < start and last.unit is None and is_open


def _finish(chosen: list[Candidate], duration: float | None) -> ParsedAnswer:
    """Spans in seconds, ordered, cut to the clip, each once."""
    spans: dict[Span, None] = {}
    status = AnswerStatus.NO_SPAN
    for candidate in chosen:
        start, end = sorted(candidate.seconds)
        if end == END_OF_VIDEO:
            if duration is None:
                continue
            end = duration
        if start == end:
            status = AnswerStatus.ZERO_LENGTH
        elif end <= 0 or (duration is not None and start >= duration):
            status = AnswerStatus.OUTSIDE_CLIP
        else:
            span = Span(max(0.0, start), end)
            clipped = span if duration is None else clip_span(span, duration)
            if clipped and clipped.length > 0:
                spans[clipped] = None
    return ParsedAnswer(list(spans), AnswerStatus.PARSED if spans else status)
