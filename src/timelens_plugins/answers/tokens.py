"""Text to tokens: times with their unit, numbers that are none, connectors, and one code for each word that matters.

Linear: one pass of one pattern, in which no two repetitions can share a character.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from timelens_plugins.answers.vocabulary import CHINESE, PHRASES, PREPOSITIONS, word_code

__all__ = ["END_OF_VIDEO", "UNIT_SECONDS", "Token", "Tokens", "tokenize"]

END_OF_VIDEO = float("inf")
"""Value of ``the end of the video``, known only with the duration."""

UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "clock": 1.0, "edge": 1.0}


@dataclass(slots=True)
class Token:
    """One token, written ``at`` a character of the text. Only times (code ``T``) have a value: in their unit, or in
    seconds where no unit is written (None)."""

    code: str
    text: str
    value: float = 0.0
    unit: str | None = None
    decimal: bool = False
    ordinal: bool = False
    at: int = -1


@dataclass(slots=True)
class Tokens:
    """A tokenised text. ``codes`` has one letter for each of ``kept``; ``places`` says where those stand in
    ``full``."""

    full: list[Token]
    kept: list[Token]
    places: list[int]
    codes: str

    def follower(self, index: int) -> str:
        """The word right after kept token ``index`` on the same line, or ``""``."""
        place = self.places[index] + 1
        text = self.full[place].text if place < len(self.full) else ""
        return text if text[:1].isalpha() or text == "%" else ""

    def leader(self, index: int) -> str:
        """The text of the token right before kept token ``index``, or ``""``."""
        place = self.places[index]
        return self.full[place - 1].text if place else ""


_NUMBER = r"(?:[0-9]{1,9}(?:\.[0-9]++|\.(?= ?(?:-|to\b|s\b|secs?\b|seconds?\b)))?|(?<![0-9.])\.[0-9]++)"
_SECONDS = r" ?-?(?:seconds?|secs?\b\.?|s|秒钟?|\"|(?:seco?n?|se)\Z)(?![a-z0-9])"
_MINUTES = r"(?: ?-?(?:minutes?|mins?\b\.?)|m| ?(?:分钟?))(?![a-z])"
_HOURS = r" ?-?(?:hours?|hrs?|h|小时)(?![a-z])"
_MILLISECONDS = r" ?-?(?:milliseconds?|msecs?|ms(?!\. [a-z])|毫秒)(?![a-z0-9])"
_JOIN = r" ?(?:,|and)? ?"
_FREE = r"(?![0-9a-z_%°‰]|[.:][0-9]|/[0-9]|,[0-9]{3}|-(?!to\b|seconds?\b|secs?\b|minutes?\b)[a-z])"
_CJK = r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"
_LETTER = r"a-z\u00df-\u1fff"
_VIDEO = r"(?:of (?:the |this )?(?:entire |whole |given )?)(?:video|clip|footage|recording|film)\b"

_PATTERN = re.compile(
    "|".join(
        (
            r"(?P<space> +)",
            r"(?P<newline>\n)",
            # 1:05, 00:01:05.5, 00:00:12,500
            r"(?P<clock>(?:(?P<ch>[0-9]{1,3}):)?(?P<cm>[0-9]{1,3}):(?P<cs>[0-5][0-9](?:\.[0-9]++|,[0-9]{3}(?![0-9:]))?)"
            r"(?![0-9]|:[0-9]|\.[0-9])(?: ?(?:seconds?|secs?|s|minutes?|mins?|m)\b)?(?P<day> ?[ap]\.?m\b\.?)?)",
            # 1m5s, 1 min 5 sec, 1 hour and 2 minutes, 1'05", 1分5秒
            rf"(?P<hms>(?:(?P<hh>[0-9]{{1,3}}){_HOURS}{_JOIN})?(?P<hm>[0-9]{{1,4}})(?:{_MINUTES}|'(?=[0-9]{{2}}))"
            rf"(?:{_JOIN}(?P<hs>[0-5]?[0-9](?:\.[0-9]++)?){_SECONDS}|(?P<hs2>[0-5]?[0-9](?:\.[0-9]++)?){_FREE}))",
            rf"(?P<hours>(?P<ah>[0-9]{{1,3}}){_HOURS}{_JOIN}(?P<am>[0-9]{{1,2}}){_MINUTES}(?![0-9]))",
            # dates, versions, fractions, decades, chains: 2023-10-12, 1.2.3, 3/4, 1990s, 1-2-3
            rf"(?P<chain>{_NUMBER}(?:-{_NUMBER}){{2,}}+(?:{_SECONDS})?|[0-9]++(?:\.[0-9]++){{2,}}+|[0-9]++(?:/[0-9]++)++"
            r"|(?:1[89]|20)[0-9]0s(?![a-z0-9]))",
            r"(?P<comma>[0-9]{1,4}(?:,[0-9]{1,3}){1,4}+(?:\.[0-9]++)?(?![0-9]))",
            rf"(?P<number>(?P<n>{_NUMBER})(?:(?P<th>st|nd|rd|th)(?![a-z]))?"
            rf"(?:(?P<s>{_SECONDS})|(?P<ms>{_MILLISECONDS})|(?P<min>{_MINUTES})(?![0-9])|(?P<h>{_HOURS})(?![0-9])|{_FREE}))",
            r"(?P<junk>[0-9][0-9a-z_]*+(?:[.:/'-][0-9a-z_]++)*+[%°‰]?)",
            r"(?P<mixed>[a-z_]++[0-9][a-z0-9_]*+)",
            rf"(?P<end>(?:the )?(?:very )?end {_VIDEO}|the (?:very )?end(?= ?(?:[.,;)\n]|$))"
            r"|the (?:video|clip)'s end\b)",
            rf"(?P<start>(?:the )?(?:very )?(?:beginning|start) {_VIDEO}"
            r"|the (?:very )?(?:beginning|start)(?= (?:to|until|till|through|and)\b))",
            *(rf"(?P<phrase{i}>(?:{words})(?![{_LETTER}]))" for i, (words, _) in enumerate(PHRASES)),
            rf"(?P<word>[{_LETTER}]++(?:[_'][{_LETTER}0-9]++)*+)",
            rf"(?P<chinese>{'|'.join(sorted(CHINESE, key=len, reverse=True))}|{_CJK})",
            r"(?P<dash>-+>?|=+>|~+|\.{2,})",
            r"(?P<mark>.)",
        )
    )
)

_MARKS = {
    "(": "(", "{": "(", "<": "(", "[": "[", ")": ")", "}": ")", "]": ")", ">": ")", ",": "C", ";": "C", "|": "C",
    "/": "w", ".": ".", "!": ".", "?": ".", "&": "A", "#": "X", "±": "w", "$": "X", "€": "X", "£": "X", "×": "w",
}  # fmt: skip

_LONE_UNITS = {
    "seconds": "s", "second": "s", "secs": "s", "sec": "s", "秒": "s", "minutes": "min", "minute": "min", "mins": "min",
    "min": "min", "ms": "ms", "milliseconds": "ms",
}  # fmt: skip
_KEY_UNITS = {"s": "s", "sec": "s", "secs": "s", "second": "s", "seconds": "s", "ms": "ms", "msec": "ms", "min": "min"}
_LABELLED = re.compile(r"X[FB]?[(\[]?T(?:[DOAC]T)*")
_FRAME_TIME = re.compile(r"XJ\((?P<time>T)\)")
_INDEXED = re.compile(r"[YewV]T(?=DT[DO]T)")


def tokenize(text: str) -> Tokens:
    """The tokens of a cleaned text."""
    full = _scan(text)
    tokens = _keep(full)
    _drop_labelled(tokens)
    return _keep(full)


def _keep(full: list[Token]) -> Tokens:
    places = [i for i, token in enumerate(full) if token.code != "_"]
    kept = [full[i] for i in places]
    return Tokens(full, kept, places, "".join(token.code for token in kept))


def _scan(text: str) -> list[Token]:
    full: list[Token] = []
    codes = ["n"]  # of the tokens that have one
    pending: str | None = None  # unit written before the number: "second 5", "start_ms": 5000
    decimal_comma = False
    position = 0
    match = _PATTERN.match
    while found := match(text, position):
        kind, lexeme, position = str(found.lastgroup), found.group(), found.end()
        if kind == "space":
            continue
        if kind in ("number", "clock", "hms", "hours"):
            token = _time(found, kind)
            if token.code == "T":
                token.unit = token.unit or pending
                pending = None
        elif kind == "comma":
            token, position, decimal_comma = _comma_number(text, found, codes, decimal_comma)
        elif kind == "word":
            token = Token(word_code(lexeme), lexeme)
            unit = _LONE_UNITS.get(lexeme) or (_KEY_UNITS.get(lexeme.rpartition("_")[2]) if "_" in lexeme else None)
            if unit and lexeme in _LONE_UNITS and codes[-1] == ")" and len(codes) > 1:
                _unit_after_bracket(full, unit)
            elif unit:
                pending = unit
            elif token.code not in "_S":
                pending = None
        elif kind == "mark":
            token = Token(_MARKS.get(lexeme, "_"), lexeme)
            if token.code in "C.":
                pending = None
        elif kind == "dash":
            token, position = _dash(text, found, codes)
        elif kind in ("end", "start"):
            token = _edge(kind, lexeme, codes)
        elif kind == "newline":
            token, pending = Token("n", "\n"), None
        elif kind == "chinese":
            token = Token(CHINESE.get(lexeme, "w"), lexeme)
        elif kind.startswith("phrase"):
            token = Token(PHRASES[int(kind[6:])][1], lexeme)
        elif kind == "mixed":
            token = Token("X" if word_code(lexeme) == "X" else "J", lexeme)
        else:
            token = Token("J", lexeme)
        if token.code == "T" and full and full[-1].text == "-" and full[-1].code == "_":
            token.value = -token.value
        token.at = found.start()
        full.append(token)
        if token.code != "_":
            codes.append(token.code)
    return full


def _float(digits: str) -> float:
    """The number; digits beyond the precision of a float are not read, so that a long fraction costs nothing."""
    return float(digits[:24])


def _time(found: re.Match[str], kind: str) -> Token:
    text = found.group()
    if kind == "clock":
        if found["day"]:
            return Token("J", text)
        seconds = _float(found["cs"].replace(",", ".")) + 60 * int(found["cm"]) + 3600 * int(found["ch"] or 0)
        return Token("T", text, seconds, "clock", True)
    if kind == "hms":
        seconds = _float(found["hs"] or found["hs2"]) + 60 * int(found["hm"]) + 3600 * int(found["hh"] or 0)
        return Token("T", text, seconds, "clock", True)
    if kind == "hours":
        return Token("T", text, 3600.0 * int(found["ah"]) + 60 * int(found["am"]), "clock", True)
    unit = next((unit for unit in ("s", "ms", "min", "h") if found[unit]), None)
    return Token("T", text, _float(found["n"]), unit, "." in found["n"], bool(found["th"]))


_AFTER_DECIMAL = re.compile(rf"(?P<unit>{_SECONDS})|(?= ?(?:-|~|to\b|until\b|and\b|到|至))")


def _comma_number(text: str, found: re.Match[str], codes: list[str], decimal_comma: bool) -> tuple[Token, int, bool]:
    """A number with commas in it, three ways: ``[3,5]`` is a pair, ``1,234.5`` has thousands, ``3,5 - 4,5`` decimals.

    After a dash (``0-5,10-15``) the comma separates two spans, unless the first number had a decimal comma too. Alone,
    ``3,5`` is one number. Returns the token, where to read on, and whether the number had a decimal comma.
    """
    lexeme, end = found.group(), found.end()
    first, _, rest = lexeme.partition(",")
    joined = codes[-1] in "DOA"
    closed = text[end : end + 1] in (")", "]", "") or text[end : end + 2] in (" )", " ]")
    in_bracket = codes[-1] in "([" and (closed or text[end : end + 1] == ",")
    after = _AFTER_DECIMAL.match(text, end)
    unit = "s" if after and after["unit"] else None
    read_to = after.end() if after else end
    if in_bracket or (codes[-1] in "([" and unit and text[read_to : read_to + 1] in (")", "]")):
        return Token("T", first, _float(first)), found.start() + len(first), False
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", lexeme) and not (joined and after and not unit):
        return Token("T", lexeme, _float(lexeme.replace(",", "")), unit, True), read_to, False
    if rest.isdigit() and len(rest) <= 3 and ((after and not joined) or (joined and decimal_comma)):
        return Token("T", lexeme, _float(f"{first}.{rest}"), unit, True), read_to, True
    if rest.isdigit() and not joined:
        return Token("J", lexeme), end, False
    return Token("T", first, _float(first)), found.start() + len(first), False


def _unit_after_bracket(full: list[Token], unit: str) -> None:
    """Gives the unit of ``[3, 7] minutes`` to the numbers in the bracket."""
    for token in reversed(full[-8:]):
        if token.code == "T" and token.unit is None:
            token.unit = unit
        elif token.code in "([":
            return


def _dash(text: str, found: re.Match[str], codes: list[str]) -> tuple[Token, int]:
    """A connector; or the sign of a negative number; or nothing where it opens a line, a bracket or a ``~5``."""
    lexeme, start, end = found.group(), found.start(), found.end()
    if lexeme == "..." and codes[-1] != "T":
        return Token(".", lexeme), end
    if lexeme[0] == "~" and codes[-1] != "T":
        return Token("_", "about"), end
    digit = text[end : end + 1].isdigit() or (text[end : end + 1] == "." and text[end + 1 : end + 2].isdigit())
    if lexeme == "-" and digit and codes[-1] not in "TJ)" and (start == 0 or not text[start - 1].isalnum()):
        return Token("_", "-"), end
    return Token("D", lexeme), end


def _edge(kind: str, text: str, codes: list[str]) -> Token:
    """The start or end of the video where a time is expected (``from 5 s to the end``), words elsewhere."""
    if kind == "start":
        return Token("T", text, 0.0, "edge") if codes[-1] in "FB" else Token("w", text)
    return Token("T", text, END_OF_VIDEO, "edge") if codes[-1] in "DO" else Token("w", text)


def _drop_labelled(tokens: Tokens) -> None:
    """Takes numbers that a word labels as something else (``frame 10``, ``Event 1 -``) out of the times.

    And the ends of the video itself (``the video ends at``) out of the ends.
    """
    kept, full, places = tokens.kept, tokens.full, tokens.places
    for found in _LABELLED.finditer(tokens.codes):
        numbers = [kept[i] for i in range(*found.span()) if kept[i].code == "T"]
        is_verb = tokens.codes[found.start() + 1] in "FB" and not kept[found.start()].text.startswith("frame")
        if numbers[-1].unit is None and not is_verb:  # "frames from 10 to 20", but "he steps from 10 to 20"
            for number in numbers:
                number.code = "J" if number.unit is None else "T"
    for found in _FRAME_TIME.finditer("".join(token.code for token in kept)):
        for i in (*range(found.start(), found.start("time")), found.end() - 1):
            kept[i].code = "_"
    for found in _INDEXED.finditer(tokens.codes):
        number = kept[found.end() - 1]
        if number.unit is None and not number.decimal:
            number.code = "J"
    for i, token in enumerate(kept):
        if token.code == "V":
            before = places[i] - 1
            while before >= 0 and full[before].text in ("the", "this", "given", "a"):
                before -= 1
            if before >= 0 and full[before].text in PREPOSITIONS:
                token.code = "w"
            elif i + 1 < len(kept) and kept[i + 1].code in "SE":
                kept[i + 1].code = "w"
        elif token.code == "T" and token.unit is None and not token.decimal and i and kept[i - 1].code in "YeV":
            after = places[i] + 1
            if after < len(full) and full[after].text in (":", ")"):
                token.code = "J"
