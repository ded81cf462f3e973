"""Which candidates the answer states, and which it only mentions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from enum import IntEnum

from timelens_plugins.answers.candidates import Candidate
from timelens_plugins.answers.negation import BACK, LINE, SENTENCE, Denial, denial, since, until
from timelens_plugins.answers.tokens import Tokens
from timelens_plugins.answers.vocabulary import (
    COUNTING,
    EXTENT_VERBS,
    LENGTH_NOUNS,
    MEASURES,
    NEUTRAL_FOLLOWERS,
    SHOWS,
    TIME_NOUNS,
    TIME_SPAN_NOUNS,
    VIDEO_WORDS,
    Kind,
    kinds,
)

__all__ = ["Standing", "choose"]


class Standing(IntEnum):
    """How firmly a text puts a candidate forward. Only those of the highest standing found are the answer."""

    MENTIONED = 0
    """Not as the time of anything asked for: negated, a length, a count, the video's own extent."""
    BACKGROUND = 1
    """As an example, or from 0 to behind all others, as the video runs: an answer only where nothing else is."""
    TIMED = 2
    """Times in prose, or bare numbers that are the whole answer."""
    LABELLED = 3
    """Under start and end words or keys, or as a list in brackets."""
    HAPPENS = 4
    """Something happens then."""
    EVENT_HAPPENS = 5
    """The event, or ``it``, happens then: the form that the prompt asks for."""
    CONCLUDED = 6
    """Called the answer, or following ``therefore``."""


_LIST_GAP = re.compile(kinds("[comma and but again close open list newline]{0,6} (?:newline dash)? [open list]{0,2}"))
_LONGEST_GAP = 10
_LISTED = frozenset(kinds("comma and but open list"))
_SHOWS = re.compile(kinds("close? word event (?: [stop newline comma] | $)"))
_RESTATED = re.compile(kinds("comma? [open list] same? | close? comma? same"))
_PUNCTUATION = frozenset(kinds("open close list newline stop comma and dash again answer number"))
_HEADING = re.compile(
    kinds("answer [^time word happen newline]{0,4} newline [newline open dash list comma from between start]{0,4} $")
)
_CLAUSE = kinds("stop newline time comma")
_STATES = re.compile(kinds("happen [^time happen stop newline not number]{0,12} $"))


def choose(
    candidates: Sequence[Candidate], tokens: Tokens, echoes: Sequence[tuple[float, float]]
) -> tuple[list[Candidate], Standing]:
    """The stated candidates in the order of the text, and the standing they share.

    Args:
        candidates: all of them.
        tokens: the text they were found in.
        echoes: pairs of numbers of the query; a candidate that repeats one counts only where it is stated as the time.
    """
    _share_units(candidates, tokens)
    whole = _is_all(candidates, tokens)
    firm = [_standing(candidate, tokens, whole) for candidate in candidates]
    lists = _lists(candidates, tokens)
    standings: list[Standing] = [Standing.MENTIONED] * len(candidates)
    if not _depends_on_all(candidates, tokens):
        # What is denied is looked at where it may decide: one that stands as firmly as any can makes the others idle.
        top = max(firm, default=Standing.MENTIONED)
        for start, stop in lists:
            if top in firm[start:stop]:
                standings[start:stop] = _in_list(candidates, firm, start, stop, tokens, echoes, whole)
        if top and top in standings:
            return _without_restatements(
                [c for c, s in zip(candidates, standings, strict=True) if s is top], tokens
            ), top
    for start, stop in lists:
        standings[start:stop] = _in_list(candidates, firm, start, stop, tokens, echoes, whole)
    if any(c.unit and standing for c, standing in zip(candidates, standings, strict=True)):
        for i, candidate in enumerate(candidates):  # "he counts from 1 to 10. This is from 12 to 15 s."
            if candidate.whole_numbers and tokens.leader(candidate.first) in COUNTING:
                standings[i] = Standing.MENTIONED
    standings = _behind_all(candidates, standings, tokens)
    stated = _after_correction(list(zip(candidates, standings, strict=True)), tokens)
    best = max((standing for _, standing in stated), default=Standing.MENTIONED)
    if best is Standing.MENTIONED:
        return [], best
    return _without_restatements([c for c, standing in stated if standing is best], tokens), best


