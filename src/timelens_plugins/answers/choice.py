"""Which candidates the answer states, and which it only mentions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from enum import IntEnum

from timelens_plugins.answers.candidates import Candidate
from timelens_plugins.answers.tokens import Tokens
from timelens_plugins.answers.vocabulary import (
    EXTENT_VERBS,
    GOVERNED,
    LENGTH_NOUNS,
    MEASURES,
    NEUTRAL_FOLLOWERS,
    TIME_NOUNS,
    TIME_SPAN_NOUNS,
)

__all__ = ["Standing", "choose", "negated"]


class Standing(IntEnum):
    """How firmly a text puts a candidate forward. Only those of the highest standing found are the answer."""

    MENTIONED = 0
    """Not as the time of anything asked for: negated, a length, a count, the video's own extent."""
    TIMED = 1
    """Times in prose, or bare numbers that are the whole answer."""
    LABELLED = 2
    """Under start and end words or keys, or as a list in brackets."""
    HAPPENS = 3
    """Something happens then."""
    EVENT_HAPPENS = 4
    """The event, or ``it``, happens then: the form that the prompt asks for."""
    CONCLUDED = 5
    """Called the answer, or following ``therefore``."""


_BACK = 40  # codes looked at before a candidate
_SENTENCE, _LINE, _CLAUSE = re.compile(r"[.T]"), re.compile(r"[.nT]"), re.compile(r"[.CRnT]")
_LIST_GAP = re.compile(r"[CARg)(\[n]{0,6}(?:nD)?[(\[]{0,2}")
_RESTATED = re.compile(r"C?[(\[]i?|[)]?C?i")
_BRACKETS = frozenset("()[]n.CADgQJ:")
_HEADING = re.compile(r"Q[^TwHn]{0,4}n[n(D\[CFBS]{0,4}$")
_STATES = re.compile(r"H[^TH.nNJ]{0,12}$")
_UNTIL = re.compile(r"N[wHSe]{0,3}[OM]")


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
    standings: list[Standing] = []
    for i, candidate in enumerate(candidates):
        standing = _standing(candidate, tokens, whole)
        follows = i > 0 and _in_one_list(candidates[i - 1], candidate, tokens)
        if follows and (standing or not _counts_something(candidate, tokens)):
            standing = max(standing, standings[-1])
        if standing < Standing.HAPPENS and not whole and candidate.seconds in echoes:
            standing = Standing.MENTIONED
        standings.append(standing)
    stated = _after_correction(list(zip(candidates, standings, strict=True)), tokens)
    best = max((standing for _, standing in stated), default=Standing.MENTIONED)
    if best is Standing.MENTIONED:
        return [], best
    return _without_restatements([c for c, standing in stated if standing is best], tokens), best


def _between(left: Candidate, right: Candidate, tokens: Tokens) -> str:
    return tokens.codes[left.last + 1 : right.first]


def _in_one_list(left: Candidate, right: Candidate, tokens: Tokens) -> bool:
    return bool(_LIST_GAP.fullmatch(_between(left, right, tokens)))


def _share_units(candidates: Sequence[Candidate], tokens: Tokens) -> None:
    """``1-2, 3-4 minutes``: the unit at the end of a list holds for all of it."""
    for left, right in reversed(list(itertools.pairwise(candidates))):
        if left.unit is not None or right.unit in (None, "clock", "edge") or _counts_something(left, tokens):
            continue
        if _in_one_list(left, right, tokens) and "(" not in _between(left, right, tokens):
            left.unit = right.unit


def _is_all(candidates: Sequence[Candidate], tokens: Tokens) -> bool:
    """Whether the text consists of spans and nothing else."""
    covered = [False] * len(tokens.codes)
    for c in candidates:
        covered[c.first : c.last + 1] = [True] * (c.last + 1 - c.first)
    return all(seen or code in _BRACKETS for seen, code in zip(covered, tokens.codes, strict=True))


def _standing(candidate: Candidate, tokens: Tokens, whole: bool) -> Standing:
    codes, first = tokens.codes, candidate.first
    before = codes[max(0, first - _BACK) : first]
    if candidate.a.unit == candidate.b.unit == "edge" or _is_relative(candidate, tokens, before):
        return Standing.MENTIONED
    if negated(candidate, tokens) or _is_extent(candidate, tokens, before):
        return Standing.MENTIONED
    if _counts_something(candidate, tokens) or (_both_years(candidate) and not whole):
        return Standing.MENTIONED
    sentence = _SENTENCE.split(before)[-1]
    line = sentence.rpartition("n")[2]
    if "Q" in line or _HEADING.search(sentence):
        return Standing.CONCLUDED
    if _STATES.search(line):
        subject = line[: line.rindex("H")]
        return Standing.EVENT_HAPPENS if "e" in subject or subject == "" else Standing.HAPPENS
    if candidate.kind in ("labelled", "length", "list"):
        return Standing.LABELLED
    if candidate.unit or whole or candidate.kind in ("between", "from") or not candidate.whole_numbers:
        return Standing.TIMED
    return Standing.TIMED if _is_led(candidate, tokens) else Standing.MENTIONED


