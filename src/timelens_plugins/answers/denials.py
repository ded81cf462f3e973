"""Answers that deny: the event does not happen, there is no span."""

from __future__ import annotations

import re
import string
from functools import lru_cache

from timelens_plugins.answers.candidates import Candidate
from timelens_plugins.answers.choice import Standing
from timelens_plugins.answers.tokens import Tokens
from timelens_plugins.answers.vocabulary import Kind, kinds

__all__ = ["find_denials", "is_withdrawn", "says_absent", "says_nothing", "stands_alone"]

_VERB = (
    r"(?:happen|occur|take place|taking place|appear|exist|present|visible|shown|depict|found|seen|contain|includ|"
    r"featur|show|find|identif|locat|determin|observ|detect|match|correspond|applicable|possible|see)"
)
_CJK_DENIAL = (
    "没有发生|未发生|不存在|没有出现|未出现|没有找到|无法"
    "|(?<!では)ありません|起こりません|発生しません|見つかりません|見当たりません"
)
_NOT = r"\b(?:not|cannot|never|(?:is|are|was|were|do|does|did|ca|could|wo|would)n't)\b"
_IN_THE_VIDEO = r"in (?:the|this) (?:given |provided |entire |whole )?(?:video|clip|footage)\b(?!'s)"
_DENIAL = re.compile(
    rf"{_NOT}(?: [a-z']{{1,20}}){{0,4}}? {_VERB}[a-z]{{0,6}}\b"
    rf"|(?:{_NOT}(?: anywhere)?|\bnowhere) {_IN_THE_VIDEO}"
    rf"|\b(?:nobody|nothing|no one|nowhere)\b(?! else\b)(?: [a-z']{{1,20}}){{1,8}}? in (?:the|this)"
    rf" (?:given |provided )?(?:video|clip|footage)\b"
    rf"|\bno (?!better |other |further |more )(?:such |[a-z]{{1,15}} ){{0,2}}(?:event|moment|scene|instance|evidence"
    rf"|sign|trace|indication|segment|occurrence|match|action"
    rf"|activity)[a-z]{{0,3}}\b"
    rf"|{_NOT}(?: [a-z']{{1,20}}){{1,8}}? (?:at any (?:point|time)|anywhere)\b"
    r"|\bthere(?:'s| is| are| was| were) no(?! (?:one else|others?|further|more|additional)\b)(?: [a-z']{1,20}){1,8}?"
    r" in (?:the|this) (?:given |provided )?(?:video|clip|footage)\b"
    r"|\bunable to\b|\bimpossible to\b|\babsent from\b|\bmissing from\b|\bnone of\b|(?<=answer: )none\b|\bn/a\b"
    rf"|{_CJK_DENIAL}"
)
_SIGNS = (
    *(
        "there",
        "no",
        "n't",
        "never",
        "unable",
        "impossible",
        "absent",
        "missing",
        "n/a",
        *_CJK_DENIAL.replace("(?<!では)", "").split("|"),
    ),
)
"""One of these is in every denial."""

_QUOTE = re.compile(r".*(?<![a-z0-9])['\"](?! |$)(?!.*[a-z0-9.!?]['\"](?![a-z0-9]))")
"""A line that ends inside of a quotation: of the query, whose words are no denial."""
_NEVER = re.compile(r"\b(?:never|nobody|no one)\b(?! (?:stop|end|else))")
_SET_OFF = re.compile(r"(?<![a-z])'|'(?![a-z])|\"|:(?![0-9])")
_LETTERS = frozenset(string.ascii_lowercase)
_LONGEST_STEM = len("would") + 1  # before "n't"; "can" before "not" is shorter