def _depends_on_all(candidates: Sequence[Candidate], tokens: Tokens) -> bool:
    """Whether how firmly one candidate stands may depend on others outside of its list."""
    if Kind.TURN in tokens.kinds:
        return True
    return any(c.a.value == 0 or (c.whole_numbers and tokens.leader(c.first) in COUNTING) for c in candidates)


def _lists(candidates: Sequence[Candidate], tokens: Tokens) -> list[tuple[int, int]]:
    """Where each list of candidates begins and ends."""
    starts = [i for i, c in enumerate(candidates) if i == 0 or not _in_one_list(candidates[i - 1], c, tokens)]
    return list(itertools.pairwise([*starts, len(candidates)]))


def _in_list(
    candidates: Sequence[Candidate],
    firm: Sequence[Standing],
    start: int,
    stop: int,
    tokens: Tokens,
    echoes: Sequence[tuple[float, float]],
    whole: bool,
) -> list[Standing]:
    """How firmly the candidates of one list stand, as far as that does not depend on those outside of it.

    ``firm``: how firmly each would stand if it were not denied and alone.
    """
    standings: list[Standing] = []
    denied = Denial.NONE
    for i in range(start, stop):
        candidate, standing = candidates[i], firm[i]
        both = i > start and Kind.AND in _between(candidates[i - 1], candidate, tokens)
        denied = max(denial(candidate, tokens), denied if both else Denial.NONE)
        if denied is Denial.DENIED:
            standing = Standing.MENTIONED
        elif denied is Denial.CONTRASTED:
            standing = min(standing, Standing.BACKGROUND)
        elif (
            i > start
            and standing is Standing.TIMED
            and _exemplified(standings[-1], candidates[i - 1], candidate, tokens)
        ):
            standing = Standing.BACKGROUND
        elif i > start and (standing or not _counts_something(candidate, tokens)):
            standing = max(standing, standings[-1])
        if echoes and standing < Standing.HAPPENS and not whole and candidate.seconds in echoes:
            standing = Standing.MENTIONED
        standings.append(standing)
    return standings


def _behind_all(candidates: Sequence[Candidate], standings: list[Standing], tokens: Tokens) -> list[Standing]:
    """``In this 0:00-0:31 video, … from 0:05 to 0:12``: what runs from 0 over all others is the video itself."""
    if len(candidates) < 2 or all(c.a.value != 0 for c in candidates):
        return standings
    stated = [c.seconds for c, standing in zip(candidates, standings, strict=True) if standing]
    longest = max((max(pair) for pair in stated), default=0.0)
    return [
        Standing.BACKGROUND
        if Standing.BACKGROUND < standing < Standing.EVENT_HAPPENS
        and candidate.seconds[0] == 0
        and candidate.seconds[1] >= longest
        and any(pair != candidate.seconds for pair in stated)
        and _speaks_of_video(candidate, tokens)
        else standing
        for candidate, standing in zip(candidates, standings, strict=True)
    ]


def _speaks_of_video(candidate: Candidate, tokens: Tokens) -> bool:
    first, last = candidate.first, candidate.last
    before = len(since(LINE, tokens.kinds[max(0, first - BACK) : first]))
    after = len(until(LINE, tokens.kinds[last + 1 : last + 9]))
    start, stop = tokens.places[first - before] if before else tokens.places[first], last + after
    words = {lexeme.removesuffix("'s") for lexeme in tokens.lexemes[start : tokens.places[stop] + 1]}
    return not VIDEO_WORDS.isdisjoint(words)


def _between(left: Candidate, right: Candidate, tokens: Tokens) -> str:
    return tokens.kinds[left.last + 1 : right.first]