def _is_relative(candidate: Candidate, tokens: Tokens, before: str) -> bool:
    """``after 3 - 5 s``, ``for 5 - 10 seconds``, ``5 - 10 seconds long``: no time at which something happens."""
    if candidate.kind in ("labelled", "length"):
        return candidate.kind == "length" and _length_without_unit(candidate, tokens)
    if before[-1:] in ("M", "f", "L") and candidate.kind != "from" and tokens.leader(candidate.first) != ":":
        return True
    return candidate.unit not in (None, "clock") and tokens.follower(candidate.b_index) in LENGTH_NOUNS


def _length_without_unit(candidate: Candidate, tokens: Tokens) -> bool:
    """After ``for`` or ``takes`` a plain number is a length only with a unit; after ``duration`` it needs none."""
    between = tokens.codes[candidate.first : candidate.last + 1]
    return candidate.b.unit is None and "L" not in between


def negated(candidate: Candidate, tokens: Tokens) -> bool:
    """``does not happen in 3 - 5 seconds``: a negation governs the candidate itself."""
    before = _CLAUSE.split(tokens.codes[max(0, candidate.first - _BACK) : candidate.first])[-1]
    if "N" not in before:
        return False
    tail = before[before.rindex("N") :]
    if _UNTIL.match(tokens.codes, candidate.first - len(tail)):
        return False
    start = candidate.first - len(tail)
    words = [t.text for t in tokens.kept[start + 1 : candidate.first] if t.code == "w"]
    if "H" in tail:
        words = words[: tail.index("H") - 1]
        start, verb = tokens.places[start], tokens.places[start + tail.index("H")]
        if any(t.text in "'\"" for t in tokens.full[start:verb]):  # the negation belongs to a quoted query
            return False
    if "S" in tail or "E" in tail:
        return False
    return len(tail) <= 6 and all(word in GOVERNED for word in words)


def _is_extent(candidate: Candidate, tokens: Tokens, before: str) -> bool:
    """``the video runs from 0 to 30 s``: the length of the video itself."""
    sentence = _LINE.split(before)[-1]
    if "V" not in sentence or "e" in sentence or "H" in sentence:
        return False
    start = candidate.first - (len(sentence) - sentence.rindex("V"))
    words = tokens.kept[start + 1 : candidate.first]
    return len(words) <= 4 and any(t.text in EXTENT_VERBS for t in words)


def _counts_something(candidate: Candidate, tokens: Tokens) -> bool:
    """``2 - 3 cups``, ``1.5 - 2.5 kg``, ``the 1st to 3rd``: numbers without a unit that count or name."""
    if candidate.unit is not None:
        return False
    if candidate.a.ordinal or candidate.b.ordinal:
        return True
    if candidate.kind in ("list", "lone"):
        return False
    follower = tokens.follower(candidate.b_index)
    if not candidate.whole_numbers or candidate.kind == "labelled":
        return follower in MEASURES
    return bool(follower) and follower not in NEUTRAL_FOLLOWERS


def _is_led(candidate: Candidate, tokens: Tokens) -> bool:
    """Whether whole numbers without unit are put forward as times.

    By a word of time or a colon before them, or by opening a line or being a sentence of their own.
    """
    before, after = tokens.codes[: candidate.first][-1:], tokens.codes[candidate.last + 1 :][:1]
    if before in ("", "n") or (before == "." and after in ("", ".", "n")):
        return True
    leader = tokens.leader(candidate.first)
    sentence = tokens.full[max(0, tokens.places[candidate.first] - 6) : tokens.places[candidate.first]]
    return leader in TIME_NOUNS or leader == ":" or any(t.text in TIME_SPAN_NOUNS for t in sentence)


def _both_years(candidate: Candidate) -> bool:
    return candidate.whole_numbers and all(1900 <= value <= 2100 for value in (candidate.a.value, candidate.b.value))


def _after_correction(stated: list[tuple[Candidate, Standing]], tokens: Tokens) -> list[tuple[Candidate, Standing]]:
    """Drops what stands before ``wait``, ``actually`` or ``more precisely`` where something stands behind it."""
    last = max((c.first for c, standing in stated if standing), default=0)
    turn = tokens.codes.rfind("K", 0, last)
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
