"""Answers that list options and then name one of them: ``A: 3 - 5 s, B: 12 - 15 s. The answer is B.``"""

from __future__ import annotations

import re

__all__ = ["keep_chosen_option"]

_NUMBERS = {"first": "1", "second": "2", "third": "3", "fourth": "4", "fifth": "5"}
_NAME = r"(?:option|choice|candidate|segment|interval|range|clip|scene|moment|span|window|camera|part)"
_LABEL = rf"['\"(\[#]?(?:([a-h]|[1-9])|the ({'|'.join(_NUMBERS)})(?: one| {_NAME})?)['\")\]]?"
_END = r"[.! ]*$"
_CHOSEN = re.compile(
    rf"(?:\b(?:answer|option|choice|candidate|(?:correct|right|best) (?:one|{_NAME}))(?: is| should be| would be|:)* ?"
    rf"|\b(?:choose|pick|select|chose|go with) )(?:the )?(?:{_NAME} |letter |number )?{_LABEL}{_END}"
    rf"|\b(?:happens|occurs|seen|shown) in {_NAME} {_LABEL}{_END}"
    rf"|(?:\b{_NAME} |[,;:.)\n] ?|\bso |\bbut ){_LABEL} (?:is|seems|looks|fits|matches)\b(?! not)"
    rf"[^.\n0-9]{{0,60}}{_END}"
)
_ITEM = re.compile(
    rf"(?<![a-z0-9.])(?:\(?(?:{_NAME} )?(?P<letter>[a-h])(?:[).:]+| (?=\())|#(?P<number>[1-9]):?"
    rf"|{_NAME} \(?(?P<label>[a-h1-9])\)?(?: is|:| ?[-=])?|(?P<nth>{'|'.join(_NUMBERS)})(?: one| {_NAME})?:"
    r"|(?:(?<=\n)|\A)(?P<line>-)) ?(?=(?:from |between |at |in )?[\[(]?[0-9])"
)
_TAIL = 120  # characters at the end in which an option is named


def keep_chosen_option(text: str) -> str:
    """Of a cleaned text that ends with the name of an option, what it lists under that name; other texts as they are.

    Lines that had a number, which cleaning takes away, are counted. Where nothing is listed under that name alone, what
    names it is left, which states no time.
    """
    named = _CHOSEN.search(text, max(0, len(text) - _TAIL))
    if named is None:
        return text
    items = list(_ITEM.finditer(text, 0, named.start()))
    if len(items) < 2:
        return text
    chosen = _label(next(group for group in named.groups() if group))
    ends = [*(item.start() for item in items[1:]), named.start()]
    found = [
        text[item.end() : end]
        for number, (item, end) in enumerate(zip(items, ends, strict=True), 1)
        if chosen == (str(number) if item["line"] else _label(next(filter(None, item.groups()))))
    ]
    return found[0] if len(found) == 1 else named[0]


def _label(written: str) -> str:
    return _NUMBERS.get(written, written)
