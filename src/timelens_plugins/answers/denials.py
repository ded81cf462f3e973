"""Answers that deny: the event does not happen, there is no span."""

from __future__ import annotations

import re

from timelens_plugins.answers.candidates import Candidate
from timelens_plugins.answers.choice import Standing
from timelens_plugins.answers.tokens import Tokens

__all__ = ["find_denials", "is_withdrawn", "says_nothing"]

_VERB = (
    r"(?:happen|occur|take place|taking place|appear|exist|present|visible|shown|depict|found|seen|contain|includ|"
    r"featur|show|find|identif|locat|determin|observ|detect|match|correspond|applicable|possible|see)"
)
_DENIAL = re.compile(
    rf"\b(?:not|n't|cannot|never)\b(?: [a-z']{{1,20}}){{0,4}}? {_VERB}[a-z]{{0,6}}\b"
    rf"|\bno (?:such |[a-z]{{1,15}} ){{0,2}}(?:event|moment|scene|instance|evidence|segment|occurrence|match|action"
    rf"|activity)[a-z]{{0,3}}\b"
    r"|\b(?:not|n't|cannot|never)\b(?: [a-z']{1,20}){1,8}? (?:at any (?:point|time)|anywhere)\b"
    r"|\bthere (?:is|are|was|were) no(?: [a-z']{1,20}){1,8}? in (?:the|this) (?:given |provided )?"
    r"(?:video|clip|footage)\b"
    r"|\bunable to\b|\bimpossible to\b|\babsent from\b|\bmissing from\b|\bnone of\b|(?<=answer: )none\b|\bn/a\b"
    r"|没有发生|未发生|不存在|没有出现|未出现|没有找到|无法"
)
_LOCAL = re.compile(
    r"(?: [a-z']{1,15}){0,3}? (?:until|till|before|prior|after|again|elsewhere|outside|anywhere else|anymore|only"
    r"|beyond|in the (?:first|beginning|rest)|at the (?:beginning|start)"
    r"|(?:in|from|between|at|during) (?:about |around |the )?[0-9])"
)
_ABOUT = re.compile(
    r"\b(?:events?|moments?|actions?|activity|it|this|that|such|there|scenes?|query|sentence|description|described|video|clip|"
    r"footage|i|unable|impossible|no|none|n/a)\b|没有|未|不|无法"
)
_NOTHING = re.compile(r"[\[\](){}\s,.\"']*(?:none|null|n/?a|no|nothing|not applicable|-1(?:, ?-1)?)?[\[\](){}\s,.\"']*")


def find_denials(text: str) -> list[int]:
    """Where a cleaned text says that the event does not happen in the video at all: the end of each such phrase.

    A denial for some time only (``does not happen until 5 s``, ``in the first half``) is none, nor is one about
    something else (``the cup is not visible``).
    """
    ends = []
    for found in _DENIAL.finditer(text):
        if _LOCAL.match(text, found.end()):
            continue
        floor = max(0, found.start() - 160)
        start = max(floor, *(text.rfind(mark, floor, found.start()) for mark in (". ", "\n", "; ", "! ")))
        if _ABOUT.search(text, start, found.end() + 40):
            ends.append(found.end())
    return ends


def is_withdrawn(chosen: list[Candidate], standing: Standing, denials: list[int], tokens: Tokens) -> bool:
    """Whether a denial outweighs the chosen candidates.

    What is stated as the time of the event stands, unless a denial follows after a ``wait`` or ``actually``. Times
    that are only written somewhere fall, unless they follow the denial after a ``but``: then they are the model's
    guess.
    """
    if not denials:
        return False
    turns = {code: [t.at for t in tokens.kept if t.code == code] for code in "RK"}
    if standing >= Standing.HAPPENS:
        end = chosen[-1].b.at
        return any(end < turn < denial for turn in turns["K"] for denial in denials[-1:])
    start = chosen[0].a.at
    return not any(denial < turn < start for turn in turns["R"] + turns["K"] for denial in denials[:1])


def says_nothing(text: str) -> bool:
    """Whether a cleaned text is an empty list, ``none``, ``N/A`` or ``[-1, -1]``: there is no such span."""
    return bool(_NOTHING.fullmatch(text)) and any(c.isalnum() or c in "[{" for c in text)
