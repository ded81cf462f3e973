"""One result file, read into cases: a moment, and what was answered to it.

Result files of TimeLens and lmms-eval hold one answer a moment, difficulty files one or several. What a file is, is
recognised from its content. Faults are errors that name file, row (entry of a json object, line of a jsonl file) and
field.

A stored prediction counts as it is stored, since it is what that run was scored by; where none is stored, the answer is
read with :func:`timelens_plugins.answers.parse_answer`. Every answer is read with it anyway, and rows where it finds
another first span than the stored one are returned as disagreements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from timelens_plugins.answers import AnswerStatus, parse_answer
from timelens_plugins.metrics import Sample, Status, Window, join_annotations, reading_iou
from timelens_plugins.moments import Moment, Prediction, load_moments
from timelens_plugins.moments.faults import BY_VALIDATE, skipped_by
from timelens_plugins.moments.json_stream import collection_paused
from timelens_plugins.results.json_files import SEPARATOR, read_rows
from timelens_plugins.results.lmms_eval import SAMPLES_NAME
from timelens_plugins.results.predict_only import Answered, answered_row, join_predictions
from timelens_plugins.results.result_file import Case, Disagreement, ResultFile, samples_of
from timelens_plugins.results.rows import Row, RowFault, is_predict_only, is_result, lmms_eval_row, timelens_row
from timelens_plugins.spans import Span

__all__ = ["PredictOnly", "load_file", "load_results"]

IOU_TOLERANCE = 0.005  # between a recorded IoU and that of the prediction beside it; files round to two decimals


class PredictOnly(ValueError):
    """The file holds answers of ``lmms-eval --predict_only``, which say nothing without their annotations."""


def load_file(path: str | Path, *, annotations: str | Path | None = None, reparse: bool = False) -> ResultFile:
    """Read a result file or a difficulty file; as :func:`load_results`, and a file without rows gives no cases."""
    path = Path(path)
    with path.open("rb") as file:
        if not any(not piece.isspace() for piece in iter(lambda: file.read(1 << 16), b"")):
            return ResultFile(path, "timelens", (), notes=("holds no rows",))
    try:
        results = is_result(next(read_rows(path))[1])
    except ValueError:  # neither: the other reader knows more forms to complain about
        results = False
    if results:
        return load_results(path, annotations=annotations, reparse=reparse)
    if annotations is not None or reparse:
        raise ValueError(f"{path}: --annotations and --reparse are for result files, and this is none")
    with collection_paused():
        return _read_difficulty(path)


def load_results(path: str | Path, *, annotations: str | Path | None = None, reparse: bool = False) -> ResultFile:
    """Read a result file.

    Formats:

    - TimeLens: ``{"<video>>>><query>>>><span>": {"timestamps": [[s, e]], "answers": "…"}}``, as one json object or one
      such object a line. Keys that occur several times are several samples. Where ``timestamps`` is empty, the
      answer is read.
    - lmms-eval ``--log_samples`` of this package's tasks, and of lmms-eval's own ``timelens`` task, which stores no
      prediction, so that the answer is read.
    - lmms-eval ``--predict_only``, which stores answers alone: with the annotations they were made from.

    Answers are read as written and without the duration of the clip, as the evaluation reads them: spans beyond its end
    are not cut, and shares of it are no span. A leading folder of a relative video path
    (``charades/x.mp4``) is taken as the subset's name.

    Args:
        annotations: what the results were made from; an annotation without a result then counts as missing.
        reparse: let the first span that our parser finds in the answer count, instead of the stored prediction.

    Raises:
        ValueError: an unknown format or a fault in a row, with file, row and field; results of other annotations.
        OSError: a file cannot be read.
    """
    path = Path(path)
    predictions = None
    with collection_paused():
        rows = read_rows(path)
        first = next(rows)
        rows = chain([first], rows)
        if is_predict_only(first[1]):
            if annotations is None:
                raise PredictOnly(
                    f"{path}: samples of lmms-eval --predict_only: answers without video, query and score; give the "
                    "annotations they were made from (--annotations)"
                )
            predictions = _read_predictions(path, rows)
            read = ResultFile(path, "lmms-eval --predict_only", (), task=_task(path))
        else:
            read = _read_results(path, rows, reparse)
        return read if annotations is None else _join(read, Path(annotations), predictions)


def _join(read: ResultFile, annotations: Path, predictions: Sequence[Answered] | None) -> ResultFile:
    """Every annotation with its answer."""
    with skipped_by(BY_VALIDATE):
        moments = load_moments(annotations, allow_absent=True)
    expected = [
        Sample(m.video_id, m.query, m.spans, None, "missing", m.source, m.duration, window=_window(m)) for m in moments
    ]
    try:
        if predictions is None:
            joined = join_annotations(expected, samples_of((*read.cases, *read.absent)))
            samples, repeated = joined.samples, joined.repeated
        else:
            samples, repeated = join_predictions(expected, predictions), 0
    except ValueError as error:
        raise ValueError(f"{read.path}, with annotations {annotations}: {error}") from None
    cases, absent = _apart([Case((s,), m.video) for s, m in zip(samples, moments, strict=True)])
    return replace(
        read,
        cases=cases,
        absent=absent,
        annotations=annotations,
        loaded=moments.report.summary(),
        repeated=repeated,
    )


def _apart(cases: Sequence[Case]) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Cases with a span, and those of events that are not in the video."""
    absent = tuple(case for case in cases if not case.moment.target)
    return (tuple(case for case in cases if case.moment.target) if absent else tuple(cases)), absent


