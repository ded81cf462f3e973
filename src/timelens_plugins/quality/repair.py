"""The corrected copy that ``timelens validate --fix`` writes: what can be mended without looking is, and logged.

Only what leaves no choice is changed: a span is cut at the end of its video, a wrong duration replaced by the real one,
an exact repetition left out, and so is what nothing can be asked about (no video, no time). Everything else stays.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import write_whole
from timelens_plugins.moments import Moment, save_moments
from timelens_plugins.quality.problems import Problem
from timelens_plugins.quality.videos import VideoFacts
from timelens_plugins.spans import Span

__all__ = ["Change", "relabelling", "repair", "write_repaired"]

_DROPPED_FOR = ("missing_video", "unreadable_video", "span_outside_video", "zero_length_span")


@dataclass(frozen=True, slots=True)
class Change:
    """One change: of a field, or of ``moment`` itself where it was left out (``after`` is None)."""

    moment: str
    field: str
    before: Any
    after: Any
    check: str


def repair(
    moments: Sequence[Moment], problems: Iterable[Problem], facts: Mapping[str, VideoFacts]
) -> tuple[list[Moment], list[Change]]:
    """The moments with what can be mended mended, and every change.

    Args:
        facts: of the videos that were looked at, by path.
    """
    dropped: dict[str, str] = {}
    for problem in problems:
        if problem.check in _DROPPED_FOR:
            dropped |= {name: problem.check for name in problem.moments if name not in dropped}
        elif problem.check == "duplicate":
            dropped.setdefault(problem.moments[-1], problem.check)
    kept: list[Moment] = []
    changes: list[Change] = []
    for moment in moments:
        if dropped.get(moment.id) == "zero_length_span" and any(span.length > 0 for span in moment.spans):
            del dropped[moment.id]  # one of several spans, which alone is left out
        if (check := dropped.get(moment.id)) is not None:
            changes.append(Change(moment.id, "moment", moment.to_row(), None, check))
            continue
        mended, made = _mend(moment, facts.get(moment.video))
        kept.append(mended)
        changes += made
    return kept, changes


def _mend(moment: Moment, fact: VideoFacts | None) -> tuple[Moment, list[Change]]:
    changes: list[Change] = []
    duration, check = moment.duration, "span_beyond_duration"
    if fact is not None and moment.video_start is None:
        check = "span_beyond_video"
        if duration is None or abs(duration - fact.duration) > 1e-3:
            changes.append(Change(moment.id, "duration", duration, fact.duration, "wrong_duration"))
        duration = fact.duration
    mended = replace(moment, duration=duration, flags=moment.flags - {"duplicate"})
    if any(span.length == 0 for span in mended.spans):
        timed = tuple(span for span in mended.spans if span.length > 0)
        before, mended = mended, mended.relabelled(mended.query, timed)
        changes += relabelling(before, mended, "zero_length_span")
    if duration is not None and any(span.end > duration for span in mended.spans):
        cut = tuple(Span(span.start, min(span.end, duration)) for span in mended.spans if span.start < duration)
        if cut:
            before, mended = mended, mended.relabelled(mended.query, cut)
            changes += relabelling(before, mended, check)
    return mended, changes


def relabelling(before: Moment, after: Moment, check: str) -> list[Change]:
    """What :meth:`Moment.relabelled` changed, a field each: the label, and what was said about the former one."""
    was, now = before.to_row(), after.to_row()
    fields = ("query", "spans", "question", "answer", "iou", "predictions")
    return [Change(after.id, f, was.get(f), now.get(f), check) for f in fields if was.get(f) != now.get(f)]


def write_repaired(
    moments: Sequence[Moment], changes: Sequence[Change], path: Path, videos: Path | None = None
) -> Path:
    """Writes the moments to ``path`` and the changes beside it; returns the log's path.

    Args:
        videos: folder that the paths of videos start from, which the file states without it.
    """
    if videos is not None:
        moments = [replace(moment, video=_below(moment.video, videos)) for moment in moments]
        changes = [
            replace(c, before=c.before | {"video": _below(c.before["video"], videos)}) if c.field == "moment" else c
            for c in changes
        ]
    save_moments(moments, path)
    log = path.with_name(path.name + ".changes.jsonl")
    rows = [{s: getattr(change, s) for s in Change.__slots__} for change in changes]
    write_whole(log, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    return log


def _below(video: str, folder: Path) -> str:
    """A path without the folder that it starts with."""
    return video.removeprefix(os.path.join(folder, ""))
