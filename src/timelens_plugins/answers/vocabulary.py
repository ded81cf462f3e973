"""What the tokens of an answer can be, which words are which, and patterns over them, written in words.

To teach the parser a word, add it to :data:`WORDS`, or a phrase to those of :mod:`timelens_plugins.answers.phrases`; to
teach it a form of span, add a line to the forms of :mod:`timelens_plugins.answers.candidates`.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from enum import StrEnum, auto

__all__ = [
    "AT_WORDS",
    "AUXILIARIES",
    "CJK_WORDS",
    "COUNTING",
    "EXCEPTIONS",
    "EXTENT_VERBS",
    "FITS",
    "GOVERNED",
    "KEY_UNITS",
    "LENGTH_NOUNS",
    "LONE_UNITS",
    "MEASURES",
    "NEUTRAL_FOLLOWERS",
    "PREPOSITIONS",
    "RELATIVES",
    "SHOWS",
    "SIGHT",
    "TIME_NOUNS",
    "TIME_SPAN_NOUNS",
    "VERDICTS",
    "VERDICT_NOUNS",
    "VIDEO_WORDS",
    "Kind",
    "kinds",
    "word_kind",
]


class Kind(StrEnum):
    """What a token is. Each kind is one character, so that a text's kinds are a string to match patterns against;
    patterns name them (:func:`kinds`), and nothing but this class knows the characters."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:
        return string.ascii_letters[count]

    TIME = auto()
    NUMBER = auto()
    """A number that is no time: a date, a share, a frame."""
    DASH = auto()
    """A dash, an arrow, a tilde or dots that join two times."""
    TO = auto()
    AND = auto()
    BUT = auto()
    """``or``, ``but``, ``however``: a new clause."""
    BETWEEN = auto()
    AMID = auto()
    """``between`` in languages that write it behind the times."""
    FROM = auto()
    FOR = auto()
    """``for``, ``takes``: a length follows if it has a unit."""
    START = auto()
    END = auto()
    ENTER = auto()
    LEAVE = auto()
    """``enters`` at one time and ``leaves`` at another: something is there in between."""
    LAST = auto()
    """``lasts``, ``duration``: a length follows."""
    VIDEO = auto()
    HAPPEN = auto()
    EVENT = auto()
    """What was asked for: ``the event``, ``it``."""
    ANSWER = auto()
    """``answer``, ``therefore``: the conclusion follows."""
    TURN = auto()
    """``wait``, ``actually``: what stood before is withdrawn."""
    WRONG = auto()
    """``wrong``, ``not the answer``, ``too short``: the times beside it are withdrawn."""
    EXAMPLE = auto()
    """``for example``, ``format``: what follows only shows a form."""
    NOT = auto()
    AFTER = auto()
    """``after``, ``before``, ``except``: a time mentioned in passing follows."""
    SAME = auto()
    """``that is``, ``i.e.``: the same again."""
    AGAIN = auto()
    """``also``, ``then``: one more of the same."""
    LABEL = auto()
    """``frame``, ``step``, ``score``: numbers beside it are no times."""
    PART = auto()
    """``segment``, ``scene``: its number may follow, or times."""
    COMMA = auto()
    STOP = auto()
    OPEN = auto()
    LIST = auto()
    """An opening square bracket."""
    CLOSE = auto()
    NEWLINE = auto()
    WORD = auto()
    SKIP = auto()
    """Says nothing (``about``, ``the``, ``at``): patterns do not see it."""
    # What the tokens settle by what stands around; patterns see none of these.
    UNIT = auto()
    """A unit apart from its number: ``seconds: 5``, ``[3, 7] minutes``."""
    MINUS = auto()
    TILDE = auto()
    DOTS = auto()
    FIRST = auto()
    """``the beginning of the video``."""
    FINAL = auto()
    """``the end of the video``."""


