"""Which times a text says are not those of the event, before they are written (``not in 3 - 5 s``) or after."""

from __future__ import annotations

import re
from enum import IntEnum

from timelens_plugins.answers.candidates import Candidate
from timelens_plugins.answers.tokens import Tokens
from timelens_plugins.answers.vocabulary import (
    AUXILIARIES,
    EXCEPTIONS,
    FITS,
    GOVERNED,
    NEUTRAL_FOLLOWERS,
    RELATIVES,
    SIGHT,
    VERDICT_NOUNS,
    VERDICTS,
    Kind,
    kinds,
)

__all__ = ["BACK", "LINE", "SENTENCE", "Denial", "denial", "since", "until"]

BACK, _AHEAD = 40, 17  # kinds looked at before and behind a candidate
SENTENCE, LINE = kinds("stop time"), kinds("stop newline time")
_CLAUSE = kinds("stop newline time comma but turn")
_WORDS = kinds("word enter leave")
_ENDS_CLAUSE = frozenset(_CLAUSE)
_UNTIL = re.compile(kinds("not [word happen start enter event]{0,3} [to after]"))
_SET_OFF = frozenset(("'", '"', ":"))
_NO_EVENT = re.compile(kinds("not word{0,2} event [^comma but start end to]{0,12} $"))
_OWN_CLAUSE = frozenset(kinds("and after to start end last happen answer same"))
"""One of these between a negation and the times: they belong to something else."""

_WRONG_AFTER = re.compile(kinds("close? [open list comma stop]? event? and? wrong"))
_WRONG_BEFORE = re.compile(kinds("wrong [answer event word]? $"))
_NOT_AFTER = re.compile(kinds("amid? [happen enter]? not | amid? word{0,4} not [happen enter]"))
_NOT_AT_END = re.compile(kinds("[^time comma but stop newline]{1,8} not (?: [stop comma newline but] | $)"))
_NOT_FITTING = re.compile(kinds("close? ( [open comma stop] word? event? | event? ) word? not"))
_FRONTED = frozenset(("", *kinds("stop newline comma but and turn")))


class Denial(IntEnum):
    """How a text says that the event is not at some times."""

    NONE = 0
    CONTRASTED = 1
    """Something is not so then, and afterwards it is named again (``the man does not sit from 3 to 5 s, he sits …``):
    the answer is another time, if there is another; or else that is what was asked for."""
    DENIED = 2
    """Nothing is to be seen then, or the times are called wrong."""


def since(ends: str, before: str) -> str:
    """The kinds after the last that ends something."""
    return before[1 + max(map(before.rfind, ends)) :]


def until(ends: str, after: str) -> str:
    """The kinds before the first that ends something."""
    for end in ends:
        after = after.partition(end)[0]
    return after


def _until_time(found: str, start: int) -> str:
    """What follows a candidate, as far as it may say something of it."""
    return found[start : start + _AHEAD].partition(Kind.TIME)[0]


def denial(candidate: Candidate, tokens: Tokens) -> Denial:
    """What the text around a candidate says of it."""
    if Kind.WRONG in tokens.kinds and _is_wrong(candidate, tokens):
        return Denial.DENIED
    if Kind.NOT not in tokens.kinds:
        return Denial.NONE
    found = Denial.NONE
    before = tokens.kinds[max(0, candidate.first - BACK) : candidate.first]
    if (place := before.rfind(Kind.NOT)) >= 0 and _ENDS_CLAUSE.isdisjoint(before[place:]):
        clause = since(_CLAUSE, before)
        found = Denial.DENIED if _negated(candidate, clause, tokens) else _denied_before(candidate, clause, tokens)
    if found is not Denial.DENIED and Kind.NOT in _until_time(tokens.kinds, candidate.last + 1):
        found = max(found, _denied_after(candidate, tokens))
    return found


def _negated(candidate: Candidate, clause: str, tokens: Tokens) -> bool:
    """``does not happen in 3 - 5 seconds``: a negation in the clause before it governs the candidate itself."""
    tail = clause[clause.rindex(Kind.NOT) :]
    start = candidate.first - len(tail)
    if tokens.leader(start) == "with":  # "a pumpkin with no face"
        return False
    later = _UNTIL.match(tokens.kinds, start)
    if later and tokens.word(later.end() - 1) != "to":
        return False
    words = [tokens.word(i) for i in range(start + 1, candidate.first) if tokens.kinds[i] in _WORDS]
    if Kind.HAPPEN in tail:
        verb = tail.index(Kind.HAPPEN)
        words = words[: verb - 1]
        quoted = tokens.lexemes[tokens.places[start] : tokens.places[start + verb]]
        if "'" in quoted or '"' in quoted:  # the negation belongs to a quoted query
            return False
        if tokens.word(start) in ("no", "none", "nothing", "nobody") and _NO_EVENT.match(tail):
            return True
    if Kind.START in tail or Kind.END in tail:
        return False
    if candidate.seconds[0] == 0 and candidate.form != "labelled" and len(tail) <= 12 and tokens.word(start).isascii():
        between = tokens.lexemes[tokens.places[start] : tokens.places[candidate.first]]
        if _SET_OFF.isdisjoint(between):  # "does not open the door from 0 to 31 s"
            return True
    return len(tail) <= 6 and all(word in GOVERNED for word in words)