def _read_results(path: Path, rows: Iterator[tuple[int, dict[str, Any]]], reparse: bool) -> ResultFile:
    cases: list[Case] = []
    disagreements: list[Disagreement] = []
    documents: dict[object, int] = {}
    names: dict[str, str] = {}  # queries of one video share its name, all share the subset's
    read = left_out = 0
    first = next(rows)
    keyed = SEPARATOR in next(iter(first[1]))
    for number, entry in chain([first], rows):
        try:
            if keyed:
                row = timelens_row(entry)
            else:
                row = lmms_eval_row(entry)
                _refuse_second(documents, number, entry["doc_id"])
            row.video, row.subset = (names.setdefault(name, name) for name in (row.video, row.subset))
            sample, parsed = _settle(row, reparse)
        except RowFault as error:
            raise ValueError(f"{path}: row {number}, {error}") from None
        cases.append(Case((sample,), row.video))
        left_out = max(left_out, row.videos_left_out)
        if row.stored is not None or row.status:
            if row.answer is not None and row.status != "missing" and not _same(_stored(row)[0], parsed):
                disagreements.append(Disagreement(number, row.stored, parsed, row.answer))
        elif parsed is not None:
            read += 1
    present, absent = _apart(cases)
    return ResultFile(
        path,
        "timelens" if keyed else "lmms-eval",
        present,
        task="" if keyed else _task(path),
        disagreements=tuple(disagreements),
        read_from_answer=read,
        videos_left_out=left_out,
        reparse=reparse,
        absent=absent,
    )


def _task(path: Path) -> str:
    named = SAMPLES_NAME.fullmatch(path.name)
    return named["task"] if named else ""


def _refuse_second(documents: dict[object, int], number: int, document: object) -> None:
    if not isinstance(document, int | str):
        raise RowFault(f"field 'doc_id': expected a number or text, got {type(document).__name__}")
    if (before := documents.setdefault(document, number)) != number:
        raise RowFault(
            f"field 'doc_id': {document!r} stands in row {before} already; the file holds several filters "
            f"or several runs (lmms-eval appends): keep one of them"
        )


