"""Moments as rows of other trainers' data files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from timelens_plugins.adapters.truth import ground_truth
from timelens_plugins.answers import GROUNDING_PROMPT, ask, format_answer
from timelens_plugins.moments import Moment

__all__ = ["ROWS", "rows_for"]

Row = dict[str, Any]


def rows_for(
    trainer: str, moments: Iterable[Moment], *, prompt: str = GROUNDING_PROMPT, answers: bool = False
) -> list[Row]:
    """A row for each moment, in order.

    Args:
        trainer: a key of :data:`ROWS`.
        moments: with the paths of their videos.
        prompt: template with ``{query}``, for moments without a question of their own.
        answers: with the answer to learn, for supervised training.

    Raises:
        ValueError: an unknown trainer, or a window of a video where the trainer has no place for one.
    """
    if trainer not in ROWS:
        raise ValueError(f"unknown trainer {trainer!r}; known are {', '.join(ROWS)}")
    return [
        ROWS[trainer](moment, index, moment.question or ask(prompt, moment.query), answers)
        for index, moment in enumerate(moments)
    ]


def _swift(moment: Moment, index: int, text: str, answers: bool) -> Row:
    if moment.video_start is not None:
        raise ValueError(
            f"{moment.id}: ms-swift takes whole videos, and this is a window of {moment.video}; cut it first"
        )
    return {
        "messages": [{"role": "user", "content": f"<video>{text}"}, *_answer(moment, answers)],
        "videos": [moment.video],
        "solution": ground_truth(moment),
        "id": moment.id,
    }


def _verl(moment: Moment, index: int, text: str, answers: bool) -> Row:
    video: Row = {"video": moment.video}
    if moment.video_start is not None:
        video |= {"video_start": moment.video_start, "video_end": moment.video_end}
    return {
        "data_source": moment.source,
        "prompt": [{"role": "user", "content": f"<video>{text}"}],
        "videos": [video],
        "ability": "temporal_grounding",
        "reward_model": {"style": "rule", "ground_truth": ground_truth(moment)},
        "extra_info": {"index": index, "id": moment.id},
        **({"answer": _answer(moment, True)[0]["content"]} if answers else {}),
    }


def _trl(moment: Moment, index: int, text: str, answers: bool) -> Row:
    video: Row = {"type": "video", "video": moment.video}
    if moment.video_start is not None:
        video |= {"video_start": moment.video_start, "video_end": moment.video_end}
    return {
        "prompt": [{"role": "user", "content": [video, {"type": "text", "text": text}]}],
        **({"completion": _answer(moment, True)} if answers else {}),
        "id": moment.id,
        "video": moment.video,
        "query": moment.query,
        "spans": [list(span) for span in moment.spans],
        "duration": moment.duration,
        "source": moment.source,
    }


def _answer(moment: Moment, wanted: bool) -> list[Row]:
    if not wanted:
        return []
    return [{"role": "assistant", "content": moment.answer or format_answer(moment.spans)}]


ROWS: dict[str, Callable[[Moment, int, str, bool], Row]] = {"ms-swift": _swift, "verl": _verl, "trl": _trl}
"""By the trainer's name."""