def _in_one_list(left: Candidate, right: Candidate, tokens: Tokens) -> bool:
    between = _between(left, right, tokens)
    if not between and right.form in ("from", "between"):  # "leads 2-1 from 12 to 15 s"
        return False
    return len(between) <= _LONGEST_GAP and bool(_LIST_GAP.fullmatch(between))


def _exemplified(standing: Standing, left: Candidate, right: Candidate, tokens: Tokens) -> bool:
    """``the candidates 3 - 5 s, 12 - 15 s``: what is listed in one line with an example is one, too."""
    between = _between(left, right, tokens)
    return standing is Standing.BACKGROUND and bool(between) and _LISTED.issuperset(between)


def _share_units(candidates: Sequence[Candidate], tokens: Tokens) -> None:
    """``1-2, 3-4 minutes``: the unit at the end of a list holds for all of it."""
    for left, right in reversed(list(itertools.pairwise(candidates))):
        if left.unit is not None or right.unit in (None, "clock", "edge") or _counts_something(left, tokens):
            continue
        if _in_one_list(left, right, tokens) and Kind.OPEN not in _between(left, right, tokens):
            left.unit = right.unit


def _is_all(candidates: Sequence[Candidate], tokens: Tokens) -> bool:
    """Whether the text consists of spans and nothing else."""
    end = 0
    for c in candidates:
        if not _PUNCTUATION.issuperset(tokens.kinds[end : c.first]):
            return False
        end = c.last + 1
    return _PUNCTUATION.issuperset(tokens.kinds[end:])


def _standing(candidate: Candidate, tokens: Tokens, whole: bool) -> Standing:
    before = tokens.kinds[max(0, candidate.first - BACK) : candidate.first]
    if candidate.a.unit == candidate.b.unit == "edge" or _is_relative(candidate, tokens, before):
        return Standing.MENTIONED
    sentence = since(SENTENCE, before)
    line = sentence.rpartition(Kind.NEWLINE)[2]
    if _is_extent(candidate, tokens, line):
        return Standing.MENTIONED
    if _counts_something(candidate, tokens) or (_both_years(candidate) and not whole):
        return Standing.MENTIONED
    if Kind.EXAMPLE in tokens.kinds and Kind.EXAMPLE in sentence + until(
        SENTENCE, tokens.kinds[candidate.last + 1 : candidate.last + 9]
    ):
        return Standing.BACKGROUND
    if _is_asked(candidate, tokens):
        return Standing.BACKGROUND
    if Kind.ANSWER in line or (Kind.ANSWER in sentence and _HEADING.search(sentence)):
        return Standing.CONCLUDED
    if Kind.HAPPEN in line and _STATES.search(line):
        subject = line[: line.rindex(Kind.HAPPEN)]
        return Standing.EVENT_HAPPENS if Kind.EVENT in subject or subject == "" else Standing.HAPPENS
    shows = _SHOWS.match(tokens.kinds, candidate.last + 1)
    if shows and tokens.word(shows[0].index(Kind.WORD) + shows.start()) in SHOWS:
        return Standing.HAPPENS
    if candidate.form in ("labelled", "length", "list"):
        return Standing.LABELLED
    if candidate.unit or whole or candidate.form in ("between", "from") or not candidate.whole_numbers:
        return Standing.TIMED
    return Standing.TIMED if _is_led(candidate, tokens) else Standing.MENTIONED


def _is_asked(candidate: Candidate, tokens: Tokens) -> bool:
    """``Does he wave at 3 - 5 s? …``: the sentence is a question; not ``…, right?``."""
    after = until(_CLAUSE, tokens.kinds[candidate.last + 1 : candidate.last + 9])
    stop = candidate.last + 1 + len(after)
    return stop < len(tokens.kinds) and tokens.word(stop) == "?"


def _is_relative(candidate: Candidate, tokens: Tokens, before: str) -> bool:
    """``after 3 - 5 s``, ``for 5 - 10 seconds``, ``5 - 10 seconds long``: no time at which something happens."""
    if candidate.form in ("labelled", "length"):
        return candidate.form == "length" and _length_without_unit(candidate, tokens)
    if (
        before[-1:] in (Kind.AFTER, Kind.FOR, Kind.LAST)
        and candidate.form != "from"
        and tokens.leader(candidate.first) not in (":", "at")  # "people walk by at 3 - 5 s"
    ):
        return True
    return candidate.unit not in (None, "clock") and tokens.follower(candidate.end) in LENGTH_NOUNS


