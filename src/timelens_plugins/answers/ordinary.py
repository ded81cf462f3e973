"""The forms in which most answers are written, read at once by one pattern: to what reading them fully comes to."""

from __future__ import annotations

import re

__all__ = ["read_ordinary"]

_TIME = r"(?:([0-9]{1,2}):(?=[0-5][0-9](?![0-9])))?([0-9]{1,5}(?:\.[0-9]{1,6})?)(?: ?s| seconds?)?"
_THOUGHT = r"<think>(?:[^<◁\n]|\n(?![HhUu]))*+</think>"
_FORMS = (
    rf"(?:(?:The event|It) (?:happens|occurs) (?:in |from |between )?|From |from )?{_TIME}(?: - | to |-){_TIME}\.?",
    rf"(?:The event|It) starts at {_TIME} and ends at {_TIME}\.?",
    rf"\[{_TIME}, {_TIME}\]",
    rf"\[\[{_TIME}, {_TIME}\]\]",
    rf'(?:```json\n)?\[?{{"start(?:_time)?": "?{_TIME}"?, "end(?:_time)?": "?{_TIME}"?}}\]?(?:\n```)?',
)
_ORDINARY = re.compile(rf"\s*(?:{_THOUGHT}\s*)?(?:<answer>\s*)?(?:{'|'.join(_FORMS)})\s*(?:</answer>)?\s*")
_DIGIT = re.compile("[0-9]")


def read_ordinary(text: str, query: str | None) -> tuple[float, float] | None:
    """Start and end in seconds; None where the text is of another form, is no span, or may echo the cleaned query."""
    found = _ORDINARY.fullmatch(text)
    if not found or not found.lastindex:
        return None
    first, last = found.lastindex - 3, found.lastindex
    start_minutes, start, end_minutes, end = found.group(first, first + 1, last - 1, last)
    a = float(start) + 60 * int(start_minutes or 0)
    b = float(end) + 60 * int(end_minutes or 0)
    if a >= b:
        return None
    if query and (_DIGIT.search(query) or query.strip(" .'\"?!") in text.lower()):
        return None
    return a, b
