"""One row of an annotation file, read field by field: every accessor returns the type it promises or raises.

Nothing is converted or guessed: a number in quotes is not a number, a missing field is not a default.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from timelens_plugins.answers import normalize_query
from timelens_plugins.moments.faults import SKIP, AnnotationError, Fault
from timelens_plugins.spans import Span

__all__ = ["TIME_TOLERANCE", "RepeatedKeys", "Row", "is_pair"]

# Sums such as 113.25999999999999 in published files are not overruns; a microsecond is less than any frame.
TIME_TOLERANCE = 1e-6

CORRECT = f"correct it, or {SKIP} to leave it out and have it counted"


class RepeatedKeys(dict[str, Any]):
    """A JSON object that names a key more than once, of which ``dict`` keeps only the last."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        times = Counter(name for name, _ in pairs)
        self.repeated = {name: count for name, count in times.items() if count > 1}


class Row:
    """Typed access to one JSON object, with its place in the file for messages.

    Args:
        value: the object; anything else is a fault.
        file: what to call the file in messages.
        label: the row's place in the file.
        key: the name the object stands under, in files that are one object keyed by video.
        allow_absent: an empty list of spans says that the event is not in the video; else it is a fault.
    """

    __slots__ = ("allow_absent", "file", "key", "label", "value")

    def __init__(
        self, value: Any, file: str, label: str, key: str | None = None, *, allow_absent: bool = False
    ) -> None:
        self.value, self.file, self.label, self.key, self.allow_absent = value, file, label, key, allow_absent
        if type(value) is dict:
            return
        if not isinstance(value, Mapping):
            raise self.fault(None, f"a row must be an object, got {reprlib.repr(value)}")
        if isinstance(value, RepeatedKeys):
            name, times = next(iter(value.repeated.items()))
            raise self.fault(name, f"the key stands {times} times in one object", "keep one of them")

    def fault(self, field: str | None, reason: str, remedy: str = CORRECT) -> AnnotationError:
        """The error to raise for this row."""
        return AnnotationError(Fault(self.file, self.label, field, reason, remedy))

    def has(self, field: str) -> bool:
        """Whether the field is there and not null."""
        return self.value.get(field) is not None

    def get(self, field: str) -> Any:
        """The field as it stands; missing or null is a fault."""
        value = self.value.get(field)
        if value is None:
            if field in self.value:
                raise self.fault(field, "null")
            held = [reprlib.repr(name) for name in self.value]
            raise self.fault(field, f"missing (the row has {', '.join(held[:12]) or 'no fields'})")
        return value

    def string(self, field: str) -> str:
        """A string, possibly empty."""
        value = self.get(field)
        if not isinstance(value, str):
            raise self.fault(field, f"must be text, got {reprlib.repr(value)}")
        return value

    def text(self, field: str) -> str:
        """A string with something in it."""
        value = self.string(field)
        if not value or value.isspace():
            raise self.fault(field, "empty")
        return value

    def query(self, field: str) -> str:
        """A query as the benchmark's loader normalises it, with something left of it."""
        value = self.string(field)
        query = normalize_query(value)
        if not query:
            raise self.fault(field, f"an empty query: {value!r}" if value else "an empty query")
        return query

    def number(self, field: str) -> float:
        """A finite number."""
        return self.as_number(self.get(field), field)

    def seconds(self, field: str) -> float:
        """A positive number of seconds."""
        value = self.number(field)
        if value <= 0:
            raise self.fault(field, f"must be a positive number of seconds, got {value}")
        return value

    def as_number(self, value: Any, field: str) -> float:
        """``value`` as a finite float; the fault names ``field``."""
        if isinstance(value, bool | str) or not hasattr(value, "__float__"):
            raise self.fault(field, f"must be a number, got {reprlib.repr(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fault(field, f"must be finite, got {number}")
        return number

    def array(self, field: str) -> Sequence[Any]:
        """A list, possibly empty."""
        value = self.get(field)
        if not isinstance(value, list | tuple):
            raise self.fault(field, f"must be a list, got {reprlib.repr(value)}")
        return value

    def span(self, field: str, duration: float | None) -> Span:
        """One pair of seconds that starts within ``duration``."""
        return self.as_span(self.get(field), field, duration)

    def spans(self, field: str, duration: float | None) -> tuple[Span, ...]:
        """Spans that start within ``duration``: a list of pairs, or a single pair; none where the row allows that."""
        values = self.array(field)
        if not values and self.allow_absent:
            return ()
        if not values:
            raise self.fault(field, "no span in it; only an evaluation takes an event that is not in the video")
        if is_pair(values):
            return (self.as_span(values, field, duration),)
        return tuple([self.as_span(value, field, duration) for value in values])

    def as_span(self, value: Any, field: str, duration: float | None) -> Span:
        """``value`` as a span that starts within ``duration`` seconds (None: unknown); the fault names ``field``."""
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise self.fault(field, f"a span is a pair [start, end] in seconds, got {reprlib.repr(value)}")
        try:
            span = Span(*value)
        except (ValueError, OverflowError) as error:
            raise self.fault(field, str(error)) from None
        if duration is not None and span.start > duration + TIME_TOLERANCE:
            raise self.fault(field, f"[{span.start}, {span.end}] starts after the end of the clip at {duration} s")
        return span


def is_pair(value: Any) -> bool:
    """Whether a list is one ``[start, end]`` rather than a list of them. Nulls count: some tools write [null, null]."""
    return len(value) == 2 and not any(isinstance(part, list | tuple) for part in value)
