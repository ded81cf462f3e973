"""What an annotator writes back, read strictly: each object is what was asked for, or a fault with its reason. Pure.

Around the JSON anything may stand. An answer that was cut off keeps the objects that were whole.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from timelens_plugins.answers import normalize_query
from timelens_plugins.spans import Span

__all__ = ["Declined", "ReplyFault", "Said", "read_events", "read_query", "read_span"]

_CLOCK = re.compile(r"(?:(\d+):)?(\d+):([0-5]?\d(?:\.\d+)?)")
_SLACK = 0.5  # seconds, and
_SLACK_SHARE = 0.01  # of the length, by which a time may lie after the end: it is then the end
_SHOWN = 200


class ReplyFault(ValueError):
    """An answer, or a part of it, that is not what was asked for."""


class Declined(ReplyFault):
    """The annotator says that there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence about an event, and when it happens."""

    text: str
    span: Span


def read_events(answer: str, duration: float) -> tuple[list[Said], list[str]]:
    """The events of an answer, and what is wrong with the other parts of it."""
    found: list[Said] = []
    faults: list[str] = []
    for item in _objects(answer):
        try:
            found.append(Said(_text(item, "event"), _span(item, duration)))
        except ReplyFault as fault:
            faults.append(f"{fault}: {_short(json.dumps(item, ensure_ascii=False))}")
    if not found and not faults:
        faults.append(f"no object in the answer: {_short(answer)}")
    return found, faults


def read_query(answer: str, duration: float) -> Said:
    """The sentence and the span of an answer.

    Raises:
        Declined: it says that there is none.
        ReplyFault: it holds none.
    """
    item = _only(answer)
    if "query" in item and item["query"] is None:
        raise Declined("the annotator has no sentence for it")
    return Said(_text(item, "query"), _span(item, duration))


def read_span(answer: str, duration: float) -> Span:
    """The span of an answer.

    Raises:
        ReplyFault: it holds none.
    """
    return _span(_only(answer), duration)


def _only(answer: str) -> Mapping[str, Any]:
    items = _objects(answer)
    if not items:
        raise ReplyFault(f"no object in the answer: {_short(answer)}")
    return items[0]


def _objects(answer: str) -> list[dict[str, Any]]:
    """The JSON objects of a text in order; where one holds a list of objects, these."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    at = 0
    while (at := answer.find("{", at)) >= 0:
        try:
            value, at = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        inner = [item for part in value.values() if isinstance(part, list) for item in part if isinstance(item, dict)]
        found += inner or [value]
    return found


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    text = normalize_query(value) if isinstance(value, str) else ""
    if not text:
        raise ReplyFault(f"no text under {name!r}")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ReplyFault(f"half a character under {name!r}")
    if "\0" in text:
        raise ReplyFault(f"a NUL under {name!r}")
    return text


def _span(item: Mapping[str, Any], duration: float) -> Span:
    start, end = _seconds(item, "start"), _seconds(item, "end")
    if not 0 <= start < end:
        raise ReplyFault(f"{start:g} to {end:g} s is no span")
    if end > duration + max(_SLACK, _SLACK_SHARE * duration) or start >= duration:
        raise ReplyFault(f"{start:g} to {end:g} s lies outside the {duration:g} s of the video")
    first, last = round(start, 2), min(round(end, 2), duration)
    if first >= last:
        raise ReplyFault(f"{start:g} to {end:g} s covers no hundredth of a second of the video")
    return Span(first, last)


def _seconds(item: Mapping[str, Any], name: str) -> float:
    """A number, or a text of one or of a clock time."""
    value = item.get(name)
    time = math.nan
    try:
        if isinstance(value, str):
            text = value.strip().removesuffix("seconds").removesuffix("s").strip()
            clock = _CLOCK.fullmatch(text)
            hours, minutes, seconds = clock.groups() if clock else (0, 0, text)
            time = 3600 * float(hours or 0) + 60 * float(minutes) + float(seconds)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            time = float(value)
    except (ValueError, OverflowError):  # no number, or one of more digits than a time has
        pass
    if not math.isfinite(time):
        raise ReplyFault(f"no time under {name!r}")
    return time


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