_LOCAL = re.compile(
    r"(?: [a-z']{1,15}){0,3}? (?:until|till|before|prior|after|again|elsewhere|outside|anymore|only"
    r"|else|other|others|another|beyond|than|except|besides|in the (?:first|beginning|rest)|at the (?:beginning|start)"
    r"|(?:in|from|between|at|during) (?:about |around |the )?[0-9])"
)
_RELATIVE = re.compile(r"\b(?:who|which|that)(?: (?:is|are|was|were))? $")
_IN_VIDEO = re.compile(r" (?:in|at|from|anywhere)\b")
_BEHIND_TIME = re.compile(r"[0-9](?: ?s(?:ec(?:ond)?s?)?)?\)? (?:(?:do|does|did|is|are|was|were) )?$")
_ABOUT = re.compile(
    r"\b(?:events?|moments?|actions?|activity|it|this|(?<!note )that|such|there|scenes?|query|sentence|description|"
    r"described|video|clip|footage|i|unable|impossible|no|none|n/a|nobody|nothing|one|nowhere)\b|没有|未|不|无法|ません"
)
_LED = re.compile(kinds("[open list from between start newline]{0,6}"))
_CLOSED = re.compile(kinds("close{0,4} comma? close{0,4} (?: [stop newline] | $)"))
_CJK_LOCAL = re.compile("之前|之后|之後|以前|以后|以後|此前|此后|此後|其他|其它|其余|其餘|别的|別的")
_DIGIT = re.compile("[0-9]")
_NOTHING = re.compile(r"[\[\](){}\s,.\"']*(?:none|null|n/?a|no|nothing|not applicable|-1(?:, ?-1)?)?[\[\](){}\s,.\"']*")

_OF_VIDEO = "(?:视频|視頻|影片|片段|画面|畫面)(?:中|里|裡|内|內|上)?"
_CJK_NOT = "(?:没有?|沒有?|未曾?|从未|從未|并未|並未)"
_ABSENT = re.compile(
    rf"{_NOT}(?! (?:sure|certain|clear|know|tell)\b)(?: [a-z']{{1,20}}){{0,8}}? {_IN_THE_VIDEO}"
    rf"|\bno(?! (?:idea|way|clear|doubt|problem)\b)(?: [a-z']{{1,20}}){{1,8}}? {_IN_THE_VIDEO}"
    r"|\b(?:(?:not relevant|not related|irrelevant|unrelated) to|nothing to do with) (?:the|this) (?:video|query)\b"
    r"|\b(?:is|are|was|were) absent\b|\b(?:unanswerable|(?:cannot|can't) be (?:answered|grounded))\b"
    rf"|{_OF_VIDEO}(?:并|並)?(?:{_CJK_NOT}|不存在|不包含|不含|不见|不見|看不到|找不到|无|無)|不在[这這个個该該此]{{0,2}}{_OF_VIDEO}"
    rf"|{_CJK_NOT}(?:在{_OF_VIDEO})?(?:出现|出現|发生|發生|找到|发现|發現|看到|显示|顯示|包含)"
    "|[无無][关關]|(?:[无無]|没有|沒有)(?:此|该|該|相关|相關|匹配|对应|對應|符合)|[找看]不到|無法"
)
_ABSENT_SIGNS = ("no", "n't", "never", "absent", "relevant", "related", "unanswerable", "reject", "{")
"""One of these is in everything of the two that is written in ASCII."""
_WHOLE_ABSENT = re.compile(
    r"(?:answer: ?)?(?:not (?:found|present|visible|there)|absent|reject(?:ed)?|nowhere|no answer|"
    r"\{ ?[\"'][a-z_]+[\"']: ?(?:\[ ?\]|null) ?\}|(?:答案: ?)?(?:没有|沒有|无|無|不存在|拒绝|拒絕))[.!。! ]*"
)
"""Said without any time, these are denials; beside one they may be about something else."""


