"""Moments as a ``datasets.Dataset``, and the recipe's filters, which say what they dropped."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, Json, List, Value

from timelens_plugins.moments import Moment, find_video, is_audio_query
from timelens_plugins.timestamps import Encoding, build_messages

__all__ = ["FilterReport", "filter_moments", "find_videos", "moments_dataset"]

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
    }
)


def moments_dataset(moments: Iterable[Moment], encoding: Encoding = "native") -> Dataset:
    """One row per moment, in order: paths and numbers only, no frames.

    Columns: ``id``, ``video`` (path), ``video_start`` and ``video_end`` (seconds of the file, None without a window),
    ``query``, ``spans`` (pairs of seconds), ``duration`` (seconds, None where unknown), ``source``, and ``prompt``: the
    conversation that asks for the query, as TRL reads it, with the video as a path. Numbers in ``prompt`` keep ten
    decimals; the columns are exact, and :meth:`ClipKey.of <timelens_plugins.training.clips.ClipKey.of>` reads those.

    Args:
        moments: of any source.
        encoding: of the processor that will read the prompts, whose wording depends on it.

    Raises:
        ValueError: no moments.
    """
    rows = [_row(moment, encoding) for moment in moments]
    if not rows:
        raise ValueError("no moments to make a data set of")
    return Dataset.from_list(rows, features=_FEATURES)


def _row(moment: Moment, encoding: Encoding) -> dict[str, Any]:
    messages = build_messages(
        moment.video, moment.query, encoding, video_start=moment.video_start, video_end=moment.video_end
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
    }


@dataclass(frozen=True)
class FilterReport:
    """What :func:`filter_moments` did.

    Attributes:
        kept: number of moments kept.
        dropped: reason -> the moments dropped for it; a moment counts under the first reason that applies.
        unknown_duration: kept although the length of their video is not stated.
    """

    kept: int
    dropped: dict[str, list[Moment]] = field(default_factory=dict)
    unknown_duration: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> number of moments."""
        return {reason: len(moments) for reason, moments in self.dropped.items()}

    def summary(self) -> str:
        """One line for a log."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.counts.items())
        line = f"{self.kept} moments kept, {sum(self.counts.values())} dropped"
        line += f" ({reasons})" if reasons else ""
        if self.unknown_duration:
            line += f"; {self.unknown_duration} of the kept have no stated duration and were not checked for it"
        return line


def filter_moments(
    moments: Sequence[Moment],
    *,
    min_duration: float = 5.0,
    max_duration: float = 500.0,
    max_words: int = 200,
    audio_queries: bool = False,
) -> tuple[list[Moment], FilterReport]:
    """The moments to train on, by the filters of the TimeLens recipe, and a report of the others.

    Reasons: ``video too short``, ``video too long``, ``query too long``, ``audio query`` (asks for something heard,
    which frames cannot show), and ``span of zero length`` (no answer can state it).

    Args:
        moments: in any order, which is kept.
        min_duration, max_duration: of the video, or of the window, in seconds, both included.
        max_words: of the query, split at white space.
        audio_queries: keep queries about sounds.
    """
    if not 0 <= min_duration <= max_duration:
        raise ValueError(f"durations must be 0 <= min <= max, got {min_duration} and {max_duration}")
    if max_words < 1:
        raise ValueError(f"max_words must be at least 1, got {max_words}")

    def reason(moment: Moment) -> str | None:
        if moment.duration is not None and moment.duration < min_duration:
            return "video too short"
        if moment.duration is not None and moment.duration > max_duration:
            return "video too long"
        if len(moment.query.split()) > max_words:
            return "query too long"
        if not audio_queries and is_audio_query(moment.query):
            return "audio query"
        if any(span.length == 0 for span in moment.spans):
            return "span of zero length"
        return None

    kept: list[Moment] = []
    dropped: dict[str, list[Moment]] = {}
    for moment in moments:
        why = reason(moment)
        if why is None:
            kept.append(moment)
        else:
            dropped.setdefault(why, []).append(moment)
    unknown = Counter(moment.duration is None for moment in kept)[True]
    return kept, FilterReport(len(kept), dropped, unknown)


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
