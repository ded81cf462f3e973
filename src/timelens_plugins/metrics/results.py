"""Result files, read back into samples: TimeLens's keyed json and jsonl, and what lmms-eval writes with --log_samples.

The format is recognised from content. Faults are errors that name file, row (entry of a json object, line of a jsonl
file) and field.

A stored prediction counts as it is stored, since it is what that run was scored by; where none is stored, the answer is
read with :func:`timelens_plugins.answers.parse_spans`. Every answer is read with it anyway, and rows where it finds
another first span than the stored one are returned as disagreements.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from timelens_plugins.answers import parse_spans
from timelens_plugins.metrics.samples import Sample, Status
from timelens_plugins.spans import Span, as_span

__all__ = ["Disagreement", "ResultFile", "load_results"]

Format: TypeAlias = Literal["timelens", "lmms-eval"]
SEPARATOR = ">>>"
OWN_METRIC = "mIoU"  # of this package's tasks: a dict with everything a sample needs
MISSING_METRIC = "missing_videos"  # of this package's tasks: {"count": how many videos were absent}
UPSTREAM_METRIC = "timelens_mIOU"  # of lmms-eval's own `timelens` task: {"<video>>>><query>>>><spans>": answer}


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A row whose stored prediction is not the first span that our parser reads in its answer.

    ``stored`` is a plain pair, as it may end before it starts; such a prediction counts as unparsed.
    """

    row: int
    stored: tuple[float, float] | None
    parsed: Span | None
    answer: str


@dataclass(frozen=True, slots=True)
class ResultFile:
    """The samples of one result file.

    Attributes:
        path: the file.
        format: ``"timelens"`` or ``"lmms-eval"``.
        samples: one per row, repeated keys included.
        disagreements: rows where stored prediction and answer differ (``reparse`` says which of them counts).
        read_from_answer: rows without a stored prediction in which our parser found a span.
        videos_left_out: annotated videos that were absent and therefore not evaluated, as this package's tasks log it.
    """

    path: Path
    format: Format
    samples: tuple[Sample, ...]
    disagreements: tuple[Disagreement, ...]
    read_from_answer: int
    videos_left_out: int


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row says, before it is settled which prediction counts."""

    number: int
    video: str
    query: str
    target: tuple[Span, ...]
    stored: tuple[float, float] | None
    settled: bool  # the row's writer has parsed the answer: no stored prediction means that there was none
    answer: str | None
    missing: bool = False
    videos_left_out: int = 0
    subset: str = ""
    duration: float | None = None


class _RepeatedKeys(dict[str, Any]):
    """A JSON object in which a key occurs more than once; ``pairs`` has them all."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


class _Fault(ValueError):
    """A fault inside a row; :func:`load_results` adds file and row."""


def load_results(path: str | Path, *, reparse: bool = False) -> ResultFile:
    """Read a result file.

    Formats:

    - TimeLens: ``{"<video>>>><query>>>><span>": {"timestamps": [[s, e]], "answers": "…"}}``, as one json object or one
      such object a line. Keys that occur several times are several samples. Where ``timestamps`` is empty, the
      answer is read.
    - lmms-eval ``--log_samples`` of this package's tasks, and of lmms-eval's own ``timelens`` task, which stores no
      prediction, so that the answer is read.

    Answers are read as written, spans beyond the end of the clip included. A leading folder of a relative video path
    (``charades/x.mp4``) is taken as the subset's name.

    Args:
        reparse: let the first span that our parser finds in the answer count, instead of the stored prediction.

    Raises:
        ValueError: an unknown format or a fault in a row, with file, row and field.
        OSError: the file cannot be read.
    """
    path = Path(path)
    entries = _entries(path)
    is_keyed = SEPARATOR in next(iter(entries[0][1]), "")
    parse_row = _timelens_row if is_keyed else _lmms_eval_row
    samples, disagreements, documents = [], [], dict[str, int]()
    read = left_out = 0
    for number, entry in entries:
        try:
            row = parse_row(number, entry)
            if not is_keyed:
                _refuse_second(documents, number, entry)
            sample, parsed = _settle(row, reparse)
        except _Fault as error:
            raise ValueError(f"{path}: row {number}, {error}") from None
        samples.append(sample)
        left_out = max(left_out, row.videos_left_out)
        if row.stored is not None or row.settled:
            if row.answer is not None and not row.missing and not _same(row.stored, parsed):
                disagreements.append(Disagreement(number, row.stored, parsed, row.answer))
        elif parsed is not None:
            read += 1
    file_format: Format = "timelens" if is_keyed else "lmms-eval"
    return ResultFile(path, file_format, tuple(samples), tuple(disagreements), read, left_out)


