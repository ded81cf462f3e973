"""Everything in a tokenised text that is written like a span, as patterns over the kinds of its tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from timelens_plugins.answers.numbers import UNIT_SECONDS, Time
from timelens_plugins.answers.tokens import Tokens
from timelens_plugins.answers.vocabulary import Kind, kinds

__all__ = ["Candidate", "find_candidates"]


@dataclass(slots=True)
class Candidate:
    """Two times that belong together.

    ``form`` is the one it is written in (see ``_FORMS``). It spans the kept tokens ``first`` to ``last`` (inclusive);
    ``a`` is its start, ``b``, kept token ``end``, its end, or its length where ``form`` is ``length``.
    """

    form: str
    first: int
    last: int
    a: Time
    b: Time
    end: int
    unit: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.unit = self.b.unit or self.a.unit

    @property
    def seconds(self) -> tuple[float, float]:
        """The two times in seconds, as ordered in the text. One without unit takes the other's (``1 to 2 minutes``)."""
        start = self.a.value * UNIT_SECONDS[self.a.unit or self._shared]
        end = self.b.value * UNIT_SECONDS[self.b.unit or self._shared]
        return (start, start + end) if self.form == "length" else (start, end)

    @property
    def _shared(self) -> str:
        return self.unit if self.unit in ("ms", "min", "h") and self.form != "length" else "s"

    @property
    def whole_numbers(self) -> bool:
        """Whether both are plain whole numbers, which count other things as readily as seconds."""
        return self.unit is None and not (self.a.decimal or self.b.decimal)


_JOINED = (
    r"close? (?:open? [start word]? close)? (?:[open list] label? [time number] close)? "
    r"(?: comma? [dash to]{1,2} newline? | newline dash newline) [open list]{0,2}"
)
_NAME = "[^time number list open close comma newline]{1,8}"
_NOT_JOINED = r"(?! [dash to] time)"
_NO_LENGTH = r"(?<! [for last])"

# ALPHA is the time that starts the span (or to which a length is added), OMEGA the one that ends it (or the length).
# Every repetition has an upper bound, so that the search is linear.
_FORMS: tuple[tuple[str, str], ...] = (
    # start 5, duration 4, end 9
    (
        "labelled",
        "start [^time end number]{0,8} ALPHA [^time start end number]{0,4} last [^time start end number]{0,4} time "
        "[^time start number]{0,6} end [^time start number]{0,8} OMEGA",
    ),
    # starts at 5, ends at 9
    ("labelled", "start [^time end number]{0,8} ALPHA [^time start number]{0,14} end [^time start number]{0,8} OMEGA"),
    # enters at 5 and leaves at 9
    (
        "from",
        "enter [^time start end number]{0,6} ALPHA [^time start end number]{0,8} leave [^time start end number]{0,6} "
        "OMEGA",
    ),
    # at 5 he sits down, and stays until 9
    (
        "until",
        f"{_NO_LENGTH} ALPHA [^time from start end for not but number stop newline]{{1,8}} to OMEGA {_NOT_JOINED}",
    ),
    # at 5 he enters, and at 9 he leaves
    (
        "from",
        f"{_NO_LENGTH} ALPHA [^time start end number stop]{{0,4}} enter [^time start end number]{{0,6}} OMEGA "
        "[^time start end number stop]{0,4} leave (?! [^time stop comma]{0,3} time)",
    ),
    # ends at 9, having started at 5
    ("labelled", "end [^time start number]{0,8} OMEGA [^time end number]{0,10} start [^time end number]{0,8} ALPHA"),
    # does not sit until 5, and stops at 9
    (
        "labelled",
        "not [word event enter happen]{0,3} to ALPHA [^time start number]{0,10} end [^time start number]{0,6} OMEGA",
    ),
    # starts at 5 and continues until 9
    ("labelled", f"start [^time stop end number]{{0,8}} ALPHA [^time number stop]{{0,6}} to OMEGA {_NOT_JOINED}"),
    # number, start, end: 1, 5, 9
    (
        "labelled",
        "(?<= [label last word event part] comma) start comma end [^time number]{0,4} [time number] comma ALPHA comma "
        "OMEGA",
    ),
    # the start and end times are 5 and 9
    ("labelled", "start [^time stop]{0,3} end [^time number]{0,8} ALPHA [^time start end number stop]{0,3} OMEGA"),
    # sits down at 5 and finishes at 9
    (
        "labelled",
        f"{_NO_LENGTH} ALPHA [^time start end number stop newline]{{0,3}} and [word again]? end "
        "[^time start end number stop newline]{0,3} OMEGA",
    ),
    # 5 (start), 9 (end)
    (
        "labelled",
        "ALPHA [^time start end number stop newline]? start [^time start end number stop newline]{0,4} OMEGA "
        "[^time start end number stop newline]? end (?! [^time]{0,3} time)",
    ),
    # starts at 5 and lasts 4
    (
        "length",
        f"start [^time end number]{{0,8}} {_NO_LENGTH} ALPHA [^time end number]{{0,10}} "
        f"(?: last [^time to number]{{0,3}} | for) OMEGA {_NOT_JOINED}",
    ),
    # duration 4, start 5
    (
        "length",
        "last [^time start end number]{0,3} OMEGA [^time end number]{0,4} start [^time end number]{0,4} ALPHA "
        "(?! [^time start end]{0,6} end)",
    ),
    # at 5 for 4, until 9
    ("from", f"{_NO_LENGTH} ALPHA [^time start end stop number]{{0,6}} for time to OMEGA"),
    # at 5 for 4
    (
        "at_length",
        f"{_NO_LENGTH} ALPHA [^time end stop number]{{0,6}} (?: last for? | for) OMEGA (?! [dash to and] time)",
    ),
    ("between", "between [^time number stop newline]{0,2} ALPHA dash? (?: open time close)? [and to dash]{1,2} OMEGA"),
    ("between", "ALPHA [and to dash] OMEGA amid"),
    ("from", f"from [^time number stop newline]? ALPHA {_JOINED} OMEGA {_NOT_JOINED}"),
    # from 5 and continuing to 9
    ("from", f"from ALPHA [^time from number stop newline]{{0,5}} to OMEGA {_NOT_JOINED}"),
    ("range", f"ALPHA (?<! time [dash to] time) {_JOINED} OMEGA {_NOT_JOINED}"),
    # [5, 9], also with a score or a name behind them
    (
        "list",
        f"list (?<! [start end] list) newline? ALPHA comma? newline? OMEGA "
        f"(?: comma newline? (?: SCORE | number | {_NAME}))? comma? newline? close",
    ),
    ("pair", "open (?<! [start end] open) ALPHA comma OMEGA (?: comma SCORE)? close"),
    # answer: 5, 9
    ("pair", "(?<= answer) ALPHA comma OMEGA (?= [stop newline] | $)"),
)


