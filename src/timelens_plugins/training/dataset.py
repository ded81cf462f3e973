"""Moments as a ``datasets.Dataset``, with paths of files that exist."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, DatasetInfo, Features, Json, List, Value

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.clips import ClipKey
from timelens_plugins.encodings import build_messages
from timelens_plugins.moments import Moment, find_video

__all__ = ["COLUMNS", "check_prompts", "clips_of", "find_videos", "moments_dataset", "warn_of_target_outside"]

logger = logging.getLogger(__name__)

_FEATURES = Features(
    {
        "id": Value("string"),
        "video": Value("string"),
        "video_start": Value("float64"),
        "video_end": Value("float64"),
        "query": Value("string"),
        "spans": List(List(Value("float64"))),
        "duration": Value("float64"),
        "source": Value("string"),
        # Arrow's own structs would give every message part the keys of all parts, with None where it has no such key;
        # chat templates take a text part with ``video: None`` for a video.
        "prompt": List(Json()),
        "answer": Value("string"),
    }
)

COLUMNS = tuple(name for name in _FEATURES if name != "prompt")
"""Of a data set of moments, besides the conversation; reward functions get them by name."""


def moments_dataset(
    moments: Iterable[Moment],
    encoding: str = "native",
    *,
    prompt: str = GROUNDING_PROMPT,
    description: str = "",
) -> Dataset:
    """One row per moment, in order: paths and numbers only, no frames.

    Columns: ``id``, ``video`` (path), ``video_start`` and ``video_end`` (seconds of the file, None without a window),
    ``query``, ``spans`` (pairs of seconds), ``duration`` (seconds, None where unknown), ``source``, and ``prompt``: the
    conversation that asks for the query, as TRL reads it, with the video as a path. Numbers in ``prompt`` keep ten
    decimals; the columns are exact, and all trainers read windows from those.
    Moments of chat rows are asked in their own words, and ``answer`` holds theirs, None elsewhere.

    Args:
        moments: of any source.
        encoding: of the processor that will read the prompts, whose wording depends on it.
        prompt: the processor's, too: template with ``{query}``.
        description: where the moments come from, a line each, for the model card of what is trained on them.

    Raises:
        ValueError: no moments.
    """
    rows = [_row(moment, encoding, prompt) for moment in moments]
    if not rows:
        raise ValueError("no moments to make a data set of")
    return Dataset.from_list(rows, features=_FEATURES, info=DatasetInfo(description=description, features=_FEATURES))


def _row(moment: Moment, encoding: str, prompt: str) -> dict[str, Any]:
    messages = build_messages(
        moment.video,
        moment.query,
        encoding,
        video_start=moment.video_start,
        video_end=moment.video_end,
        question=moment.question,
        prompt=prompt,
    )
    return {
        "id": moment.id,
        "video": moment.video,
        "video_start": moment.video_start,
        "video_end": moment.video_end,
        "query": moment.query,
        "spans": [list(span) for span in moment.spans],
        "duration": moment.duration,
        "source": moment.source,
        "prompt": messages,
        "answer": moment.answer,
    }


def clips_of(dataset: Any) -> list[ClipKey]:
    """The clip of every row with the columns ``video``, ``video_start`` and ``video_end``; the others are not read."""
    if not hasattr(dataset, "select_columns"):
        return [ClipKey.of(row) for row in dataset]
    columns = dataset.select_columns(["video", "video_start", "video_end"])[:]
    return list(map(ClipKey, columns["video"], columns["video_start"], columns["video_end"]))


def check_prompts(dataset: Any) -> None:
    """Refuse rows that could not be shown to a model, before the first step instead of when one is drawn.

    Args:
        dataset: a ``datasets.Dataset`` or a list, of rows with ``prompt``, and ``id`` where they have one.

    Raises:
        ValueError: a conversation without a video, with two, with one that is not a path, or with an image or audio
            beside it; names the row and its id, and counts the others.
    """
    columnar = hasattr(dataset, "column_names")
    if columnar and "prompt" not in dataset.column_names:
        return
    prompts = dataset["prompt"] if columnar else [row["prompt"] for row in dataset]
    if columnar:
        ids = dataset["id"] if "id" in dataset.column_names else [None] * len(dataset)
    else:
        ids = [row.get("id") for row in dataset]
    faults = [
        f"row {i}{'' if name is None else f' (id {name!r})'}: {reason}"
        for i, (name, prompt) in enumerate(zip(ids, prompts, strict=True))
        if (reason := _prompt_fault(prompt)) is not None
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(
            f"{len(faults)} of {len(dataset)} rows cannot be used: {'; '.join(faults[:3])}{more}; a prompt must hold "
            "one video, given as a path, and text"
        )


def _prompt_fault(prompt: Any) -> str | None:
    """What is wrong with a conversation's media."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, str):
        return f"the prompt is no list of messages: {prompt!r:.80}"
    contents = [message.get("content") for message in prompt]
    parts = [
        part for content in contents if isinstance(content, Sequence) for part in content if isinstance(part, dict)
    ]
    kinds = [str(part.get("type")) for part in parts if part.get("type") != "text"]
    if kinds != ["video"]:
        return f"holds {' and '.join(kinds)}" if kinds else "holds no video"
    video = next(part.get("video") for part in parts if part.get("type") == "video")
    return None if isinstance(video, str) and video else f"its video is not a path: {video!r:.80}"


