"""The words that matter, each with the one-letter code that :mod:`candidates` matches patterns of.

====  ==========================================  ====  ==========================================
code  stands for                                  code  stands for
====  ==========================================  ====  ==========================================
T     a time in seconds                           J     a number that is no time (date, %, frame)
D     dash, tilde, arrow, dots                    O     to, until, through
A     and                                         R     or, but: a new clause
B     between                                     b     the word after a Chinese "between"
F     from                                        f     for: a length follows
S     start, begin                                E     end, stop, finish
L     last, duration: a length follows            V     the video itself
H     happen, occur, take place                   e     event, moment, it: what was asked for
Q     answer, therefore: the conclusion           K     wait, actually: what stood before is withdrawn
N     not, never, no                              M     after, before, except: a mention in passing
i     that is, i.e.: the same again               g     again, also: one more of the same
X     frame, step, score: numbers follow          Y     segment, scene: a number may follow, or times
C     comma, semicolon, table bar                 .     end of a sentence
(     any opening bracket                         [     an opening square bracket
)     any closing bracket                         n     line break
w     any other word
====  ==========================================  ====  ==========================================

Words that say nothing (``about``, ``the``, ``at``, ``seconds`` on their own) get no code.
"""

from __future__ import annotations

import re

__all__ = [
    "CHINESE",
    "EXTENT_VERBS",
    "FILLERS",
    "GOVERNED",
    "LENGTH_NOUNS",
    "MEASURES",
    "NEUTRAL_FOLLOWERS",
    "PHRASES",
    "PREPOSITIONS",
    "TIME_NOUNS",
    "TIME_SPAN_NOUNS",
    "word_code",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CODES: dict[str, str] = {
    word: code
    for code, words in {
        "O": "to until untill till til through thru upto",
        "A": "and",
        "R": "or but however though although instead",
        "B": "between",
        "F": "from",
        "f": "for take takes took taking",
        "S": "start starts started starting begin begins began begun beginning commence commences commencing onset",
        "E": "end ends ended ending stop stops stopped stopping finish finishes finished finishing conclude "
        "concludes concluded concluding",
        "L": "last lasts lasted lasting duration durations length dur",
        "V": "video videos footage recording film",
        "H": "happen happens happened happening occur occurs occurred occurring corresponds corresponding",
        "e": "occurrence occurrences event events moment moments it action actions activity which query "
        "sentence description described this that",
        "Q": "answer answers conclusion therefore thus hence prediction",
        "K": "wait actually correction corrected precisely",
        "N": "not never no none cannot neither nor without isn't aren't wasn't weren't doesn't don't didn't "
        "can't couldn't won't hasn't haven't",
        "M": "after before except excluding unlike than by past",
        "i": "namely equivalently ie",
        "g": "again also then plus additionally",
        "X": "frame frames step steps score scores confidence probability iou page pages level round number "
        "numbers version room player jersey question option bbox box boxes bbox_2d coordinate coordinates "
        "year years january february march april june july august september october november december age "
        "aged fps ratio no. index idx resolution population temperature rgb route channel",
        "Y": "segment segments scene scenes clip clips shot shots part parts chapter chapters instance "
        "instances interval intervals span spans case item group",
    }.items()
    for word in words.split()
}

FILLERS = _words(
    "about around approximately approx roughly nearly almost exactly circa c ca the a at times time's timecode "
    "mark marks is are was were be will would of as second seconds sec secs s minute minutes min mins"
)
"""Words that may stand between a time and what joins it to the other. ``in`` is not one: it leads."""

NEUTRAL_FOLLOWERS = _words(
    "in of on at into inside when where while whilst as and or for because since with which during is are was "
    "were within after before then but so the a an if to from by he she they it there this that these those we i "
    "you someone somebody who mark marks timestamp timestamps time respectively inclusive approximately approx "
    "roughly around about based showing where's not also again only until through seconds second sec secs s "
    "minutes minute min mins total exactly frame's answer final therefore thus start end starts ends both plus"
)
"""What may follow a pair of whole numbers without unit; any other word says what is counted (``2 - 3 cups``)."""

MEASURES = _words(
    "m cm mm km kg g mg lb lbs oz ml l liter liters litre litres meter meters metre metres foot feet ft mile "
    "miles inch inches mph kmh degree degrees percent percentage % times x points pixels px fps frames frame "
    "dollars euros pounds cups year years hz khz db tablespoons teaspoons ppm"
)
"""What may not follow a pair of decimal numbers: they measure something else."""

LENGTH_NOUNS = _words("long later ago apart earlier")
"""What follows a range of seconds that is a length: ``5 - 10 seconds long``."""

TIME_NOUNS = _words(
    "at in during within time times timestamp timestamps interval intervals span spans segment segments range "
    "moment period window clip event answer video duration visible seen shown from between starting timeframe "
    "frame's location located"
)
"""What may lead up to a pair of whole numbers without unit, directly or over a colon."""

TIME_SPAN_NOUNS = _words("timestamp timestamps interval span segment range moment window period visible seen timeframe")
"""One of these in the few words before does the same."""

GOVERNED = _words(
    "in at video clip visible present seen shown appear appears appearing be being actually clearly there any"
)
"""The only words between a negation and the times that it negates (``not visible in 3 - 5 s``)."""

EXTENT_VERBS = _words("lasts last lasting runs run running spans covers ranges goes duration length long")
"""What a sentence about the length of the video itself says (``the video runs from 0 to 30 s``)."""

PREPOSITIONS = _words("in of during throughout within for on from into across")
"""Before ``the video``, they say that it is not the subject."""

PHRASES: tuple[tuple[str, str], ...] = (
    (r"tak(?:es?|ing) place|took place", "H"),
    (r"final answer|in conclusion|in summary", "Q"),
    (r"answer(?= (?:the|this|your) )", "w"),
    (
        r"more (?:precisely|specifically|exactly)|to be (?:more )?(?:precise|exact)|i mean|on second thought"
        r"|let me correct",
        "K",
    ),
    (r"(?:tel|no|vol|fig|pp?)\.(?= ?[0-9])", "X"),
    (r"that is,|i\.e\.|aka|or equivalently", "i"),
    (r"not only", "w"),
    (r"such as", "w"),
    (r"sec\.|secs\.|approx\.|ca\.|c\.|t ?=(?! ?[a-z])", "_"),
    (r"all the way|up(?= to\b)|it's", "_"),
)
"""Several words with one code, tried before single words. ``_``: no code."""

CHINESE = {
    "到": "O", "至": "O", "直到": "O", "和": "A", "与": "A", "从": "F", "自": "F", "之间": "b", "开始": "S",
    "起始": "S", "结束": "E", "终止": "E", "持续": "L", "时长": "L", "发生": "H", "出现": "H", "事件": "e", "答案": "Q",
    "因此": "Q", "视频": "V", "帧": "X", "第": "_", "约": "_", "大约": "_", "时间": "_", "左右": "_", "的": "_",
    "为": "_", "在": "_", "于": "_", "秒": "_",
}  # fmt: skip

_UNDERSCORED = re.compile(r"_+")


def word_code(word: str) -> str:
    """The code of a lower-case word; ``_`` for a filler. Keys like ``start_time`` are read part by part."""
    word = word.removesuffix("'s")
    if code := _CODES.get(word):
        return code
    if word in FILLERS:
        return "_"
    if "_" in word or word.startswith(("start", "end")):
        parts = _UNDERSCORED.split(word)
        if "frame" in parts or "frames" in parts:
            return "X"
        if "video" in parts:
            return "w"
        for part in parts:
            if part in ("start", "begin", "onset") or (part.startswith("start") and part[5:] in _KEY_ENDINGS):
                return "S"
            if part in ("end", "stop", "finish") or (part.startswith("end") and part[3:] in _KEY_ENDINGS):
                return "E"
        return next((_CODES[part] for part in parts if _CODES.get(part) in ("L", "X", "Y", "Q")), "w")
    return "w"


_KEY_ENDINGS = _words("time sec secs seconds s ms timestamp")