def _entries(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Numbered rows: lines of a jsonl file; entries of a keyed json object, each as an object of one key."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not text.strip():
        raise ValueError(f"{path}: the file is empty")
    try:
        whole = _parse(text)
    except json.JSONDecodeError as error:
        lines = list(_lines(path, text, error))
    else:
        lines = [(1, whole)]
    entries: list[tuple[int, dict[str, Any]]] = []
    for number, value in lines:
        if not isinstance(value, dict) or not value:
            raise ValueError(f"{path}: row {number}: expected a JSON object with at least one key, got {_short(value)}")
        if SEPARATOR not in next(iter(value)):
            entries.append((number, value))
            continue
        pairs = value.pairs if isinstance(value, _RepeatedKeys) else list(value.items())
        entries += [(i if len(lines) == 1 else number, {k: v}) for i, (k, v) in enumerate(pairs, start=1)]
    return entries


def _lines(path: Path, text: str, whole_file_error: json.JSONDecodeError) -> Iterator[tuple[int, Any]]:
    """The values of a jsonl file with their line numbers; blank lines are passed over."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for i, (number, line) in enumerate(lines):
        try:
            yield number, _parse(line)
        except json.JSONDecodeError as error:
            if i == 0:  # not even one line is JSON: this is a json file with a fault
                e = whole_file_error
                raise ValueError(f"{path}: not JSON: {e.msg} at line {e.lineno}, column {e.colno}") from None
            cut = "; the file seems cut off" if i == len(lines) - 1 else ""
            raise ValueError(f"{path}: line {number} is not JSON: {error.msg} at column {error.colno}{cut}") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise json.JSONDecodeError("nested too deeply", text, 0) from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise json.JSONDecodeError(str(error), text, 0) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    return plain if len(plain) == len(pairs) else _RepeatedKeys(pairs)


def _timelens_row(number: int, entry: dict[str, Any]) -> _Row:
    if len(entry) != 1:
        raise _Fault(f"a row of this file has one key, this one has {len(entry)}")
    ((key, value),) = entry.items()
    subset, video, query, target = _split_key(key)
    if not isinstance(value, dict):
        raise _Fault(f"the value must be an object with 'timestamps' and 'answers', got {_short(value)}")
    _refuse_repeated(value)
    stored: tuple[float, float] | None = None
    timestamps = value.get("timestamps")
    if timestamps is None and "answers" not in value:
        raise _Fault("fields 'timestamps' and 'answers' are both absent")
    if timestamps is not None:
        if not isinstance(timestamps, list):
            raise _Fault(f"field 'timestamps': expected a list of [start, end], got {_short(timestamps)}")
        stored = _pair(timestamps[0], "timestamps") if timestamps else None
    answer = value.get("answers")
    if not isinstance(answer, str | None):
        raise _Fault(f"field 'answers': expected text, got {_short(answer)}")
    return _Row(number, video, query, target, stored, settled=False, answer=answer, subset=subset)


def _lmms_eval_row(number: int, entry: dict[str, Any]) -> _Row:
    _refuse_repeated(entry)
    if "doc_id" not in entry:
        raise _Fault(
            f"neither a TimeLens result ('<video>{SEPARATOR}<query>{SEPARATOR}<span>' as key) nor a row of lmms-eval's "
            f"--log_samples ('doc_id'); its keys are {_names(entry)}"
        )
    if isinstance(entry.get(OWN_METRIC), dict):
        return _own_row(number, entry)
    if isinstance(entry.get(UPSTREAM_METRIC), dict):
        return _upstream_row(number, entry[UPSTREAM_METRIC])
    raise _Fault(
        f"field '{OWN_METRIC}' (an object with video, query, span and pred, as this package's tasks log it) is "
        f"missing, and so is '{UPSTREAM_METRIC}' of lmms-eval's timelens task; its keys are {_names(entry)}"
    )


def _own_row(number: int, entry: dict[str, Any]) -> _Row:
    item = entry[OWN_METRIC]
    _refuse_repeated(item)
    if absent := [name for name in ("video", "query", "span", "pred", "status") if name not in item]:
        raise _Fault(f"field '{OWN_METRIC}': lacks {', '.join(absent)}; it has {_names(item)}")
    for name in ("video", "query", "status"):
        if not isinstance(item[name], str) or not item[name].strip():
            raise _Fault(f"field '{OWN_METRIC}.{name}': expected text, got {_short(item[name])}")
    stored = None if item["pred"] is None else _pair(item["pred"], f"{OWN_METRIC}.pred")
    if stored is None and item["status"] == "parsed":
        raise _Fault(f"field '{OWN_METRIC}.pred': null, although '{OWN_METRIC}.status' is 'parsed'")
    duration = item.get("duration")
    if duration is not None and (not _is_number(duration) or duration <= 0):
        raise _Fault(f"field '{OWN_METRIC}.duration': expected a positive number of seconds, got {_short(duration)}")
    subset = item.get("subset") or ""
    if not isinstance(subset, str):
        raise _Fault(f"field '{OWN_METRIC}.subset': expected text, got {_short(subset)}")
    return _Row(
        number,
        video=item["video"],
        query=item["query"],
        target=_target(item["span"], f"{OWN_METRIC}.span"),
        stored=stored,
        settled=True,
        answer=_first_response(entry.get("filtered_resps")),
        missing=item["status"] == "missing",
        subset=subset,
        duration=duration,
        videos_left_out=_left_out(entry.get(MISSING_METRIC)),
    )


def _left_out(item: Any) -> int:
    count = item.get("count", 0) if isinstance(item, dict) else 0
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise _Fault(f"field '{MISSING_METRIC}.count': expected a number of videos, got {_short(count)}")
    return count


def _upstream_row(number: int, item: dict[str, Any]) -> _Row:
    if len(item) != 1:
        raise _Fault(f"field '{UPSTREAM_METRIC}': expected one key, got {_names(item)}")
    ((key, answer),) = item.items()
    if not isinstance(answer, str):
        raise _Fault(f"field '{UPSTREAM_METRIC}': expected the answer's text, got {_short(answer)}")
    subset, video, query, target = _split_key(key)
    return _Row(number, video, query, target, None, settled=False, answer=answer, subset=subset)


def _refuse_second(documents: dict[str, int], number: int, entry: dict[str, Any]) -> None:
    document = json.dumps(entry["doc_id"])
    if document in documents:
        raise _Fault(
            f"field 'doc_id': {document} stands in row {documents[document]} already; the file holds several filters "
            f"or several runs (lmms-eval appends): keep one of them"
        )
    documents[document] = number


def _first_response(responses: Any) -> str | None:
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return responses if isinstance(responses, str) else None


def _settle(row: _Row, reparse: bool) -> tuple[Sample, Span | None]:
    """The sample of a row, and the first span of its answer."""
    if reparse and row.answer is None and not row.missing:
        raise _Fault("there is no answer to read the prediction from")
    spans = [] if row.answer is None else parse_spans(row.answer, query=row.query)
    parsed = spans[0] if spans else None
    from_answer = row.answer is not None and (reparse or (row.stored is None and not row.settled))
    predicted = parsed if from_answer else _span(row.stored)
    status: Status = "missing" if row.missing else "unparsed" if predicted is None else "parsed"
    if row.missing:
        predicted = None
    sample = Sample(row.video, row.query, row.target, predicted, status, row.subset, row.duration, row.answer)
    return sample, parsed


def _span(stored: tuple[float, float] | None) -> Span | None:
    """A stored prediction as a span; one that ends before it starts is none, and scores 0 as in the benchmark."""
    return Span(*stored) if stored is not None and stored[0] <= stored[1] else None


def _same(stored: tuple[float, float] | None, parsed: Span | None) -> bool:
    if stored is None or parsed is None:
        return stored is parsed
    return all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(stored, parsed, strict=True))


def _split_key(key: str) -> tuple[str, str, str, tuple[Span, ...]]:
    """Subset, video, query and spans of a key, split from both ends, as the query may hold the separator itself."""
    video, found, rest = key.partition(SEPARATOR)
    query, found_too, span = rest.rpartition(SEPARATOR)
    if not found or not found_too:
        raise _Fault(f"key {_short(key)}: expected '<video>{SEPARATOR}<query>{SEPARATOR}<span>'")
    if not video.strip() or not query.strip():
        raise _Fault(f"key {_short(key)}: empty video or query")
    try:
        value = json.loads(span.replace("(", "[").replace(")", "]"))
    except json.JSONDecodeError:
        raise _Fault(f"key {_short(key)}: {span!r} is not a span [start, end]") from None
    folder, slash, _ = video.partition("/")
    return folder if slash and folder not in ("", ".", "..") else "", video, query, _target(value, "span of the key")


def _target(value: Any, field: str) -> tuple[Span, ...]:
    """``[s, e]`` or ``[[s, e], …]`` as spans."""
    if not isinstance(value, list) or not value:
        raise _Fault(f"field '{field}': expected [start, end] or a list of them, got {_short(value)}")
    pairs = value if isinstance(value[0], list) else [value]
    spans = []
    for start, end in (_pair(pair, field) for pair in pairs):
        try:
            spans.append(as_span((start, end)))
        except ValueError as error:
            raise _Fault(f"field '{field}': {error}") from None
    return tuple(spans)


def _pair(value: Any, field: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
        raise _Fault(f"field '{field}': expected [start, end] in seconds, got {_short(value)}")
    if min(value) < 0:
        raise _Fault(f"field '{field}': times cannot be negative, got {_short(value)}")
    return float(value[0]), float(value[1])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _refuse_repeated(value: dict[str, Any]) -> None:
    if isinstance(value, _RepeatedKeys):
        names = [name for name, _ in value.pairs]
        raise _Fault(f"field '{next(name for name in names if names.count(name) > 1)}' is given more than once")


def _names(value: dict[str, Any] | Sequence[str]) -> str:
    return ", ".join(list(value)[:12]) + (", …" if len(value) > 12 else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