def warn_of_target_outside(row: Mapping[str, Any], seconds: float) -> None:
    """Log a target that starts after the end of its clip, once for each moment.

    Where the annotations state how long a video is, that is a fault when they are loaded. Where they state nothing, or
    another length than the video has, it shows here, when the clip is there.

    Args:
        row: of a :func:`moments_dataset`; rows of another making may mean anything by their columns, and pass.
        seconds: that the clip lasts.
    """
    if any(name not in row for name in COLUMNS):
        return
    if (first := min((span[0] for span in row["spans"]), default=0.0)) > seconds:
        _warn_of_target_outside(row["id"], first, row["video"], seconds)


@cache
def _warn_of_target_outside(name: str, first: float, video: str, seconds: float) -> None:
    logger.warning(
        "%s: its target starts at %g s, and its clip of %s ends at %.2f s: no answer about this clip can be right; "
        "timelens validate FILE --videos DIR finds all of these, and --fix OUT leaves them out",
        name,
        first,
        video,
        seconds,
    )


def find_videos(
    moments: Sequence[Moment],
    on_missing: Literal["raise", "keep"] = "raise",
    video_root: str | Path | None = None,
) -> list[Moment]:
    """The moments with the path of a file that exists, which may differ from the stated one in the video's extension.

    For the start of a run: what is missing is known before the first step instead of hours later.

    Args:
        moments: in any order, which is kept.
        on_missing: ``"raise"`` wants every file. ``"keep"`` leaves the stated path where there is none, for who skips
            unreadable videos, and counts them in the log; without any file at all the folder is wrong, an error.
        video_root: the folder that the annotations' paths start from, for messages.

    Raises:
        FileNotFoundError: files are missing; says how many, and names the first ones.
        ValueError: a missing file has several in its place that differ in the extension, or an unknown ``on_missing``.
    """
    if on_missing not in ("raise", "keep"):
        raise ValueError(f"on_missing must be 'raise' or 'keep', got {on_missing!r}")
    found: dict[str, str] = {}
    missing: list[str] = []
    for video in dict.fromkeys(moment.video for moment in moments):
        try:
            found[video] = str(find_video(video))
        except FileNotFoundError:
            missing.append(video)
    if missing:
        where = f" under {video_root}" if video_root is not None else ""
        state = f"{len(missing)} of {len(missing) + len(found)} videos are missing{where}, such as "
        state += ", ".join(missing[:3])
        if on_missing == "raise" or not found:
            raise FileNotFoundError(
                f"{state}: fetch them, set the folder that the annotations' paths start from (video_root), or leave "
                "their annotations out"
            )
        logger.warning("%s: their moments will be skipped", state)
    return [replace(moment, video=found.get(moment.video, moment.video)) for moment in moments]
