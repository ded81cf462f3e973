"""A row of a result file: which moment it is about, which prediction it stores, what the model wrote.

Three writers are known: TimeLens (keyed results), the tasks of this package and lmms-eval's own ``timelens`` task, the
last two in lmms-eval's samples files. Faults name the field; who reads the file adds its name and the row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from timelens_plugins.metrics import Window
from timelens_plugins.moments.rows import RepeatedKeys
from timelens_plugins.results.json_files import SEPARATOR, short
from timelens_plugins.spans import Span, as_span

__all__ = [
    "Row",
    "RowFault",
    "as_target",
    "first_response",
    "is_number",
    "is_of_moments",
    "is_of_sets",
    "is_predict_only",
    "is_result",
    "lmms_eval_row",
    "timelens_row",
]

OWN_METRIC = "mIoU"  # of this package's tasks: a dict with everything a sample needs
MISSING_METRIC = "missing_videos"  # of this package's tasks: {"count": how many videos were absent}
UPSTREAM_METRIC = "timelens_mIOU"  # of lmms-eval's own `timelens` task: {"<video>>>><query>>>><spans>": answer}
SETS_METRIC = "set_mIoU"  # of this package's tasks whose answers are sets of spans, which have a score of their own
METRICS = (OWN_METRIC, UPSTREAM_METRIC)
PREDICT_ONLY = "bypass"  # the metric that lmms-eval --predict_only puts in the place of a task's own


class RowFault(ValueError):
    """A fault inside a row."""


@dataclass(slots=True)
class Row:
    """What a row says, before it is settled which prediction counts.

    ``stored`` is a plain pair, as it may end before it starts. ``status``: how the row's writer has read the answer, so
    that no stored prediction means that there was none; ``""`` where the writer has left it unread.
    """

    video: str
    query: str
    target: tuple[Span, ...]
    stored: tuple[float, float] | None
    answer: str | None
    subset: str = ""
    status: str = ""
    duration: float | None = None
    videos_left_out: int = 0
    window: Window | None = None


def is_result(entry: object) -> bool:
    """Whether it is a row of one of the known writers, or one of lmms-eval at least."""
    return isinstance(entry, dict) and ("doc_id" in entry or SEPARATOR in next(iter(entry), ""))


def is_of_moments(entry: dict[str, Any]) -> bool:
    """Whether a row of lmms-eval is, or may be, about a moment."""
    return "doc_id" not in entry or is_predict_only(entry) or any(isinstance(entry.get(m), dict) for m in METRICS)


def is_of_sets(entry: dict[str, Any]) -> bool:
    """Whether a row of lmms-eval was scored as a set of spans."""
    return isinstance(entry.get(SETS_METRIC), dict)


def is_predict_only(entry: dict[str, Any]) -> bool:
    """Whether ``lmms-eval --predict_only`` wrote the row: an answer, and neither video nor score."""
    return PREDICT_ONLY in entry and not any(metric in entry for metric in METRICS)


def timelens_row(entry: dict[str, Any]) -> Row:
    """``{"<video>>>><query>>>><span>": {"timestamps": [[s, e]], "answers": "…"}}``."""
    if len(entry) != 1:
        raise RowFault(f"a row of this file has one key, this one has {len(entry)}")
    ((key, value),) = entry.items()
    subset, video, query, target = _split_key(key)
    if not isinstance(value, dict):
        raise RowFault(f"the value must be an object with 'timestamps' and 'answers', got {short(value)}")
    _refuse_repeated(value)
    stored: tuple[float, float] | None = None
    timestamps = value.get("timestamps")
    if timestamps is None and "answers" not in value:
        raise RowFault("fields 'timestamps' and 'answers' are both absent")
    if timestamps is not None:
        if not isinstance(timestamps, list):
            raise RowFault(f"field 'timestamps': expected a list of [start, end], got {short(timestamps)}")
        stored = _pair(timestamps[0], "timestamps") if timestamps else None
    answer = value.get("answers")
    if not isinstance(answer, str | None):
        raise RowFault(f"field 'answers': expected text, got {short(answer)}")
    return Row(video, query, target, stored, answer, subset)


def lmms_eval_row(entry: dict[str, Any]) -> Row:
    """A line of ``--log_samples``."""
    _refuse_repeated(entry)
    if "doc_id" not in entry:
        raise RowFault(
            f"neither a TimeLens result ('<video>{SEPARATOR}<query>{SEPARATOR}<span>' as key) nor a row of lmms-eval's "
            f"--log_samples ('doc_id'); its keys are {_names(entry)}"
        )
    if isinstance(entry.get(OWN_METRIC), dict):
        return _own_row(entry)
    if isinstance(entry.get(UPSTREAM_METRIC), dict):
        return _upstream_row(entry[UPSTREAM_METRIC])
    raise RowFault(
        f"field '{OWN_METRIC}' (an object with video, query, span and pred, as this package's tasks log it) is "
        f"missing, and so is '{UPSTREAM_METRIC}' of lmms-eval's timelens task; its keys are {_names(entry)}"
    )


def _own_row(entry: dict[str, Any]) -> Row:
    item = entry[OWN_METRIC]
    _refuse_repeated(item)
    if absent := [name for name in ("video", "query", "span", "pred", "status") if name not in item]:
        raise RowFault(f"field '{OWN_METRIC}': lacks {', '.join(absent)}; it has {_names(item)}")
    for name in ("video", "query", "status"):
        if not isinstance(item[name], str) or not item[name].strip():
            raise RowFault(f"field '{OWN_METRIC}.{name}': expected text, got {short(item[name])}")
    stored = None if item["pred"] is None else _pair(item["pred"], f"{OWN_METRIC}.pred")
    if stored is None and item["status"] == "parsed":
        raise RowFault(f"field '{OWN_METRIC}.pred': null, although '{OWN_METRIC}.status' is 'parsed'")
    duration = item.get("duration")
    if duration is not None and (not is_number(duration) or duration <= 0):
        raise RowFault(f"field '{OWN_METRIC}.duration': expected a positive number of seconds, got {short(duration)}")
    subset = item.get("subset") or ""
    if not isinstance(subset, str):
        raise RowFault(f"field '{OWN_METRIC}.subset': expected text, got {short(subset)}")
    return Row(
        item["video"],
        item["query"],
        as_target(item["span"], f"{OWN_METRIC}.span", allow_absent=True),
        stored,
        first_response(entry.get("filtered_resps")),
        subset,
        item["status"],
        duration,
        _left_out(entry.get(MISSING_METRIC)),
        _window(item),
    )


def _window(item: dict[str, Any]) -> Window | None:
    start, end = item.get("video_start"), item.get("video_end")
    if start is None and end is None:
        return None
    if not is_number(start) or not is_number(end) or not 0 <= start < end:
        raise RowFault(f"field '{OWN_METRIC}.video_start': expected a window in seconds, got {short([start, end])}")
    return float(start), float(end)


def _left_out(item: Any) -> int:
    count = item.get("count", 0) if isinstance(item, dict) else 0
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise RowFault(f"field '{MISSING_METRIC}.count': expected a number of videos, got {short(count)}")
    return count


def _upstream_row(item: dict[str, Any]) -> Row:
    if len(item) != 1:
        raise RowFault(f"field '{UPSTREAM_METRIC}': expected one key, got {_names(item)}")
    ((key, answer),) = item.items()
    if not isinstance(answer, str):
        raise RowFault(f"field '{UPSTREAM_METRIC}': expected the answer's text, got {short(answer)}")
    subset, video, query, target = _split_key(key)
    return Row(video, query, target, None, answer, subset)


def first_response(responses: Any) -> str | None:
    """The answer in ``filtered_resps``, which lmms-eval nests or not."""
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return responses if isinstance(responses, str) else None


def _split_key(key: str) -> tuple[str, str, str, tuple[Span, ...]]:
    """Subset, video, query and spans of a key, split from both ends, as the query may hold the separator itself."""
    video, found, rest = key.partition(SEPARATOR)
    query, found_too, span = rest.rpartition(SEPARATOR)
    if not found or not found_too:
        raise RowFault(f"key {short(key)}: expected '<video>{SEPARATOR}<query>{SEPARATOR}<span>'")
    if not video.strip() or not query.strip():
        raise RowFault(f"key {short(key)}: empty video or query")
    try:
        value = json.loads(span.replace("(", "[").replace(")", "]"))
    except json.JSONDecodeError:
        raise RowFault(f"key {short(key)}: {span!r} is not a span [start, end]") from None
    folder, slash, _ = video.partition("/")
    return folder if slash and folder not in ("", ".", "..") else "", video, query, as_target(value, "span of the key")


def as_target(value: Any, field: str, allow_absent: bool = False) -> tuple[Span, ...]:
    """``[s, e]`` or ``[[s, e], …]`` as spans; the fault names ``field``.

    ``allow_absent``: ``[]`` says that the event is not in the video, as this package's tasks write it.
    """
    if not isinstance(value, list) or not (value or allow_absent):
        raise RowFault(f"field '{field}': expected [start, end] or a list of them, got {short(value)}")
    pairs = value if not value or isinstance(value[0], list) else [value]
    spans = []
    for start, end in (_pair(pair, field) for pair in pairs):
        try:
            spans.append(as_span((start, end)))
        except ValueError as error:
            raise RowFault(f"field '{field}': {error}") from None
    return tuple(spans)


def _pair(value: Any, field: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        raise RowFault(f"field '{field}': expected [start, end] in seconds, got {short(value)}")
    if min(value) < 0:
        raise RowFault(f"field '{field}': times cannot be negative, got {short(value)}")
    return float(value[0]), float(value[1])


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold; NaN is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _refuse_repeated(value: dict[str, Any]) -> None:
    if isinstance(value, RepeatedKeys):
        raise RowFault(f"field '{next(iter(value.repeated))}' is given more than once")


def _names(value: dict[str, Any] | Sequence[str]) -> str:
    return ", ".join(list(value)[:12]) + (", …" if len(value) > 12 else "")
