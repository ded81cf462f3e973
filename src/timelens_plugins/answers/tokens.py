"""Text to tokens: times with their unit, joiners, and the kind of every word.

One pass of one pattern splits the text; a dictionary says what each piece is. What depends on what stands around it (is
``-5`` a negative number? does ``seconds`` belong to the number behind it?) is settled afterwards, where it occurs.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Set
from dataclasses import dataclass, field

from timelens_plugins.answers.numbers import END_OF_VIDEO, NUMBER_LIKE, Time, read_time
from timelens_plugins.answers.phrases import PHRASES
from timelens_plugins.answers.vocabulary import (
    AT_WORDS,
    CJK_WORDS,
    KEY_UNITS,
    LONE_UNITS,
    MEASURES,
    NEUTRAL_FOLLOWERS,
    PREPOSITIONS,
    Kind,
    kinds,
    word_kind,
)

__all__ = ["Tokens", "tokenize"]

_LETTER = r"a-z\u00df-\u1fff"
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_CJK_KINDS = {word: kind for kind, words in CJK_WORDS.items() for word in words.split()}
_MARKS = {
    **dict.fromkeys("({<", Kind.OPEN), "[": Kind.LIST, **dict.fromkeys(")}]>", Kind.CLOSE),
    **dict.fromkeys(",;|", Kind.COMMA), **dict.fromkeys(".!?", Kind.STOP), "&": Kind.AND,
    **dict.fromkeys("#$€£", Kind.LABEL), **dict.fromkeys("/±×", Kind.WORD), "\n": Kind.NEWLINE,
}  # fmt: skip

_LEXEME = re.compile(
    r"(?: (?![-= ]))?+("  # a space that no dash needs is passed over at once
    + "|".join(
        (
            rf"[{_LETTER}]++(?:[_'][{_LETTER}0-9]++)*+(?![0-9_])",
            rf"(?=\.?[0-9])(?:{NUMBER_LIKE})",
            r"[a-z_]++[0-9][a-z0-9_]*+",  # a name with digits
            rf"[{_LETTER}]++(?:[_'][{_LETTER}0-9]++)*+",
            rf"(?=[{_CJK}])(?:{'|'.join(sorted(_CJK_KINDS, key=len, reverse=True))})",
            r" ?(?:-+>?|=+>) ?|~+|\.{2,}",
            r"[^ ]",
        )
    )
    + ")"
)
_PHRASES = [(re.compile(pattern), word) for _, pattern, word in PHRASES]
_PHRASE_GROUPS = [tuple(frozenset(group.split()) for group in words.split(";")) for words, *_ in PHRASES]
_PHRASE_WORD_SET = frozenset().union(*(group for groups in _PHRASE_GROUPS for group in groups))
_PHRASES_OF = {w: [i for i, (first, *_) in enumerate(_PHRASE_GROUPS) if w in first] for w in _PHRASE_WORD_SET}
_NAME_WITH_DIGITS = re.compile(r"[a-z_]+[0-9][a-z0-9_]*")


class _KindOf(dict[str, str]):
    """The kind of a piece of text, remembered: answers use few words, and looking them up is what a long one costs."""

    def __missing__(self, lexeme: str) -> str:
        kind = _kind_of(lexeme).value
        if len(lexeme) <= 40:
            if len(self) >= 50_000:
                self.clear()
            self[lexeme] = kind
        return kind


def _kind_of(lexeme: str) -> Kind:
    if lexeme[0].isdecimal() or (lexeme[0] == "." and lexeme[1:2].isdecimal()):
        return Kind.TIME if read_time(lexeme) else Kind.NUMBER
    if kind := _MARKS.get(lexeme) or _CJK_KINDS.get(lexeme):
        return kind
    if _NAME_WITH_DIGITS.fullmatch(lexeme):
        return Kind.LABEL if word_kind(lexeme) is Kind.LABEL else Kind.NUMBER
    if lexeme[0].isalpha():
        return word_kind(lexeme)
    if lexeme == "...":
        return Kind.DOTS
    if lexeme[0] == "~":
        return Kind.TILDE
    dash = lexeme.strip()
    if dash == "-":
        return Kind.MINUS
    return Kind.DASH if len(dash) > 1 and dash[0] in "-=." else Kind.SKIP


_KIND_OF_LEXEME = _KindOf()
_SAYS_SOMETHING = bytes(chr(code) != Kind.SKIP for code in range(256))


@dataclass(slots=True)
class Tokens:
    """A tokenised text.

    Attributes:
        text: the cleaned text, with phrases as the words they are read as.
        lexemes: its pieces, without spaces.
        all_kinds: the kind of each.
        times: of the pieces that are times, by their place among ``lexemes``.
        kinds: the kinds without those that say nothing; what patterns are matched against.
        places: where each of them stands among ``lexemes``.
    """

    text: str
    lexemes: list[str]
    all_kinds: list[str]
    times: dict[int, Time]
    kinds: str = field(init=False)
    places: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """``kinds`` and ``places`` after a change of ``all_kinds``."""
        found = "".join(self.all_kinds)
        self.kinds = found.replace(Kind.SKIP, "")
        self.places = list(itertools.compress(range(len(found)), found.encode().translate(_SAYS_SOMETHING)))

    def word(self, index: int) -> str:
        """The text of kept token ``index``."""
        return self.lexemes[self.places[index]]

    def time(self, index: int) -> Time:
        """The time that kept token ``index`` is."""
        return self.times[self.places[index]]

    def follower(self, index: int) -> str:
        """The word right after kept token ``index`` on the same line, or ``""``."""
        return _word_at(self.lexemes, self.places[index] + 1)

    def leader(self, index: int) -> str:
        """The text of the token right before kept token ``index``, or ``""``."""
        place = self.places[index]
        return self.lexemes[place - 1].strip() if place else ""

    def is_led(self, index: int) -> bool:
        """Whether ``at`` or its like stand before kept token ``index``, with nothing but fillers between."""
        return _is_led(self.places[index], self.lexemes, self.all_kinds)

    def index_at(self, offset: int) -> int:
        """How many kept tokens stand before a character of the text."""
        return bisect.bisect_left(self.places, len(_LEXEME.findall(self.text[:offset])))


def _is_led(place: int, lexemes: list[str], all_kinds: list[str]) -> bool:
    while place and all_kinds[place - 1] == Kind.SKIP and lexemes[place - 1] not in AT_WORDS:
        place -= 1
    return place > 0 and lexemes[place - 1] in AT_WORDS


def _word_at(lexemes: list[str], place: int) -> str:
    text = lexemes[place] if place < len(lexemes) else ""
    return text if text[:1].isalpha() or text == "%" else ""  # a dash alone has spaces around it


def tokenize(text: str) -> Tokens:
    """The tokens of a cleaned text."""
    lexemes = _LEXEME.findall(text)
    if held := _PHRASE_WORD_SET.intersection(lexemes):
        plain = _read_phrases(text, held)
        if plain != text:
            text, lexemes = plain, _LEXEME.findall(plain)
    found = "".join(map(_KIND_OF_LEXEME.__getitem__, lexemes))
    all_kinds = list(found)
    places = [match.start() for match in _TIME.finditer(found)]
    times = {i: time for i in places if (time := read_time(lexemes[i]))}
    for unsettled in _UNSETTLED.finditer(found):
        _settle(unsettled.start(), lexemes, all_kinds, times)
    if "_" in text:
        for i, lexeme in enumerate(lexemes):
            if "_" in lexeme and (unit := KEY_UNITS.get(lexeme.rpartition("_")[2])):
                _unit_before_number(unit, i, all_kinds, times)
    _settle_counts(lexemes, all_kinds, times)
    tokens = Tokens(text, lexemes, all_kinds, times)
    if times:
        _settle_labels(tokens)
    return tokens


def _read_phrases(text: str, words: Set[str]) -> str:
    """``text`` with phrases as the words they are read as; looked for are those that ``words`` allow."""
    for i in sorted(set().union(*map(_PHRASES_OF.__getitem__, words))):
        if not any(map(words.isdisjoint, _PHRASE_GROUPS[i])):
            pattern, word = _PHRASES[i]
            text = pattern.sub(word, text)
    return text


_TIME = re.compile(kinds("time"))
_UNSETTLED = re.compile(kinds("[unit minus tilde dots first final]"))
_AFTER_UNIT = re.compile(kinds("[skip unit start open list close dash minus tilde number]* time"))
_NUMBERS = frozenset((Kind.TIME, Kind.NUMBER))


def _before(place: int, all_kinds: list[str]) -> str:
    """The kind of the last token before ``place`` that says something; a text begins as a line does."""
    while place and all_kinds[place - 1] == Kind.SKIP:
        place -= 1
    return all_kinds[place - 1] if place else Kind.NEWLINE


def _settle(i: int, lexemes: list[str], all_kinds: list[str], times: dict[int, Time]) -> None:
    """Settles the kind of a token that depends on what stands around it."""
    kind, lexeme, before = all_kinds[i], lexemes[i], _before(i, all_kinds)
    settled = Kind.SKIP
    if kind == Kind.UNIT:  # "second 5", "seconds: 5 - 9", "[3, 7] minutes"
        give = _unit_after_bracket if before == Kind.CLOSE else _unit_before_number
        give(LONE_UNITS[lexeme.removesuffix("'s")], i, all_kinds, times)
    elif kind == Kind.MINUS:  # a connector; or the sign of a negative number
        tight = lexeme[-1] == "-" and i + 1 < len(lexemes) and all_kinds[i + 1] in _NUMBERS
        glued = lexeme[0] == "-" and i > 0 and lexemes[i - 1][-1].isalnum()
        if before in (*_NUMBERS, Kind.CLOSE) or glued or not tight:
            settled = Kind.DASH
        elif number := times.get(i + 1):
            times[i + 1] = number._replace(value=-number.value)
    elif kind == Kind.TILDE:  # "5 ~ 9"; or "about"
        settled = Kind.DASH if before in (Kind.TIME, Kind.CLOSE) else Kind.SKIP
    elif kind == Kind.DOTS:
        settled = Kind.DASH if before == Kind.TIME else Kind.STOP
    elif kind == Kind.FINAL:  # where a time is expected; words elsewhere
        joins = before in (Kind.DASH, Kind.TO, Kind.END) or (before == Kind.AND and Kind.BETWEEN in all_kinds[:i])
        joins = joins or (before == Kind.COMMA and all_kinds[i + 1 : i + 2] == [Kind.CLOSE])
        settled = Kind.TIME if joins else Kind.WORD
        stated = all_kinds[i + 1 : i + 4] == [Kind.OPEN, Kind.TIME, Kind.CLOSE]  # "the end of the video (70.0 s)"
        times[i] = times[i + 2] if stated else Time(END_OF_VIDEO, "edge")
    elif kind == Kind.FIRST:
        joined = all_kinds[i + 1 : i + 2] in ([Kind.TO], [Kind.DASH])
        settled = Kind.TIME if joined or before in (Kind.FROM, Kind.BETWEEN) else Kind.WORD
        times[i] = Time(0.0, "edge")
    all_kinds[i] = settled


def _unit_before_number(unit: str, place: int, all_kinds: list[str], times: dict[int, Time]) -> None:
    found = _AFTER_UNIT.match("".join(all_kinds[place + 1 : place + 9]))
    number = place + found.end() if found else place
    if number in times and times[number].unit is None:
        times[number] = times[number]._replace(unit=unit)


def _unit_after_bracket(unit: str, place: int, all_kinds: list[str], times: dict[int, Time]) -> None:
    for i in range(place - 1, max(-1, place - 9), -1):
        if all_kinds[i] in (Kind.OPEN, Kind.LIST):
            return
        if all_kinds[i] == Kind.TIME and times[i].unit is None:
            times[i] = times[i]._replace(unit=unit)


_COUNTED = (Kind.WORD, Kind.LABEL, Kind.PART, Kind.EVENT, Kind.VIDEO, Kind.ANSWER)
_BEFORE_RANGE = frozenset(kinds("time dash to from between"))
_BEFORE_COUNT = frozenset(kinds("word stop newline comma open part video start not for event"))
_AFTER_TIME = re.compile(kinds("(?: time skip* | between [^time]*) and skip* $"))
_VIDEO_NOUNS = frozenset(("video", "clip", "footage", "recording", "film", "long"))


def _settle_counts(lexemes: list[str], all_kinds: list[str], times: dict[int, Time]) -> None:
    """``2 people talk for 31 s``, ``the 96 frame video``, ``at 2 fps``: a number with what it counts is a word.

    Not inside of a range (``2 - 3 cups``), which may be one of times for what is known here.
    """
    for i, time in times.items():
        word = _word_at(lexemes, i + 1)
        if not word or (time.unit and word != "of" and word not in _VIDEO_NOUNS):
            continue
        before = _before(i, all_kinds)
        if before == Kind.AND and not _AFTER_TIME.search("".join(all_kinds[max(0, i - 9) : i])):
            before = Kind.COMMA.value  # "1 woman and 3 men"
        if before in _BEFORE_RANGE or (i and all_kinds[i - 1] in (Kind.LABEL, Kind.PART)):
            continue
        if time.unit is not None:
            noun = _word_at(lexemes, i + 2) if word == "of" else word
            if noun in _VIDEO_NOUNS and time.unit not in ("clock", "edge"):  # "a 31 second clip", "31 seconds of video"
                all_kinds[i] = Kind.WORD
        elif word in MEASURES or (
            not time.decimal
            and all_kinds[i + 1] in _COUNTED
            and word not in NEUTRAL_FOLLOWERS
            and before in _BEFORE_COUNT
            and not _is_led(i, lexemes, all_kinds)
        ):
            all_kinds[i] = Kind.WORD


_NUMBERED = re.compile(kinds("label [from between]? [open list]? time (?:[dash to and comma] time)*"))
_TITLES = kinds("end comma")
_FRAME_TIME = re.compile(kinds("label number open time close"))
_INDEXED = re.compile(kinds("[part event word video] time (?=dash time [dash to] time)"))
_VIDEO = re.compile(kinds("video [start end]?"))
_HEADED = re.compile(kinds("[part event video] time"))


def _settle_labels(tokens: Tokens) -> None:
    """Takes numbers that a word labels as something else (``frame 10``, ``Event 1 -``) out of the times.

    And the ends of the video itself (``the video ends at``) out of the ends.
    """
    all_kinds, places, lexemes, kept = tokens.all_kinds, tokens.places, tokens.lexemes, tokens.kinds
    before = list(all_kinds)
    for found in _NUMBERED.finditer(kept):
        is_frame = tokens.word(found.start()).startswith("frame")
        if not is_frame and kept[found.start() + 1] in (Kind.FROM, Kind.BETWEEN):
            continue  # "he steps from 10 to 20", not "frames from 10 to 20"
        if kept.endswith(_TITLES, 0, found.start()):
            continue  # "start, end, score: 3.2, 7.9, 0.83"
        end, whole = found.start(), False
        for group in found[0].split(Kind.COMMA):  # "frames 100 to 200, 12 to 15 s"
            numbers = [places[end + i] for i, kind in enumerate(group) if kind == Kind.TIME]
            last = tokens.times[numbers[-1]]
            if last.unit or (whole and last.decimal and len(numbers) > 1):
                break
            end, whole = end + len(group) + 1, not last.decimal
            for number in numbers:
                if tokens.times[number].unit is None:
                    all_kinds[number] = Kind.NUMBER
    framed = Kind.LABEL in kept and Kind.OPEN in kept
    for found in _FRAME_TIME.finditer("".join([all_kinds[i] for i in places])) if framed else ():
        start, end = found.span()
        for i in (start, start + 1, start + 2, end - 1):
            all_kinds[places[i]] = Kind.SKIP
    for found in _INDEXED.finditer(kept):
        number = places[found.end() - 1]
        if tokens.times[number].unit is None and not tokens.times[number].decimal:
            all_kinds[number] = Kind.NUMBER
    for found in _VIDEO.finditer(kept):  # the subject, or "in the video"
        place = places[found.start()]
        leader = place - 1
        while leader >= 0 and lexemes[leader] in ("the", "this", "given", "a"):
            leader -= 1
        if leader >= 0 and lexemes[leader] in PREPOSITIONS:
            all_kinds[place] = Kind.WORD
        elif found.end() - found.start() > 1:
            all_kinds[places[found.end() - 1]] = Kind.WORD
    for found in _HEADED.finditer(kept):  # "Event 1:"
        place = places[found.end() - 1]
        time = tokens.times[place]
        follows = lexemes[place + 1] if place + 1 < len(lexemes) else ""
        if time.unit is None and not time.decimal and follows in (":", ")", "("):
            all_kinds[place] = Kind.NUMBER
    if all_kinds != before:
        tokens.refresh()
