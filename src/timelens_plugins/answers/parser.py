"""The one parser: from a model's text to the spans it states."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from timelens_plugins.answers.candidates import Candidate, find_candidates
from timelens_plugins.answers.choice import choose
from timelens_plugins.answers.cleaning import clean, hide_query, spell_shares
from timelens_plugins.answers.denials import find_denials, is_withdrawn, says_absent, says_nothing, stands_alone
from timelens_plugins.answers.negation import Denial, denial
from timelens_plugins.answers.numbers import END_OF_VIDEO
from timelens_plugins.answers.options import keep_chosen_option
from timelens_plugins.answers.ordinary import read_ordinary
from timelens_plugins.answers.regions import HEAD, TAIL, answer_regions
from timelens_plugins.answers.tokens import Tokens, tokenize
from timelens_plugins.answers.vocabulary import Kind, kinds
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
    SWAPPED = "swapped"
    """The first pair ends before it starts."""
    ZERO_LENGTH = "zero_length"
    """Start and end of the first pair are the same."""
    OUTSIDE_CLIP = "outside_clip"
    """The first span lies wholly before 0 s or at or after the end of the clip."""
    NEEDS_DURATION = "needs_duration"
    """It states shares of the clip, or its end, and the length of the clip was not given."""


class ParsedAnswer(NamedTuple):
    """The spans a text states, in its order and without repetitions, and what the text amounted to."""

    spans: list[Span]
    status: AnswerStatus


def parse_spans(
    text: str, *, query: str | None = None, duration: float | None = None, order: bool = False
) -> list[Span]:
    """The spans that a model's answer states, in seconds; empty where it states none. See :func:`parse_answer`.

    >>> parse_spans("The event happens in 3.5 - 12.0 seconds.")
    [Span(start=3.5, end=12.0)]
    >>> parse_spans("<think>maybe 0:10 to 0:20</think><answer>1m5s to 80 seconds</answer>")
    [Span(start=65.0, end=80.0)]
    >>> parse_spans("A person lifts 2 - 3 cups.")
    []
    >>> parse_spans("12.0 - 3.5 seconds"), parse_spans("12.0 - 3.5 seconds", order=True)
    ([], [Span(start=3.5, end=12.0)])
    """
    return parse_answer(text, query=query, duration=duration, order=order).spans


def parse_answer(
    text: str, *, query: str | None = None, duration: float | None = None, order: bool = False
) -> ParsedAnswer:
    """The spans that a model's answer states, and why there are none.

    What a text *states* beats what it mentions: the content of ``<answer>`` beats all else, then a conclusion (``the
    answer is``, ``therefore``), then ``the event happens in``, then start and end keys, then times in prose. Thoughts
    never count. Both times must be written.

    As in the benchmark, the first pair decides: where its end is not after its start, the text is no answer, whatever
    follows, and the status is ``swapped`` or ``zero_length``. The same holds where it lies outside of the clip. Later
    pairs that are no spans are left out.

    Args:
        text: what the model wrote. Any text is read in linear time, and none raises.
        query: the query of the prompt; numbers in an echo of it are not read as times.
        duration: length of the clip in seconds. Spans are cut at it; without it only at 0 s. Shares of the clip (``20%
            to 40%``) and its end (``until the end of the video``) can be read with it alone. Evaluation, rewards and
            difficulty do without it, so that the status is ``needs_duration``: the benchmark's script does not know
            it, and an answer that is worth nothing there is not to be learnt.
        order: the lenient reading instead: swapped ends are put in order, and pairs that are no spans passed over.

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
    cleaned_query = _clean_query(query[: HEAD + TAIL]) if query else None
    if pair := read_ordinary(text, cleaned_query):
        return _finish([pair], duration, order)
    return read_fully(text, cleaned_query, duration, order)


_DIGIT = re.compile("[0-9]")


@lru_cache(maxsize=1024)
def _clean_query(query: str) -> str:
    """The same query is asked again and again."""
    return clean(query).replace("\n", " ")


@lru_cache(maxsize=1024)
def _echoes(query: str) -> tuple[tuple[float, float], ...]:
    """The pairs of times, in seconds, that a cleaned query has itself."""
    return tuple(candidate.seconds for candidate in find_candidates(tokenize(query)))


