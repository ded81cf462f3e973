"""Difficulty rows: one a moment, with the fields that TimeLens's tools read, and what this package adds.

``source, data_type, video_path, duration, query, span, pred, answer, iou`` are TimeLens's. Several answers add
``preds``, ``answers``, ``ious``, ``iou_std`` and ``statuses``; ``iou`` is then their mean, and ``pred``, ``answer`` and
``status`` are the first one's. ``status`` is what the answer amounted to (``parsed``, ``swapped``, ``denied``). ``id``
and ``video_id`` tie the row to its moment, ``video_start`` and ``video_end`` are there where it is a window, and
``settings`` says which model answered, and how.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from timelens_plugins.answers import parse_answer
from timelens_plugins.metrics import reading_iou
from timelens_plugins.moments import Moment

__all__ = ["DATA_TYPE", "difficulty_row"]

DATA_TYPE = "grounding"


def difficulty_row(
    moment: Moment, answers: Sequence[str], settings: Mapping[str, Any], video_root: str | None = None
) -> dict[str, Any]:
    """The row of a moment; IoUs are those of the ``exact`` reading: first span of an answer, nothing rounded.

    As in the evaluation, answers are read without the duration of the clip.

    Args:
        moment: what was asked.
        answers: model texts, one or more.
        settings: of the model and its answers; JSON types.
        video_root: folder that the row's ``video_path`` starts from.
    """
    read = [parse_answer(answer, query=moment.query) for answer in answers]
    firsts = [next(iter(answer.spans), None) for answer in read]
    ious = [reading_iou(first, moment.spans, "exact") for first in firsts]
    preds = [[] if first is None else [list(first)] for first in firsts]
    row: dict[str, Any] = {
        "source": moment.source,
        "data_type": DATA_TYPE,
        "video_path": os.path.relpath(moment.video, video_root) if video_root else moment.video,
        "duration": moment.duration,
        "query": moment.query,
        "span": [list(span) for span in moment.spans],
        "pred": preds[0],
        "answer": answers[0],
        "iou": statistics.fmean(ious),
        "status": str(read[0].status),
    }
    if len(answers) > 1:
        row |= {"preds": preds, "answers": list(answers), "ious": ious, "iou_std": statistics.stdev(ious)}
        row["statuses"] = [str(answer.status) for answer in read]
    row |= {"id": moment.id, "video_id": moment.video_id}
    if moment.video_start is not None:
        row |= {"video_start": moment.video_start, "video_end": moment.video_end}
    return row | {"settings": dict(settings)}