@lru_cache(maxsize=256)
def _any_of(signs: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern for those of the signs that a text has: few of them are found sooner than all."""
    return re.compile("|".join(signs) if signs else "(?!)")


def find_denials(text: str, local: bool = False, about_event: bool = False) -> list[int]:
    """Where a cleaned text says that the event does not happen in the video at all: the end of each such phrase.

    A denial for some time only (``does not happen until 5 s``, ``in the first half``) is none, nor is one about
    something else (``the cup is not visible``, ``nothing else happens in the video``). With ``local``, those for some
    time count too. With ``about_event``, those whose own subject is something else (``his face is not in the video``)
    do not.
    """
    ends: list[int] = []
    position = 0
    for sign in _any_of(tuple(sign for sign in _SIGNS if sign in text)).finditer(text):
        start = sign.start()
        if start < position:
            continue
        for _ in range(_LONGEST_STEM):
            if not (start and text[start - 1] in _LETTERS):
                break
            start -= 1
        found = _DENIAL.match(text, start)
        if not found:
            continue
        position = found.end()
        if _QUOTE.match(text[max(0, start - 160) : start].rpartition("\n")[2]):
            continue
        if not local and _LOCAL.match(text, position):
            continue
        floor = max(0, found.start() - 160)
        begin = max(floor, *(text.rfind(mark, floor, found.start()) for mark in (". ", "\n", "; ", "! ")))
        if _RELATIVE.search(text, begin, start) and not _IN_VIDEO.match(text, position):
            continue  # "an instructor that cannot be seen"
        if not local and (_BEHIND_TIME if found[0].isascii() else _DIGIT).search(text[begin:start]):
            continue  # "5 - 9 s does not show it"
        if not found[0].isascii() and _CJK_LOCAL.search(text, begin, position + 4):
            continue  # "没有出现其他人", "之前没有发生"
        if _ABOUT.search(text, begin, start + len(found[0].split(" ")[0]) if about_event else position + 40):
            ends.append(position)
    return ends


def stands_alone(standing: Standing, tokens: Tokens) -> bool:
    """Whether no denial can outweigh candidates of a standing, see :func:`is_withdrawn`: none need be looked for."""
    return standing >= Standing.HAPPENS and Kind.TURN not in tokens.kinds


def is_withdrawn(chosen: list[Candidate], standing: Standing, denials: list[int], tokens: Tokens) -> bool:
    """Whether a denial outweighs the chosen candidates.

    What is stated as the time of the event stands, unless a denial follows after a ``wait`` or ``actually``. Times
    that are only written somewhere fall, unless they follow the denial after a ``but``: then they are the model's
    guess. So do those from 0 on, where a denial is for some time only (``not seen from 0 to 31 s``). Where the answer
    begins with the times and nothing else beside them, a denial has to be about the event.
    """
    if _alone(chosen, tokens):
        denials = find_denials(tokens.text, about_event=True)
    if not denials:
        if standing >= Standing.HAPPENS or any(candidate.seconds[0] != 0 for candidate in chosen):
            return False
        never = _NEVER.search(tokens.text) and not _SET_OFF.search(tokens.text)
        return bool(never or find_denials(tokens.text, local=True))
    if standing >= Standing.HAPPENS:
        return Kind.TURN in tokens.kinds and (
            tokens.kinds.find(Kind.TURN, chosen[-1].last, tokens.index_at(denials[-1])) >= 0
        )
    if Kind.BUT not in tokens.kinds and Kind.TURN not in tokens.kinds:
        return True
    denied, first = tokens.index_at(denials[0]), chosen[0].first
    return all(tokens.kinds.find(kind, denied, first) < 0 for kind in (Kind.BUT, Kind.TURN))


def _alone(chosen: list[Candidate], tokens: Tokens) -> bool:
    """Whether a text begins with the candidates, as a list or a sentence of nothing else."""
    before, after = tokens.kinds[: chosen[0].first], tokens.kinds[chosen[-1].last + 1 :]
    return bool(_LED.fullmatch(before) and _CLOSED.match(after))


def says_absent(text: str) -> bool:
    """Whether a cleaned text, of which no span is known, says that the event is not in the video."""
    if text.isascii() and not any(sign in text for sign in _ABSENT_SIGNS):
        return False
    return bool(_ABSENT.search(text) or _WHOLE_ABSENT.fullmatch(text.strip()))


def says_nothing(text: str) -> bool:
    """Whether a cleaned text is an empty list, ``none``, ``N/A`` or ``[-1, -1]``: there is no such span."""
    return bool(_NOTHING.fullmatch(text)) and any(c.isalnum() or c in "[{" for c in text)
