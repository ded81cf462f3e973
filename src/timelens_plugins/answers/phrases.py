"""Phrases that are read as one word, or as none, before a text is split into words."""

from __future__ import annotations

import re
from collections.abc import Callable

from timelens_plugins.answers.numbers import NUMBER_IN_WORDS, NUMBER_WORDS, words_to_digits

__all__ = ["PHRASES"]

_TIME_IN_WORDS = rf"(?:{NUMBER_IN_WORDS} minutes?,? (?:and )?)?{NUMBER_IN_WORDS}"
_VIDEO = r"(?:video|clip|footage|recording|film)"
_SAID = ("mention", "suggest", "propose", "say", "said", "state", "give", "gave", "guess")
PHRASES: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    ("place", r"\b(?:tak(?:e|es|ing)|took) place\b", "happen"),
    ("answer", r"\banswer(?= (?:the|this|your) )", "reply"),
    # what is said of times that are withdrawn
    ("wrong incorrect false mistaken", r"\b(?:not|n't) (?:wrong|incorrect|false|mistaken)\b", "right"),
    (
        "wrong incorrect right correct",
        r"\bthat(?:'s| is) (?:wrong|incorrect|not (?:right|correct))\b|\bthat isn't (?:right|correct)\b",
        "wrong wait",
    ),
    (
        "different another",
        r"\b(?:is|was|are|were) (?:just |only |merely )?(?:a different|another)"
        r"(?= (?:action|event|scene|moment|one)\b)",
        "wrong",
    ),
    ("off", r"\b(?:seems|looks|feels) off\b", "wrong"),
    ("rule rules ruled ruling", r"\brul(?:e|es|ed|ing) out\b", "excluding"),
    ("final matches fits", r"\b(?:final|matches|fits)(?= ?:)", "answer"),
    # coming and going
    (
        "comes came coming",
        r"\bc(?:omes|ame|oming) (?:in(?=\b(?! ?-)(?! (?:the|a|an|his|her)\b))"
        r"|in ?to (?:view|frame|sight|the (?:view|frame|shot|picture|room)))",
        "enters",
    ),
    (
        "view frame sight shot picture room",
        r"\b(?:goes|went|walks|moves|gone) out of (?:view|frame|sight|the (?:view|frame|shot|picture|room))\b",
        "leaves",
    ),
    ("done over", r"\b(?:is|are|was|were) (?:done|over|finished)(?= (?:at|by)\b)", "ends"),
    ("so", r"so(?<=, so)(?= (?:from |between |it is |it's |about )?[0-9])", "therefore"),
    ("kick kicks kicked kicking", r"\bkick(?:s|ed|ing)? off\b", "start"),
    ("wrap wraps wrapped wrapping", r"\bwrap(?:s|ped|ping)? up\b", "end"),
    ("first", r"\b(?:seen )?first(?= (?:seen )?at\b)", "start"),
    ("last", r"\b(?:seen )?last(?= (?:seen )?at\b)", "end"),
    ("spans spanned", r"\bspan(?:s|ned)(?= [0-9.]{1,6} ?s(?:ec(?:ond)?s?)?\b(?! ?(?:-|to\b|until\b)))", "lasts"),
    ("t0 t1 t_0 t_1", r"\bt_?[01] ?= ?([0-9.:]{1,9} ?s?)[,;]? (?:and )?t_?[12] ?= ?", r"start \1, end "),
    ("mistake error", r"\b(?:is|was|are|were) (?:an?|my) (?:mistake|error)\b", "wrong"),
    (
        "too",
        r"(?<!not )\b(?:(?:much|far|a bit|a little) )?too (?:short|long|early|late|narrow|wide)\b(?! (?:for|to)\b)",
        "wrong",
    ),
    ("rather instead opposed", r"\b(?:rather than|instead of|as opposed to)\b", "than"),
    ("edit update updated revised revision amended", r"\b(?:edit|updated?|revised|revision|amended)(?= ?:)", "wait"),
    ("不", r"不(?= ?[,.!])", " wait "),
    ("不对", "不对", " wrong wait "),
    ("い た", r"(?<!では)(?<!じゃ)な(?:い|かった)(?= ?[.,;!)\n]|$)", "ません"),
    (
        "precisely specifically exactly precise exact mean meant thought thoughts let scratch strike mistake error bad "
        "rather looking looked hold wrong inspection review viewing closer",
        r"(?:more (?:precisely|specifically|exactly)|to be (?:more )?(?:precise|exact)|i meant?|on second thoughts?"
        r"|let me (?:correct|fix|double-check|(?:look|think|try|check) again|re-?[a-z]{2,12})"
        r"|scratch that|strike that|my (?:mistake|bad)|or rather|look(?:ing|ed) (?:again|closer)|hold on"
        r"|i was wrong|i made an? (?:mistake|error)|rather(?=,)"
        r"|(?:upon|on) (?:a )?(?:closer|further|second|careful) (?:look|inspection|review|viewing))\b",
        "wait",
    ),
    (
        "initially first thought said guessed",
        r"\b((?:initially|at first|i (?:first )?(?:thought|said|guessed))\b(?:[^.\n]|\.(?=[0-9])){0,80}?)\bbut\b",
        r"\1wait",
    ),
    # whose times they are, where they are not the answer's
    (
        "question query user you description questions users descriptions; "
        + " ".join(verb + ending for verb in _SAID for ending in ("", "s", "d", "ed", "es")),
        rf"\b(?:question|query|user|you|description)s? (?:{'|'.join(_SAID)})"
        r"(?:s|d|ed|es)?(?= (?:about |around |that |it is |it's |from |between |at |in )*['\"(\[]?[0-9])",
        "example",
    ),
    (
        "candidates options choices possibilities alternatives",
        r"\b(?:candidates|options|choices|possibilities|alternatives)(?=(?: are|:)? ?[(\[]?(?:from |between )?[0-9])",
        "example",
    ),
    (
        "your user's first initial earlier previous suggested proposed",
        r"\b(?:your|user's|my (?:first|initial|earlier|previous)|suggested|proposed) "
        r"(?:guess|suggestion|estimate|proposal|range|interval|window|answer)"
        r"(?=(?: of| is| was|:|,)? ?\(?(?:from |between )?[0-9])",
        "example",
    ),
    (
        "question query sentence description; asks refers means describes mentions needs wants",
        r"but the (?<=\bbut the )(?:question|query|sentence|description) "
        r"(?:asks|refers|means|describes|mentions|needs|wants)\b",
        "wait the event",
    ),
    (
        "choose pick prefer select favor favour",
        r"\b((?:choose|pick|prefer|select|favou?r)\b[^.\n]{0,60}?[0-9][^\n]{0,20}?) over(?= [0-9])",
        r"\1 than",
    ),
    ("no", r"\bno(?= ?[,:;!]| -+ | ?\.{3})|(?<=[?.!] )no(?=\. )", "wait"),
    ("no", r"(?<=\? )no(?=\.?$)", "wrong"),
    (
        "missing absent",
        r"\b(?:absent|missing(?<=(?: is|are|was|ere|and| be) missing))"
        r"(?= (?:from|between|in|during|until|till) (?:about |around )?[0-9])",
        "unseen",
    ),
    ("doubt", r"\b(?:no|without(?: a| any)?) doubt\b", "surely"),
    (
        " ".join(NUMBER_WORDS),
        rf"\b{_TIME_IN_WORDS}(?: seconds?)? (?:to|until|till|through|and) {_TIME_IN_WORDS}(?= seconds?\b)"
        rf"|(?<=\bat ){NUMBER_IN_WORDS}(?= seconds?\b)",
        words_to_digits,
    ),
    ("left", r"\band left(?= at\b)", "and leaves"),
    ("wait", r"\bwait(?= (?:for|until|till|in|at|on|from|by|to|and|there|outside|here)\b)", "stay"),
    ("no tel vol fig p pp", r"\b(?:tel|no|vol|fig|pp?)\.(?= ?[0-9])", "number "),
    ("that e equivalently", r"\bthat is,|\bi\.e\.|\bor equivalently\b", "ie"),
    ("example instance g", r"\bfor (?:example|instance)\b|\be\.g\.", "example"),
    ("such like sample", r"\b(?:(?:such as|like)(?= ?['\"(\[])|sample (?:answer|output|response))", "example"),
    (
        "such like",
        r"\b(answers?|outputs?|responses?|something|windows?|durations?|intervals?|segments?|ranges?|clips?|spans?),? "
        r"(?:such as|like)\b",
        r"\1 example",
    ),
    ("only", r"\bnot only\b", "only"),
    ("sec secs", r"(?<![0-9])(?<![0-9] )\bsecs?\.", "sec "),
    ("approx ca c", r"\b(?:approx|ca|c)\.", "about"),
    ("timestamp timestamps", r"\btimestamps?(?= [0-9])", ""),
    (
        "time timestamp timestamps timecode timepoint stamp code point moment position",
        r"\b(?:frame |video )?(?:time ?(?:stamps?|codes?|points?)?|point|moment|position)(?: of|:| =)?"
        r" (?=[<(\[]?[0-9]{1,5}(?:\.[0-9]|:[0-5][0-9]| ?s\b| ?sec))",
        "",
    ),
    ("t", r"\bt ?=(?! ?[a-z])", ""),
    ("way", "all the way", ""),
    # the edges of the video
    (
        "end",
        rf"\bend of (?:the |this )?(?:entire |whole |given )?{_VIDEO}\b|\b{_VIDEO}(?:'s)? end\b(?! time)",
        "video_end",
    ),
    (
        "end",
        r"(?:(?<=the |ery )|(?<=to |il |ll )|(?<=- |, )(?<!start, )(?<!begin, )(?<!_time, )(?<!start - ))"
        r"end(?= ?(?:[.,;()\]\n]|$))(?! \((?:s|secs?|seconds?|ms)\))",
        "video_end",
    ),
    (
        "ends over finished finishes concludes stops",
        rf"(?:(?<=to |il |ll |gh )|(?=when ))(?:when )?(?:the |this )?{_VIDEO}"
        r" (?:ends|is (?:over|finished)|finishes|concludes|stops(?: playing)?)"
        r"(?= ?(?:[.,;()\n]|$))",
        "video_end",
    ),
    (
        "last final",
        rf"(?<=to |il |ll |gh )the (?:very )?(?:last|final) (?:frame|second|moment)(?: of the {_VIDEO})?\b",
        "video_end",
    ),
    ("到 至 直到", r"(?<=[到至])(?:视频的?)?(?:结束|结尾|末尾|最后)", " video_end "),
    ("から", r"(?<=から)(?:動画の)?(?:最後|終わり)", " video_end "),
    ("开 起 开始 起始 头", r"(?<=[从自從])(?:视频的?)?(?:一?开始|开头|起始)", " video_start "),
    ("最 冒 始ま", r"(?:動画の)?(?:最初|冒頭|始まり)(?=から)", " video_start "),
    (
        "start beginning",
        rf"\b(?:beginning|start) of (?:the |this )?(?:entire |whole |given )?{_VIDEO}\b"
        rf"|\b{_VIDEO}'s (?:start|beginning)\b",
        "video_start",
    ),
    (
        "start beginning",
        r"(?<=the |ery )(?:beginning|start)(?= (?:to|until|till|through|and)\b)",
        "video_start",
    ),
)
"""Phrases, each with words of which it holds one (to look for those costs little), or one of each group before and
after a semicolon, and the word it is read as."""