def kinds(pattern: str, groups: Callable[[str], str] | None = None) -> str:
    """The regular expression over kinds for one written with their names, spaced as one likes.

    ``from [^time number stop newline]? time``; names in capitals are handed to ``groups``.
    """

    def character(name: re.Match[str]) -> str:
        return groups(name[0]) if groups and name[0].isupper() else Kind[name[0].upper()].value

    return re.sub(r"[A-Za-z]+", character, pattern).replace(" ", "")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WORDS: dict[Kind, str] = {
    Kind.TO: "to until untill till til through thru upto bis hasta al jusqu'à à",
    Kind.AND: "and und et",
    Kind.BUT: "or but however though although instead",
    Kind.BETWEEN: "between zwischen entre",
    Kind.FROM: "from von desde del",
    Kind.FOR: "for take takes took taking",
    Kind.START: "start starts started starting begin begins began begun beginning commence commences commencing onset",
    Kind.END: "end ends ended ending stop stops stopped stopping finish finishes finished finishing conclude concludes "
    "concluded concluding offset",
    Kind.ENTER: "enter enters entered entering appear appears appeared appearing arrive arrives arrived arriving",
    Kind.LEAVE: "leave leaves leaving exit exits exited exiting disappear disappears disappeared disappearing vanish "
    "vanishes vanished",
    Kind.LAST: "last lasts lasted lasting duration durations length dur",
    Kind.VIDEO: "video videos footage recording film",
    Kind.HAPPEN: "happen happens happened happening occur occurs occurred occurring corresponds corresponding",
    Kind.EVENT: "occurrence occurrences event events moment moments it action actions activity which query sentence "
    "description described this that",
    Kind.ANSWER: "answer answers conclusion therefore thus hence prediction",
    Kind.WRONG: "wrong incorrect mistaken erroneous inaccurate false rejected discarded dismissed excluded irrelevant "
    "unrelated",
    Kind.TURN: "wait actually correction corrected correcting precisely sorry oops apologies whoops nope",
    Kind.EXAMPLE: "example examples format formatted template",
    Kind.NOT: "not never no none cannot neither nor without isn't aren't wasn't weren't doesn't don't didn't can't "
    "couldn't won't hasn't haven't nobody nothing invisible unseen",
    Kind.AFTER: "after before except excluding exclude reject discard dismiss unlike than by past",
    Kind.SAME: "namely equivalently ie aka",
    Kind.AGAIN: "again also then plus additionally",
    Kind.LABEL: "frame frames step steps score scores confidence probability iou page pages level round rounds "
    "number numbers version room player players jersey question questions option bbox box boxes bbox_2d coordinate "
    "coordinates year years january february march april june july august september october november december age "
    "aged fps ratio no. index idx resolution population temperature rgb route channel chapter chapters section "
    "sections paragraph paragraphs verse verses slide slides lap laps inning innings lesson lessons",
    Kind.PART: "candidate segment segments scene scenes clip clips shot shots part parts instance instances "
    "interval intervals span spans case item group",
    Kind.SKIP: "about around approximately approx roughly nearly almost exactly circa c ca the a at times time's "
    "timecode mark marks is are was were be will would can could of as very it's up les",
    Kind.FIRST: "video_start",
    Kind.FINAL: "video_end",
}
"""The words of each kind; any other is a ``WORD``. ``in`` does not say nothing: it leads."""

CJK_WORDS: dict[Kind, str] = {
    Kind.TO: "到 至 直到 から 부터 에서",
    Kind.AND: "和 与 與 と",
    Kind.FROM: "从 自 從",
    Kind.AMID: "之间 之間 の間",
    Kind.START: "开始 起始 開始 始ま",
    Kind.END: "结束 终止 停止 結束 終了 終わ",
    Kind.ENTER: "进入 出场 入室 入場 登場",
    Kind.LEAVE: "离开 离场 消失 退室 退場",
    Kind.LAST: "持续 时长 持續 時長 継続",
    Kind.VIDEO: "视频 視頻 動画 映像 ビデオ",
    Kind.HAPPEN: "发生 出现 發生 発生 起こ 起き",
    Kind.EVENT: "事件 イベント 出来事",
    Kind.NOT: "不是 并非 並非 并不 不在 不会 没有 沒有 没发生 没出现 未发生 未出现 ません",
    Kind.WRONG: "错误 錯誤 错的 錯的 不正确 不準確 不准确 有误 "
    "間違 違います 違う 誤り ではな ではありません じゃな じゃありません",
    Kind.BUT: "而是 但是 不过 しかし",
    Kind.ANSWER: "答案 因此 答え 回答 したがって",
    Kind.TURN: "等等 不对 更正 实际上 其实 真正 訂正 実際 いや",
    Kind.LABEL: "帧 フレーム",
    Kind.SKIP: "第 约 大约 時刻 時間 时间 左右 的 为 在 于 約 是 不仅 不但 不只 时 "
    "あたり 頃 ごろ まで にかけて に の は が で 까지",
}
"""The same for languages without spaces."""

LONE_UNITS = {
    **dict.fromkeys(("seconds", "second", "secs", "sec", "s", "秒", "segundo", "segundos", "seconde", "secondes"), "s"),
    **dict.fromkeys(("minutes", "minute", "mins", "min"), "min"),
    **dict.fromkeys(("milliseconds", "millisecond", "ms"), "ms"),
}
KEY_UNITS = {**LONE_UNITS, "msec": "ms", "millis": "ms"}
"""Units as the last part of a key: ``start_ms``."""

AT_WORDS = _words("at @ : = second minute timestamp timestamps timecode")
"""Before a number without unit, they say that it is a time."""