def _length_without_unit(candidate: Candidate, tokens: Tokens) -> bool:
    """After ``for`` or ``takes`` a plain number is a length only with a unit; after ``duration`` it needs none."""
    between = tokens.kinds[candidate.first : candidate.last + 1]
    return candidate.b.unit is None and Kind.LAST not in between


def _is_extent(candidate: Candidate, tokens: Tokens, line: str) -> bool:
    """``the video runs from 0 to 30 s``: the length of the video itself."""
    if Kind.VIDEO not in line and Kind.EVENT not in line:
        return False
    place = tokens.places[candidate.first]
    words = tokens.lexemes[max(0, place - 7) : place]
    if "which" in words and not EXTENT_VERBS.isdisjoint(words[words.index("which") + 1 :]):
        return not VIDEO_WORDS.isdisjoint(words[: words.index("which")])
    if Kind.VIDEO not in line or Kind.EVENT in line or Kind.HAPPEN in line:
        return False
    start = candidate.first - (len(line) - line.rindex(Kind.VIDEO))
    words = [tokens.word(i) for i in range(start + 1, candidate.first)]
    return len(words) <= 4 and not EXTENT_VERBS.isdisjoint(words)


def _counts_something(candidate: Candidate, tokens: Tokens) -> bool:
    """``2 - 3 cups``, ``1.5 - 2.5 kg``, ``the 1st to 3rd``: numbers without a unit that count or name."""
    if candidate.unit is not None:
        return False
    if candidate.a.ordinal or candidate.b.ordinal:
        return True
    if candidate.form in ("list", "lone"):
        return False
    follower = tokens.follower(candidate.end)
    if not candidate.whole_numbers or candidate.form == "labelled":
        return follower in MEASURES
    return bool(follower) and follower not in NEUTRAL_FOLLOWERS


def _is_led(candidate: Candidate, tokens: Tokens) -> bool:
    """Whether whole numbers without unit are put forward as times.

    By a word of time or a colon before them, or by opening a line or being a sentence of their own.
    """
    before, after = tokens.kinds[: candidate.first][-1:], tokens.kinds[candidate.last + 1 :][:1]
    if before in ("", Kind.NEWLINE) or (before == Kind.STOP and after in ("", Kind.STOP, Kind.NEWLINE)):
        return True
    leader, place = tokens.leader(candidate.first), tokens.places[candidate.first]
    words = tokens.lexemes[max(0, place - 6) : place]
    return leader in TIME_NOUNS or leader == ":" or not TIME_SPAN_NOUNS.isdisjoint(words)


def _both_years(candidate: Candidate) -> bool:
    return candidate.whole_numbers and all(1900 <= value <= 2100 for value in (candidate.a.value, candidate.b.value))


def _after_correction(stated: list[tuple[Candidate, Standing]], tokens: Tokens) -> list[tuple[Candidate, Standing]]:
    """Drops what stands before ``wait``, ``actually`` or ``more precisely`` where something stands behind it."""
    last = max((c.first for c, standing in stated if standing), default=0)
    turn = tokens.kinds.rfind(Kind.TURN, 0, last)
    return [(c, standing) for c, standing in stated if c.first > turn]


def _without_restatements(chosen: list[Candidate], tokens: Tokens) -> list[Candidate]:
    """``00:05 - 00:09 (5.2 - 9.1 s)`` is one span said twice: the one with a unit stays, or else the first."""
    kept: list[Candidate] = []
    for candidate in chosen:
        if kept and _RESTATED.fullmatch(_between(kept[-1], candidate, tokens)):
            if kept[-1].unit is None and candidate.unit is not None:
                kept[-1] = candidate
        else:
            kept.append(candidate)
    return kept