def _settle(row: Row, reparse: bool) -> tuple[Sample, Span | None]:
    """The sample of a row, and the first span of its answer."""
    missing = row.status == "missing"
    if reparse and row.answer is None and not missing:
        raise RowFault("there is no answer to read the prediction from")
    spans, status = ([], "") if row.answer is None else parse_answer(row.answer, query=row.query)
    parsed = spans[0] if spans else None
    if row.answer is not None and (reparse or (row.stored is None and not row.status)):
        return _sample(row, parsed, str(status), missing), parsed
    stored, failure = _stored(row)
    return _sample(row, stored, failure, missing), parsed


def _stored(row: Row) -> tuple[Span | None, str]:
    """The stored prediction as a span, or why it is none: as in the benchmark, it has to end after it starts."""
    if row.stored is None:
        return None, row.status
    start, end = row.stored
    if start < end:
        return Span(start, end), ""
    return None, str(AnswerStatus.SWAPPED if start > end else AnswerStatus.ZERO_LENGTH)


def _sample(row: Row, predicted: Span | None, failure: str, missing: bool = False) -> Sample:
    status: Status = "missing" if missing else "unparsed" if predicted is None else "parsed"
    return Sample(
        row.video,
        row.query,
        row.target,
        predicted if status == "parsed" else None,
        status,
        row.subset,
        row.duration,
        row.answer,
        failure if status == "unparsed" else "",
        row.window,
    )


def _read_predictions(path: Path, rows: Iterator[tuple[int, dict[str, Any]]]) -> list[Answered]:
    predictions: list[Answered] = []
    documents: dict[object, int] = {}
    for number, entry in rows:
        try:
            predictions.append(answered_row(number, entry))
            _refuse_second(documents, number, entry["doc_id"])
        except RowFault as error:
            raise ValueError(f"{path}: row {number}, {error}") from None
    return predictions


def _read_difficulty(path: Path) -> ResultFile:
    with skipped_by(BY_VALIDATE):
        moments = load_moments(path)
    bare = [m for m in moments if not m.predictions]
    if bare:
        raise ValueError(
            f"{path}: read as {moments.report.format}, and {len(bare)} of {len(moments)} moments hold no prediction, "
            f"such as {bare[0].id!r}. Give a result file or a difficulty file, and annotations as --annotations"
        )
    differing = 0
    cases = []
    for moment in moments:
        about = moment.video_id, moment.query, moment.spans
        row = Row(*about, None, None, moment.source, duration=moment.duration, window=_window(moment))
        samples = []
        for prediction in moment.predictions:
            first = next(iter(prediction.spans), None)
            row.answer = prediction.answer
            samples.append(_sample(row, first, _failure(prediction, moment.query) if first is None else ""))
            recorded = prediction.iou
            differing += (
                recorded is not None and abs(recorded - reading_iou(first, moment.spans, "exact")) > IOU_TOLERANCE
            )
        cases.append(Case(tuple(samples), moment.video))
    notes = []
    if differing:
        notes.append(
            f"{differing} recorded IoUs are not those of the first predicted span; the figures here are computed from "
            "the spans"
        )
    if moments.report.flags:
        flags = ", ".join(f"{count} {flag}" for flag, count in moments.report.flags.items())
        notes.append(f"flagged annotations: {flags}")
    return ResultFile(path, "difficulty", tuple(cases), notes=tuple(notes))


def _failure(prediction: Prediction, query: str) -> str:
    """Why an answer holds no span, where its text is known and says so."""
    status = AnswerStatus.PARSED if prediction.answer is None else parse_answer(prediction.answer, query=query).status
    return "" if status is AnswerStatus.PARSED else str(status)


def _window(moment: Moment) -> Window | None:
    if moment.video_start is None or moment.video_end is None:
        return None
    return moment.video_start, moment.video_end


def _same(stored: Span | None, parsed: Span | None) -> bool:
    if stored is None or parsed is None:
        return stored is parsed
    return stored == parsed or all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(stored, parsed, strict=True))
