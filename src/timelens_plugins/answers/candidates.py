"""Everything in a tokenised text that is written like a span, as patterns over the tokens' codes.

The codes are listed in :mod:`timelens_plugins.answers.vocabulary`. Every repetition has an upper bound, so the search
is linear.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from timelens_plugins.answers.tokens import UNIT_SECONDS, Token, Tokens

__all__ = ["Candidate", "find_candidates"]


@dataclass(slots=True)
class Candidate:
    """Two times that belong together.

    ``kind`` is the form it is written in (see ``_FORMS``). It spans the kept tokens ``first`` to ``last`` (inclusive);
    ``a`` is its start, ``b`` its end, or its length where ``kind`` is ``length``, and stands at kept token ``b_index``.
    """

    kind: str
    first: int
    last: int
    a: Token
    b: Token
    b_index: int
    unit: str | None = field(init=False)

    def __post_init__(self) -> None:
        self.unit = self.b.unit or self.a.unit

    @property
    def seconds(self) -> tuple[float, float]:
        """The two times in seconds, as ordered in the text. One without unit takes the other's (``1 to 2 minutes``)."""
        start = self.a.value * UNIT_SECONDS[self.a.unit or self._shared]
        end = self.b.value * UNIT_SECONDS[self.b.unit or self._shared]
        return (start, start + end) if self.kind == "length" else (start, end)

    @property
    def _shared(self) -> str:
        return self.unit if self.unit in ("ms", "min", "h") and self.kind != "length" else "s"

    @property
    def whole_numbers(self) -> bool:
        """Whether both are plain whole numbers, which count other things as readily as seconds."""
        return self.unit is None and not (self.a.decimal or self.b.decimal)


_JOINED = r"[)\]]?(?:\(?[Sw]?\))?(?:\(X?[TJ]\))?(?:C?[DO]{1,2}n?|nDn)[(\[]{0,2}"

# α is the code T of the start (or of a start to which a length is added), ω that of the end (or of the length).
_FORMS: tuple[tuple[str, str], ...] = (
    ("labelled", r"S[^TEJ]{0,8}α[^TSEJ]{0,4}L[^TSEJ]{0,4}T[^TSJ]{0,6}E[^TSJ]{0,8}ω"),  # start 5, duration 4, end 9
    ("labelled", r"S[^TEJ]{0,8}α[^TSJ]{0,14}E[^TSJ]{0,8}ω"),  # starts at 5, ends at 9
    ("labelled", r"E[^TSJ]{0,8}ω[^TEJ]{0,10}S[^TEJ]{0,8}α"),  # ends at 9, having started at 5
    ("labelled", r"S[^T.EJ]{0,8}α[^TJ.]{0,6}Oω(?![DO]T)"),  # starts at 5 and continues until 9
    ("labelled", r"S[^T.]{0,3}E[^TJ]{0,8}α[^TSEJ.]{0,3}ω"),  # the start and end times are 5 and 9
    ("labelled", r"α[^TSEJ.n]{0,3}A[wg]?E[^TSEJ.n]{0,3}ω"),  # sits down at 5 and finishes at 9
    ("labelled", r"α[^TSEJ.n]{0,1}S[^TSEJ.n]{0,4}ω[^TSEJ.n]{0,1}E(?![^T]{0,3}T)"),  # 5 (start), 9 (end)
    ("length", r"S[^TEJ]{0,8}α[^TSEJ]{0,10}(?:L[^TOJ]{0,3}|f)ω(?![DO]T)"),  # starts at 5 and lasts 4
    ("length", r"L[^TSEJ]{0,3}ω[^TEJ]{0,4}S[^TEJ]{0,4}α(?![^TSE]{0,6}E)"),  # duration 4, start 5
    ("length", r"α[^TSE.J]{0,6}(?:Lf?|f)ω(?![DOA]T)"),  # at 5 for 4
    ("between", r"B[^TJ.n]{0,2}αD?(?:\(T\))?[AOD]{1,2}ω"),  # between 5 and 9
    ("between", r"α[AOD]ωb"),  # 在5秒和9秒之间
    ("from", rf"F[^TJ.n]{{0,1}}α{_JOINED}ω(?![DO]T)"),  # from 5 to 9
    ("from", r"Fα[^TFJ.n]{0,5}Oω(?![DO]T)"),  # from 5 and continuing to 9
    ("range", rf"(?<!T[DO])α{_JOINED}ω(?![DO]T)"),  # 5 - 9
    ("list", r"(?<![SE])\[n?αC?n?ωC?n?\)"),  # [5, 9]
    ("pair", r"(?<![SE])\(αCω\)"),  # (5, 9)
    ("pair", r"(?<=Q)αCω(?=[.n]|$)"),  # answer: 5, 9
)
_SPAN = re.compile(
    "|".join(
        f"(?P<form{i}>{form.replace('α', f'(?P<start{i}>T)').replace('ω', f'(?P<end{i}>T)')})"
        for i, (_, form) in enumerate(_FORMS)
    )
)
_LONE_PAIR = re.compile(r"[(\[n]*(?P<a>T)[)]?[CA]?n?[(\[]?(?P<b>T)[)\].n]*")


def find_candidates(tokens: Tokens) -> list[Candidate]:
    """Candidates in the order of the text.

    Chains like ``5 - 9 - 12`` are none: nothing says which two belong together. Two times and nothing else are one.
    """
    candidates = []
    for found in _SPAN.finditer(tokens.codes):
        i = int(str(found.lastgroup)[4:])
        a, b = found.start(f"start{i}"), found.start(f"end{i}")
        candidates.append(Candidate(_FORMS[i][0], found.start(), found.end() - 1, tokens.kept[a], tokens.kept[b], b))
    if not candidates and (lone := _LONE_PAIR.fullmatch(tokens.codes)):
        a, b = lone.start("a"), lone.start("b")
        candidates.append(Candidate("lone", 0, len(tokens.codes) - 1, tokens.kept[a], tokens.kept[b], b))
    return candidates