def _alternative(number: int, form: str) -> str:
    """The pattern of a form, its groups numbered. The one of its name ends it: it is the last that is matched, and what
    the form begins with is seen before any group is opened, so that most forms are passed over at once."""
    names = {"ALPHA": f"start{number}", "OMEGA": f"end{number}", "SCORE": f"score{number}"}
    return kinds(form, lambda role: f"(?P<{names[role]}>{Kind.TIME})") + f"(?P<form{number}>)"


def _any_form() -> str:
    """A pattern for all of them: those that begin with a word, and those that begin with a time. Their order says which
    of two that begin alike is meant."""
    alternatives = [(form, _alternative(i, form)) for i, (_, form) in enumerate(_FORMS)]
    by_time = [pattern for form, pattern in alternatives if re.match(r"(?:\(\?<[^)]*\) )?ALPHA", form)]
    by_word = [pattern for _, pattern in alternatives if pattern not in by_time]
    return f"(?:{'|'.join(by_word)}|(?={Kind.TIME})(?:{'|'.join(by_time)}))"


_SPAN = re.compile(kinds("(?= [start end enter not last between from time list open] )") + _any_form())
_SCORED = frozenset(i for i, (_, form) in enumerate(_FORMS) if "SCORE" in form)
_LONE_PAIR = re.compile(
    _alternative(0, "[open list newline]* ALPHA close? [comma and]? newline? [open list]? OMEGA [close stop newline]*")
)


def find_candidates(tokens: Tokens) -> list[Candidate]:
    """Candidates in the order of the text.

    Chains like ``5 - 9 - 12`` are none: nothing says which two belong together. Two times and nothing else are one.
    """
    candidates = []
    position = 0
    if tokens.kinds.count(Kind.TIME) < 2:
        return []
    while found := _SPAN.search(tokens.kinds, position):
        position = found.end()
        i = int(str(found.lastgroup)[4:])
        if i in _SCORED and (score := found.start(f"score{i}")) >= 0 and not 0 <= tokens.time(score).value <= 1:
            continue
        form, a, b = _FORMS[i][0], found.start(f"start{i}"), found.start(f"end{i}")
        if form == "until" and (tokens.time(a).unit is None or tokens.time(b).unit is None):
            position = found.start() + 1
            continue
        if form == "at_length":
            if tokens.time(a).unit is None and not tokens.time(a).decimal and not tokens.is_led(a):
                position = found.start() + 1  # "2 of which last 5 s"
                continue
            form = "length"
        candidates.append(Candidate(form, found.start(), found.end() - 1, tokens.time(a), tokens.time(b), b))
    if not candidates and (lone := _LONE_PAIR.fullmatch(tokens.kinds)):
        a, b = lone.start("start0"), lone.start("end0")
        candidates.append(Candidate("lone", 0, len(tokens.kinds) - 1, tokens.time(a), tokens.time(b), b))
    return candidates
