"""The target of a moment as one text: other trainers carry a ``solution`` or ``ground_truth`` along, no columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from timelens_plugins.moments import Moment
from timelens_plugins.spans import Span, as_span

__all__ = ["Truth", "ground_truth", "read_truth"]


class Truth(NamedTuple):
    """What an answer is held against.

    Attributes:
        spans: one or more, in seconds.
        query: numbers of it that an answer repeats are not read as times; None where it is not known.
    """

    spans: tuple[Span, ...]
    query: str | None


def ground_truth(moment: Moment) -> str:
    """The target of a moment as JSON: ``{"spans": [[2.0, 6.0]], "query": "a light turns on"}``."""
    return json.dumps({"spans": [list(span) for span in moment.spans], "query": moment.query}, ensure_ascii=False)


def read_truth(value: Any) -> Truth:
    """The target in what a trainer hands over: the text of :func:`ground_truth`, what it says, or spans alone.

    >>> read_truth('{"spans": [[2, 6]]}').spans == read_truth([2, 6]).spans == read_truth([[2.0, 6.0]]).spans
    True

    Raises:
        ValueError: no spans, or what is none of these.
    """
    content = value
    if isinstance(content, str | bytes):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(_MESSAGE.format(value)) from error
    query = None
    if isinstance(content, Mapping):
        query, content = content.get("query"), content.get("spans", content.get("span"))
        if not isinstance(query, str | None):
            raise ValueError(_MESSAGE.format(value))
    if hasattr(content, "tolist"):  # an array, as data frames give it
        content = content.tolist()
    try:
        pairs = list(content)
        pairs = [pairs] if len(pairs) == 2 and not any(hasattr(end, "__len__") for end in pairs) else pairs
        spans = tuple(as_span(pair) for pair in pairs)
    except (TypeError, ValueError) as error:
        raise ValueError(_MESSAGE.format(value)) from error
    if not spans:
        raise ValueError(_MESSAGE.format(value))
    return Truth(spans, query)


_MESSAGE = (
    'a ground truth must be spans in seconds, as {{"spans": [[2.0, 6.0]], "query": "…"}} or [[2.0, 6.0]], got {!r:.200}'
)
