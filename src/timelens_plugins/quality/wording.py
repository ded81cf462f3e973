"""Words of queries: what makes two of them the same question, which carry meaning, which leave it open.

English, as the benchmarks are; queries in other scripts are compared by their words as they stand, and never called
unclear.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from difflib import SequenceMatcher
from typing import Any

__all__ = ["content_words", "near_equal", "opposite", "same_words", "says_no_more", "unclear_reasons"]

_NO_WORD = re.compile(r"[^\w]+")
_ARTICLE = re.compile(r"\b(?:an?|the) ")
_NEAR = 0.9  # share of two queries' letters that stand in both, in order

_EMPTY = frozenset(
    """
    a an the this that these those some any his her its their my our your of to in on at by with from into onto
    for and or but then as while when where which who whom whose is are was were be been being am do does did
    has have had will would can could should may might there here it he she they him them we us you i up down
    out off over under again also very just video videos clip scene screen see sees seen shown shows
    """.split()  # noqa: SIM905 - lists of so many words are read better so
)
"""Words that two queries may share without being about the same thing."""

_VAGUE = frozenset(
    """
    something someone somebody anything thing things stuff object item action activity event scene video clip
    moment part happen occur do does show shown see seen person people man woman guy one
    """.split()  # noqa: SIM905 - lists of so many words are read better so
)
"""Words that tell next to nothing: a query of these alone fits most of a video."""

_OPPOSITES = (
    ("on", "off"),
    ("up", "down"),
    ("in", "out"),
    ("into", "out"),
    ("open", "close"),
    ("open", "shut"),
    ("take", "put"),
    ("sit", "stand"),
    ("start", "stop"),
    ("start", "end"),
    ("begin", "finish"),
    ("begin", "end"),
    ("enter", "leav"),
    ("left", "right"),
    ("first", "last"),
    ("first", "second"),
    ("man", "woman"),
    ("boy", "girl"),
    ("he", "she"),
    ("dress", "undress"),
    ("fill", "empti"),
)
"""Stems of words that make two otherwise equal queries two events."""

_ENDS = frozenset({"stop", "finish", "no", "not", "without"})
"""Stems of words by which a query ends or denies what its other words tell."""

_FEW = 2  # words of a query up to which their order counts

_PRONOUN_FIRST = re.compile(r"^(?:and |then |now |next |later )?(?:he|she|it|they|this (?:is|does)|these are)\b", re.I)
_PRONOUN = re.compile(r"\b(?:he|she|it|they|him|them)\b", re.I)
_CONTEXT = re.compile(
    r"\b(?:again|another time|once more|the (?:second|third|fourth|last|next|previous|first) time|"
    r"(?:does|do|did|doing|repeats?) (?:it|this|that|so|the same)|the same (?:thing|way|as)|this occurs|"
    r"as before|like before|continues?|continued|still \w+ing|the other (?:man|woman|person|guy|people|men|women))\b",
    re.I,
)
_FOLLOWING = re.compile(r"^(?:then|next|after (?:that|this)|afterwards?|finally|later|meanwhile|now)\b", re.I)
_LONG = 30  # words after which a query tells several events


def same_words(query: str) -> str:
    """A query without case, punctuation and kinds of white space: equal for queries that differ in these alone.

    Marks belong to their letters, as the vowels of Indic scripts do; a query of symbols alone is these symbols.

    >>> same_words("A person  opens the door.") == same_words("a person opens the Door")
    True
    """
    return " ".join(_words(query)) or unicodedata.normalize("NFKC", query).strip()


def _words(query: str) -> list[str]:
    text = unicodedata.normalize("NFKC", query).casefold()
    if text.isascii():
        return _NO_WORD.sub(" ", text).split()
    kept = (c if c == "_" or c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return "".join(kept).split()


def near_equal(a: str, b: str) -> bool:
    """Whether two queries are one but for articles and a few letters.

    >>> near_equal("a person opens the door", "person opens the door"), near_equal("opens the door", "shuts the box")
    (True, False)
    """
    a, b = (_ARTICLE.sub("", same_words(query)) for query in (a, b))
    if a == b:
        return True
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    return matcher.real_quick_ratio() >= _NEAR and matcher.quick_ratio() >= _NEAR and matcher.ratio() >= _NEAR


@functools.cache
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


@functools.cache
def _vague_stems() -> frozenset[str]:
    return frozenset(map(_stem, _VAGUE))


@functools.cache
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def content_words(query: str) -> frozenset[str]:
    """Stems of the words that carry meaning.

    >>> sorted(content_words("The person is opening a door"))
    ['door', 'open', 'person']
    """
    return frozenset(_stem(word) for word in _words(query) if word not in _EMPTY)


def opposite(a: str, b: str) -> bool:
    """Whether one query says the opposite of the other, or the same of somebody else.

    >>> opposite("person turns on a light", "person turns the light off"), opposite("sits on a bed", "sits in bed")
    (True, False)
    """
    one, two = ({_stem(word) for word in _words(query)} for query in (a, b))
    only_one, only_two = one - two, two - one
    return any((x in only_one and y in only_two) or (y in only_one and x in only_two) for x, y in _OPPOSITES)


def says_no_more(general: str, special: str) -> bool:
    """Whether a query whose words stand in another one may be true of the other's time, too.

    It is not where it singles out one of several times itself ("again"), or where the other one ends or denies what it
    tells. Of two words also the order counts: so few stand in many a sentence by chance.

    >>> says_no_more("a girl slides down", "a girl slides down the stairs")
    True
    >>> says_no_more("the girl slides down again", "a girl slides down")
    False
    >>> says_no_more("a man plays the guitar", "the man stops playing the guitar")
    False
    >>> says_no_more("he brushes the horse", "next to a horse, a man cleans brushes")
    False
    """
    if _CONTEXT.search(general):
        return False
    own, other = (_words(query) for query in (general, special))
    if any(_stem(word) in _ENDS for word in other) and not any(_stem(word) in _ENDS for word in own):
        return False
    words = [_stem(word) for word in own if word not in _EMPTY]
    if len(set(words)) > _FEW:
        return True
    rest = iter([_stem(word) for word in other])
    return all(word in rest for word in words)


def unclear_reasons(query: str) -> list[str]:
    """Why a query cannot be understood alone, strongest first; empty where it can.

    >>> unclear_reasons("He does it again"), unclear_reasons("a dog catches a ball")
    (['refers', 'pronoun', 'vague'], [])
    """
    words = _words(query)
    if not query.isascii() and not any("a" <= c.lower() <= "z" for c in query):
        return []
    telling = [word for word in words if word not in _EMPTY and _stem(word) not in _vague_stems()]
    found = []
    if _CONTEXT.search(query):
        found.append("refers")
    someone = any(word in _VAGUE for word in words)
    if _PRONOUN_FIRST.search(query) or (_PRONOUN.search(query) and not someone and len(telling) < 3):
        found.append("pronoun")
    if not telling:
        found.append("vague")
    elif len(telling) == 1:
        found.append("short")
    if _FOLLOWING.search(query):
        found.append("follows")
    if len(words) > _LONG:
        found.append("long")
    return found
