"""Samples of ``lmms-eval --predict_only``: answers whose moments have to be found among annotations.

Such a row has the moment's number in the evaluation (``doc_id``), its prompt and its spans, and neither video nor
query. The evaluation asks the moments in the order of the annotations, and leaves out those whose videos are absent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from timelens_plugins.answers import parse_answer
from timelens_plugins.metrics import Sample
from timelens_plugins.results.rows import RowFault, as_target, first_response, is_predict_only
from timelens_plugins.spans import Span

__all__ = ["Answered", "answered_row", "join_predictions"]


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and what identifies its moment: place in the evaluation, spans, prompt."""

    row: int
    document: int
    target: tuple[Span, ...]
    prompt: str
    answer: str


def answered_row(number: int, entry: dict[str, Any]) -> Answered:
    """A row of the file; what it lacks is a :class:`~timelens_plugins.results.rows.RowFault`."""
    if not is_predict_only(entry):
        raise RowFault("this row is not of --predict_only, as the first one is")
    document, prompt, answer = entry.get("doc_id"), entry.get("input"), first_response(entry.get("filtered_resps"))
    if not isinstance(document, int) or document < 0 or not isinstance(prompt, str) or answer is None:
        raise RowFault("expected a number 'doc_id', a text 'input' and an answer in 'filtered_resps'")
    try:
        target = as_target(json.loads(str(entry.get("target"))), "target", allow_absent=True)
    except (json.JSONDecodeError, RecursionError):
        raise RowFault(f"field 'target': expected spans [[start, end], …], got {entry.get('target')!r:.80}") from None
    return Answered(number, document, target, " ".join(prompt.split()), answer)


def join_predictions(annotations: Sequence[Sample], predictions: Sequence[Answered]) -> list[Sample]:
    """Give every annotation its answer; one without an answer stays ``"missing"``.

    The spans have to be those of the annotation, and its query has to stand in the prompt.

    Raises:
        ValueError: an answer to none of the annotations, or where it cannot be told to which of several.
    """
    predictions = sorted(predictions, key=lambda prediction: prediction.document)
    places = [prediction.document for prediction in predictions]
    if not all(p < len(annotations) and _fits(annotations[p], a) for p, a in zip(places, predictions, strict=True)):
        # Moments were left out before some of these: the others are in their order all the same.
        places = _in_order(annotations, predictions)
        last = _in_order(annotations[::-1], predictions[::-1])[::-1]
        for prediction, place, other in zip(predictions, places, last, strict=True):
            if place != (other := len(annotations) - 1 - other):
                raise ValueError(
                    f"row {prediction.row} answers {annotations[place].describe()} or {annotations[other].describe()}, "
                    "and which of them cannot be told; evaluate with all videos, or with --log_samples alone"
                )
    samples = list(annotations)
    for place, prediction in zip(places, predictions, strict=True):
        spans, status = parse_answer(prediction.answer, query=annotations[place].query)
        samples[place] = replace(
            annotations[place],
            predicted=spans[0] if spans else None,
            status="parsed" if spans else "unparsed",
            answer=prediction.answer,
            failure="" if spans else str(status),
        )
    return samples


def _fits(annotation: Sample, prediction: Answered) -> bool:
    return annotation.target == prediction.target and annotation.query in prediction.prompt


def _in_order(annotations: Sequence[Sample], predictions: Sequence[Answered]) -> list[int]:
    places: list[int] = []
    place = 0
    for prediction in predictions:
        while place < len(annotations) and not _fits(annotations[place], prediction):
            place += 1
        if place == len(annotations):
            raise ValueError(
                f"row {prediction.row} (doc_id {prediction.document}) answers none of the annotations; were the "
                "results made from other annotations?"
            )
        places.append(place)
        place += 1
    return places