NEUTRAL_FOLLOWERS = _words(
    "in of on at into inside when where while whilst as and or for because since with which during is are was "
    "were within after before then but so the a an if to from by he she they it there this that these those we i "
    "you someone somebody who mark marks timestamp timestamps time respectively inclusive approximately approx "
    "roughly around about based showing where's not also only again until through seconds second sec secs s "
    "minutes minute min mins total exactly frame's answer final therefore thus start end starts ends both plus"
)
"""What may follow whole numbers without unit that are times; any other word says what is counted (``2 - 3 cups``)."""

MEASURES = _words(
    "m cm mm km kg g mg lb lbs oz ml l liter liters litre litres meter meters metre metres foot feet ft mile "
    "miles inch inches mph kmh degree degrees percent percentage % times x points pixels px fps frames frame "
    "dollars euros pounds cups year years hz khz db tablespoons teaspoons ppm"
)
"""What may not follow decimal numbers that are times: they measure something else."""

COUNTING = _words(
    "count counts counted counting rise rises rising fall falls increase increases decrease decreases drop drops "
    "change changes changing goes going climb climbs lead leads leading numbered"
)
"""What goes from one whole number to another that is no time, where other times have a unit."""

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

VIDEO_WORDS = _words(
    "video videos clip clips footage recording film full whole entire complete total overall length duration timeline "
    "frames sampled range ranges"
)
"""One of these around a range from 0 to behind all others says that it is the video itself."""

GOVERNED = _words(
    "in at video clip visible present seen shown appear appears appearing be being actually clearly there any anywhere"
)
"""The only words between a negation and the times that it negates (``not visible in 3 - 5 s``)."""

EXTENT_VERBS = _words("lasts last lasting runs run running spans covers ranges goes duration length long")
"""What a sentence about the length of the video itself says (``the video runs from 0 to 30 s``)."""

SIGHT = _words(
    "see sees saw seen visible appear appears appearing present shown show shows find found observe observed detect "
    "detected identify identified"
)
"""What is said of a thing that is to be seen, or not."""

RELATIVES = _words("who whom whose which that with without where when if whether because")
"""Before a negation: it is part of a description (``the man who does not wear a hat``)."""

EXCEPTIONS = _words(
    "doubt sure certain clear know outside beyond only elsewhere else other besides later earlier sooner more less but "
    "except best better"
)
"""Behind a negation: the times that follow are not those that it denies (``not visible outside 3 - 5 s``)."""

FITS = SIGHT | _words(
    "match matches matching fit fits contain contains include includes correspond happen occur count qualify"
)
"""What a range of times does, or does not, that is the answer."""

SHOWS = _words("shows show contains depicts matches fits captures has")
"""What a range of times does with the event that is the answer (``3 - 5 s shows the event``)."""

VERDICTS = _words(
    "count match fit right correct accurate enough sufficient answer event moment one segment interval span range time"
)
"""What a range of times is not, that is not the answer; the first word behind the negation."""

AUXILIARIES = _words("do does did so")

VERDICT_NOUNS = _words(
    "action scene answer answers one ones guess segment moment interval span range time times event part period wait"
)
"""What is called wrong: ``5 - 9 s is the wrong answer``."""

PREPOSITIONS = _words("in of during throughout within for on from into across")
"""Before ``the video``, they say that it is not the subject."""

_KIND_OF = {word: kind for kind, words in WORDS.items() for word in words.split()}
_KEY_ENDINGS = _words("time sec secs seconds s ms timestamp")
_COORDINATES = _words("x y left right top bottom")
_KEY_TIMES = _KEY_ENDINGS | _words("second millis msec min minutes")


def word_kind(word: str) -> Kind:
    """The kind of a lower-case word. Keys like ``start_time`` are read part by part."""
    word = word.removesuffix("'s")
    if word in LONE_UNITS:
        return Kind.UNIT
    if kind := _KIND_OF.get(word):
        return kind
    if "_" in word or word.startswith(("start", "end")):
        return _key_kind([part for part in word.split("_") if part])
    return Kind.WORD


def _key_kind(parts: list[str]) -> Kind:
    kinds_of = [_KIND_OF.get(part, Kind.WORD) for part in parts]
    if Kind.LABEL in kinds_of or not _COORDINATES.isdisjoint(parts):
        return Kind.LABEL
    if Kind.VIDEO in kinds_of:
        return Kind.WORD
    for part, kind in zip(parts, kinds_of, strict=True):
        if kind is Kind.START or (part.startswith("start") and part[5:] in _KEY_ENDINGS):
            return Kind.START
        if kind is Kind.END or (part.startswith("end") and part[3:] in _KEY_ENDINGS):
            return Kind.END
    if parts and parts[0] in ("from", "to") and _KEY_TIMES.issuperset(parts[1:]):
        return kinds_of[0]
    return next((kind for kind in kinds_of if kind in (Kind.LAST, Kind.PART, Kind.ANSWER)), Kind.WORD)