def read_fully(text: str, query: str | None, duration: float | None, order: bool) -> ParsedAnswer:
    """The answer of any text that says something; the query is cleaned already."""
    regions, in_thought = answer_regions(text)
    results = []
    for region in regions:
        result = _read(region, query, duration, order)
        says_nothing_of_times = result.status is AnswerStatus.CUT_OFF and not _DIGIT.search(region)
        if result.status not in (AnswerStatus.NO_SPAN, AnswerStatus.EMPTY) and not says_nothing_of_times:
            return result
        results.append(result)
    if in_thought:
        return ParsedAnswer([], AnswerStatus.CUT_OFF)
    return results[0]


def _read(region: str, query: str | None, duration: float | None, order: bool) -> ParsedAnswer:
    """The answer of one region."""
    text = clean(region)
    if not text:
        return ParsedAnswer([], AnswerStatus.EMPTY)
    if says_nothing(text):
        return ParsedAnswer([], AnswerStatus.DENIED)
    if query:
        text = hide_query(text, query)
    if duration is not None:
        text = spell_shares(text, duration)
    tokens = tokenize(text)
    candidates = find_candidates(tokens)
    if len(candidates) > 1 and (kept := keep_chosen_option(text)) != text:
        tokens = tokenize(kept)
        candidates = find_candidates(tokens)
    echoes = _echoes(query) if query and candidates else ()
    chosen, standing = choose(candidates, tokens, echoes)
    if chosen and _breaks_off(chosen[-1], tokens):
        chosen = chosen[:-1]
        if not chosen:
            return ParsedAnswer([], AnswerStatus.CUT_OFF)
    if chosen and stands_alone(standing, tokens):
        return _finish([candidate.seconds for candidate in chosen], duration, order)
    denials = find_denials(tokens.text)
    if chosen and not is_withdrawn(chosen, standing, denials, tokens):
        return _finish([candidate.seconds for candidate in chosen], duration, order)
    if chosen or denials or any(denial(c, tokens) is Denial.DENIED for c in candidates):
        return ParsedAnswer([], AnswerStatus.DENIED)
    if duration is None and ("%" in text or "cent" in text) and _read(region, query, 100.0, order).spans:
        return ParsedAnswer([], AnswerStatus.NEEDS_DURATION)
    if says_absent(tokens.text):
        return ParsedAnswer([], AnswerStatus.DENIED)
    cut = _OPEN_END.search(tokens.kinds) is not None
    return ParsedAnswer([], AnswerStatus.CUT_OFF if cut else AnswerStatus.NO_SPAN)


_OPEN_END = re.compile(
    kinds(
        "(?: [dash to happen from between and start end open list] | comma [open list]? | time [dash to] | happen time"
        " | from time | between time | start time | happen [word start and]{1,2} ) [open list newline word]? $"
    )
)


def _breaks_off(last: Candidate, tokens: Tokens) -> bool:
    """``The event happens in 12.5 - 1``: a sentence or bracket ends inside its second number, as that one is less.

    Elsewhere (``17.0 - 12.5``) the two are swapped.
    """
    start, end = last.seconds
    at_end = tokens.places[last.end] == len(tokens.lexemes) - 1
    if not at_end or end >= start or last.unit is not None:
        return False
    brackets = sum(map(tokens.kinds.count, (Kind.OPEN, Kind.LIST))) - tokens.kinds.count(Kind.CLOSE)
    return Kind.HAPPEN in tokens.kinds or brackets > 0


def _finish(stated: Sequence[tuple[float, float]], duration: float | None, order: bool) -> ParsedAnswer:
    """Spans in seconds, cut to the clip, each once; none where the first pair is none, unless ``order`` is lenient."""
    spans: dict[Span, None] = {}
    status = AnswerStatus.NO_SPAN
    for start, end in stated:
        if order and end < start:
            start, end = end, start
        if END_OF_VIDEO in (start, end):
            if duration is None:
                status = AnswerStatus.NEEDS_DURATION
                continue
            start, end = min(start, duration), min(end, duration)
        if start > end:
            status = AnswerStatus.SWAPPED
        elif start == end:
            status = AnswerStatus.ZERO_LENGTH
        elif end <= 0 or (duration is not None and start >= duration):
            status = AnswerStatus.OUTSIDE_CLIP
        else:
            span = Span(max(0.0, start), end)
            clipped = span if duration is None else clip_span(span, duration)
            if clipped and clipped.length > 0:
                spans[clipped] = None
        if not spans and status is not AnswerStatus.NO_SPAN and not order:
            break
    return ParsedAnswer(list(spans), AnswerStatus.PARSED if spans else status)
