"""How times are written: the numbers, units and composite times of an answer, as patterns and as seconds."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "END_OF_VIDEO",
    "NUMBER_IN_WORDS",
    "NUMBER_LIKE",
    "NUMBER_WORDS",
    "UNIT_SECONDS",
    "Time",
    "read_time",
    "words_to_digits",
]

END_OF_VIDEO = float("inf")
"""Value of ``the end of the video``, known only with the duration."""

UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "clock": 1.0, "edge": 1.0}


class Time(NamedTuple):
    """A number that may be a time: its value in its unit, or in seconds where no unit is written (None)."""

    value: float
    unit: str | None = None
    decimal: bool = False
    ordinal: bool = False


# Linear: no two repetitions in a row can share a character.
_DIGITS = (
    r"(?:[0-9]{1,9}(?:\.[0-9]++|\.(?= ?(?:-|to\b|s\b|secs?\b|seconds?\b)))?(?:e[+-]?[0-9]{1,3}(?![0-9]))?"
    r"|(?<![0-9.])\.[0-9]++)"
)
_BEFORE_JOINER = r"(?= ?(?:[-~,]|(?:to|until|till|through|and)\b))"
_SECOND_WORD = (
    rf" ?-?(?:seconds?(?:\.{_BEFORE_JOINER})?|secs?(?![a-z])\.?|s(?:\.{_BEFORE_JOINER})?|秒[钟目]?|초"
    r"|sekunden?|segundos?|secondes?|\"|(?:seco?n?|se)\Z)"
)
_SECONDS = rf"{_SECOND_WORD}(?![a-z0-9])"
_MINUTES = r"(?: ?-?(?:minutes?|mins?(?![a-z])\.?)|m| ?(?:分钟?|분))(?![a-z])"
_HOURS = r" ?-?(?:hours?|hrs?|h|小时|時間|시간)(?![a-z])"
_MILLISECONDS = r" ?-?(?:milliseconds?|msecs?|ms(?!\. [a-z])|毫秒|ミリ秒)(?![a-z0-9])"
_JOIN = r" ?(?:,|and)? ?"
_COUNT_OF_SECONDS = r"[0-5]?[0-9](?:\.[0-9]++)?"
_COUNT_OF_MILLISECONDS = rf"{_JOIN}[0-9]{{1,3}}{_MILLISECONDS}"
_ALONE = r"(?![0-9a-z_%°‰]|[.:][0-9]|/[0-9]|,[0-9]{3}|-(?!to\b|seconds?\b|secs?\b|minutes?\b)[a-z])"

_CLOCK = (  # 1:05, 00:01:05.5, 00:00:12,500
    r"(?:[0-9]{1,3}:)?[0-9]{1,3}:[0-5][0-9](?:\.[0-9]++|,[0-9]{3}(?![0-9:]))?(?![0-9]|:[0-9]|\.[0-9])"
)
_CLOCK_UNIT = r"(?: ?(?:seconds?|secs?|s|minutes?|mins?|m)\b)?"
_TIME_OF_DAY = r" ?[ap]\.?m\b\.?"
_PARTS = (  # 1m5s, 1 min 5 sec, 1 hour and 2 minutes, 1'05", 1分5秒, 5s 500ms
    rf"(?:[0-9]{{1,3}}{_HOURS}{_JOIN})?[0-9]{{1,4}}(?:{_MINUTES}|'(?=[0-9]{{2}}))(?:{_JOIN}{_COUNT_OF_SECONDS}"
    rf"(?:{_SECOND_WORD}{_COUNT_OF_MILLISECONDS}|{_SECONDS})|{_COUNT_OF_SECONDS}{_ALONE})"
    rf"|[0-9]{{1,3}}{_HOURS}{_JOIN}[0-9]{{1,2}}{_MINUTES}(?![0-9])"
    rf"|[0-9]{{1,6}}{_SECOND_WORD}{_COUNT_OF_MILLISECONDS}"
)
_CHAIN = (  # dates, versions, fractions, decades, chains: 2023-10-12, 1.2.3, 3/4, 1990s, 1-2-3
    rf"{_DIGITS}(?:-{_DIGITS}){{2,}}+(?:{_SECONDS})?|[0-9]++(?:\.[0-9]++){{2,}}+|[0-9]++(?:/[0-9]++)++"
    r"|(?:1[89]|20)[0-9]0s(?![a-z0-9])|[0-9]{1,4}(?:,[0-9]{1,3}){1,4}+(?![0-9])"
)
_PLAIN = (
    rf"{_DIGITS}(?:(?:st|nd|rd|th)(?![a-z]))?"
    rf"(?:{_SECONDS}|{_MILLISECONDS}|{_MINUTES}(?![0-9])|{_HOURS}(?![0-9])|{_ALONE})"
)
_OTHER = r"[0-9][0-9a-z_]*+(?:[.:/'-][0-9a-z_]++)*+[%°‰]?"

NUMBER_LIKE = rf"{_CLOCK}{_CLOCK_UNIT}(?:{_TIME_OF_DAY})?|{_PARTS}|{_CHAIN}|{_PLAIN}|{_OTHER}"
"""Everything that begins with a digit, and its unit."""

_CLOCK_TIME = re.compile(rf"({_CLOCK}){_CLOCK_UNIT}")
_CHAINED = re.compile(_CHAIN)
_PLAIN_TIME = re.compile(
    rf"(?P<digits>{_DIGITS})(?P<ordinal>st|nd|rd|th)?"
    rf"(?:(?P<s>{_SECONDS})|(?P<ms>{_MILLISECONDS})|(?P<min>{_MINUTES})|(?P<h>{_HOURS}))?"
)
_PART = re.compile(
    rf"(?P<digits>[0-9.]+)(?:(?P<ms>{_MILLISECONDS})|(?P<h>{_HOURS})|(?P<min>{_MINUTES}|')|(?P<s>{_SECOND_WORD}|))"
)
_PARTS_TIME = re.compile(_PARTS)


@lru_cache(maxsize=4096)
def read_time(written: str) -> Time | None:
    """The time that a text found by :data:`NUMBER_LIKE` is; None where it is none (a date, a share, a name)."""
    written = written.removesuffix(".")
    found = _CLOCK_TIME.fullmatch(written)
    if found:
        seconds = 0.0
        for part in found[1].split(":"):
            seconds = 60 * seconds + _float(part.replace(",", "."))
        return Time(seconds, "clock", True)
    if _PARTS_TIME.fullmatch(written):
        seconds = 0.0
        for part in _PART.finditer(written):
            scale = next(UNIT_SECONDS[name] for name in ("ms", "h", "min", "s") if part[name] is not None)
            seconds += _float(part["digits"]) * scale
        return Time(seconds, "clock", True)
    found = None if _CHAINED.fullmatch(written) else _PLAIN_TIME.fullmatch(written)
    if not found:
        return None
    digits = found["digits"]
    value = _float(digits)
    if value >= 1e9:
        return None
    unit = next((unit for unit in ("s", "ms", "min", "h") if found[unit]), None)
    return Time(value, unit, "." in digits or "e" in digits, bool(found["ordinal"]))


def _float(digits: str) -> float:
    """The number; digits beyond the precision of a float are not read, so that a long fraction costs nothing."""
    mantissa, e, exponent = digits.partition("e")
    return float(mantissa[:24] + e + exponent)


_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
"""The words of such numbers, and what each adds."""
NUMBER_IN_WORDS = rf"(?:(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_ONES[1:10])}))?|{'|'.join(_ONES)})\b"
"""A whole number below a hundred, written in words."""

_IN_WORDS = re.compile(rf"\b{NUMBER_IN_WORDS}")


def words_to_digits(found: re.Match[str]) -> str:
    """A piece of text with its numbers in digits: ``twenty-one to thirty`` is ``21 to 30``."""
    return _IN_WORDS.sub(lambda number: str(sum(NUMBER_WORDS[w] for w in re.split("[- ]", number[0]))), found[0])