def _denied_before(candidate: Candidate, clause: str, tokens: Tokens) -> Denial:
    """``no dog appears from 3 to 5 s``, ``the man does not sit from 3 to 5 s``."""
    if candidate.form == "labelled":
        return Denial.NONE
    begin = candidate.first - len(clause)
    place = begin + clause.rindex(Kind.NOT)
    tail = tokens.kinds[place + 1 : candidate.first]
    if len(tail) > 12 or not _OWN_CLAUSE.isdisjoint(tail):
        return Denial.NONE
    return _denies(tokens, begin, place, candidate.first)


def _denied_after(candidate: Candidate, tokens: Tokens) -> Denial:
    """``from 3 to 5 s there is no dog``; and as Chinese and Japanese deny, behind what they deny."""
    start = candidate.last + 1
    if not tokens.text.isascii():
        found = _NOT_AFTER.match(tokens.kinds, start) or _NOT_AT_END.match(tokens.kinds, start)
        if found and not tokens.word(found.start() + found[0].rindex(Kind.NOT)).isascii():
            return Denial.DENIED
    if (found := _NOT_FITTING.match(tokens.kinds, start)) and _does_not_fit(found, tokens):
        return Denial.DENIED
    if candidate.form not in ("from", "between") or tokens.kinds[: candidate.first][-1:] not in _FRONTED:
        return Denial.NONE
    start += tokens.kinds[start : start + 1] == Kind.COMMA
    clause = until(_CLAUSE, tokens.kinds[start : start + _AHEAD])
    place = start + clause.find(Kind.NOT)
    if place < start or not _OWN_CLAUSE.isdisjoint(tokens.kinds[start:place].replace(Kind.HAPPEN, "")):
        return Denial.NONE
    found_by = _denies(tokens, start, place, start + len(clause))
    if tokens.word(place) == "nothing" and Kind.HAPPEN in clause:
        return Denial.DENIED
    return found_by if found_by is Denial.DENIED else Denial.NONE


def _does_not_fit(found: re.Match[str], tokens: Tokens) -> bool:
    """``3 - 5 s does not show it``, ``3 - 5 s shows nothing``, ``3 - 5 s. It is not the right moment.``"""
    verb = {tokens.word(i) for i in range(*found.span()) if found.string[i] == Kind.WORD}
    follow = _lexemes(tokens, found.end(), found.end() + 3)
    if tokens.word(found.end() - 1) == "nothing":
        return not found[1] and not FITS.isdisjoint(verb) and EXCEPTIONS.isdisjoint(follow)
    if not AUXILIARIES.issuperset(verb):
        return False
    if not found[1] and not FITS.isdisjoint(follow):
        return True
    verdict = [word for word in follow if word not in ("be", "quite", "the", "my", "final")]
    if verdict[:1] == ["it"]:
        return not verdict[1:2] or not verdict[1].isalpha()
    return bool(verdict) and verdict[0] in VERDICTS and EXCEPTIONS.isdisjoint(verdict)


def _denies(tokens: Tokens, begin: int, place: int, end: int) -> Denial:
    """What the negation at kept token ``place`` denies, in a clause from ``begin`` to ``end``."""
    before = _lexemes(tokens, begin, place)
    negation, after = tokens.word(place), _lexemes(tokens, place + 1, end)
    if not negation.isascii() or negation in ("without", "neither", "nor"):
        return Denial.NONE
    if not RELATIVES.isdisjoint(before) or not EXCEPTIONS.isdisjoint(after) or not _SET_OFF.isdisjoint(after):
        return Denial.NONE
    seen_before = "there" in before[-3:] or not SIGHT.isdisjoint(before[-3:])
    if negation == "no" and place > begin and not seen_before:  # "a man with his hat in no hand"
        return Denial.NONE
    if not SIGHT.isdisjoint(after) or (negation == "no" and seen_before):
        return Denial.DENIED
    repeated = _stems(tokens, place + 1, end) & _stems(tokens, end, end + BACK)
    return Denial.CONTRASTED if repeated else Denial.NONE


def _stems(tokens: Tokens, begin: int, end: int) -> set[str]:
    """How the words that say something begin: ``sit`` and ``sits`` alike."""
    words = {tokens.word(i) for i, kind in enumerate(tokens.kinds[begin:end], begin) if kind == Kind.WORD}
    return {word[:3] for word in words - NEUTRAL_FOLLOWERS if len(word) > 2}


def _lexemes(tokens: Tokens, begin: int, end: int) -> list[str]:
    """The pieces of text between two kept tokens, those that say nothing included."""
    start = tokens.places[begin - 1] + 1 if begin else 0
    stop = tokens.places[end] if end < len(tokens.places) else len(tokens.lexemes)
    return tokens.lexemes[start:stop]


def _is_wrong(candidate: Candidate, tokens: Tokens) -> bool:
    """``3 - 5 s is wrong``, ``the wrong answer: 3 - 5 s``; not ``3 - 5 s, wrong door``."""
    found = _WRONG_AFTER.match(tokens.kinds, candidate.last + 1)
    if found:
        place = tokens.places[found.end() - 1]
        if tokens.lexemes[place + 1 : place + 2] in (['"'], ["'"]):  # a key
            return False
        follower = tokens.follower(found.end() - 1)
        return not follower.isascii() or not follower or follower in NEUTRAL_FOLLOWERS or follower in VERDICT_NOUNS
    before = tokens.kinds[max(0, candidate.first - 3) : candidate.first]
    if not _WRONG_BEFORE.search(before):
        return False
    if before[-1] == Kind.WRONG:
        return tokens.leader(candidate.first) == ":"
    return before[-1] != Kind.WORD or tokens.word(candidate.first - 1) in VERDICT_NOUNS
