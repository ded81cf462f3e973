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
    """Two times that belong together; ``first`` to ``last`` are the kept tokens it spans (inclusive)."""

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
        """The two times as written, in seconds; a time without unit takes the unit of the other (``1 to 2
        minutes``)."""
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

_PATTERNS = {
    # start 5, duration 4, end 9 / start 5, end 9 / starts at 5 and lasts 4 / starts at 5 and goes on until 9
    "labelled": r"S[^TEJ]{0,8}(?P<a0>T)[^TSEJ]{0,4}L[^TSEJ]{0,4}T[^TSJ]{0,6}E[^TSJ]{0,8}(?P<b0>T)"
    r"|S[^TEJ]{0,8}(?P<a1>T)[^TSJ]{0,14}E[^TSJ]{0,8}(?P<b1>T)"
    r"|E[^TSJ]{0,8}(?P<b2>T)[^TEJ]{0,10}S[^TEJ]{0,8}(?P<a2>T)"
    r"|S[^T.EJ]{0,8}(?P<a3>T)[^TJ.]{0,6}O(?P<b3>T)(?![DO]T)"
    r"|S[^T.]{0,3}E[^TJ]{0,8}(?P<a4>T)[^TSEJ.]{0,3}(?P<b4>T)"
    r"|(?P<a16>T)[^TSEJ.n]{0,3}A[wg]?E[^TSEJ.n]{0,3}(?P<b16>T)"
    r"|(?P<a5>T)[^TSEJ.n]{0,1}S[^TSEJ.n]{0,4}(?P<b5>T)[^TSEJ.n]{0,1}E(?![^T]{0,3}T)",
    "length": r"(?:S[^TEJ]{0,8})(?P<a6>T)[^TSEJ]{0,10}(?:L[^TOJ]{0,3}|f)(?P<b6>T)(?![DO]T)"
    r"|L[^TSEJ]{0,3}(?P<b7>T)[^TEJ]{0,4}S[^TEJ]{0,4}(?P<a7>T)(?![^TSE]{0,6}E)"
    r"|(?P<a8>T)[^TSE.J]{0,6}(?:Lf?|f)(?P<b8>T)(?![DOA]T)",
    "between": r"B[^TJ.n]{0,2}(?P<a9>T)D?(?:\(T\))?[AOD]{1,2}(?P<b9>T)|(?P<a10>T)[AOD](?P<b10>T)b",
    "from": rf"F[^TJ.n]{{0,1}}(?P<a11>T){_JOINED}(?P<b11>T)(?![DO]T)|F(?P<a12>T)[^TFJ.n]{{0,5}}O(?P<b12>T)(?![DO]T)",
    "range": rf"(?<!T[DO])(?P<a13>T){_JOINED}(?P<b13>T)(?![DO]T)",
    "list": r"(?<![SE])\[n?(?P<a14>T)C?n?(?P<b14>T)C?n?\)",
    "pair": r"(?<![SE])\((?P<a15>T)C(?P<b15>T)\)|(?<=Q)(?P<a17>T)C(?P<b17>T)(?=[.n]|$)",
}
_SPAN = re.compile("|".join(f"(?P<{kind}>{pattern})" for kind, pattern in _PATTERNS.items()))
_ENDS = {
    int(name[1:]): (number, _SPAN.groupindex["b" + name[1:]])
    for name, number in _SPAN.groupindex.items()
    if re.fullmatch(r"a\d+", name)
}

_LONE_PAIR = re.compile(r"[(\[n]*(?P<a>T)[)]?[CA]?n?[(\[]?(?P<b>T)[)\].n]*")


def find_candidates(tokens: Tokens) -> list[Candidate]:
    """Candidates in the order of the text. Chains like ``5 - 9 - 12`` are none: nothing says which two belong
    together."""
    candidates = []
    for found in _SPAN.finditer(tokens.codes):
        a, b = next((a, b) for a, b in _ENDS.values() if found[a] is not None)
        candidates.append(_candidate(tokens, str(_kind(found)), found, found.start(a), found.start(b)))
    if not candidates and (lone := _LONE_PAIR.fullmatch(tokens.codes)):
        candidates.append(_candidate(tokens, "lone", lone, lone.start("a"), lone.start("b")))
    return candidates


def _kind(found: re.Match[str]) -> str | None:
    return next((kind for kind in _PATTERNS if found[kind] is not None), None)


def _candidate(tokens: Tokens, kind: str, found: re.Match[str], a: int, b: int) -> Candidate:
    return Candidate(kind, found.start(), found.end() - 1, tokens.kept[a], tokens.kept[b], b)
