"""The moments that a task evaluates, and the check that every video is there.

A missing video, or one of zero bytes, is an error unless ``TIMELENS_ALLOW_MISSING=1``: then its moments are left out,
counted, and shown in the result.
"""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from loguru import logger as lmms_eval_logger

from timelens_plugins.evaluation.shards import unpack_shards
from timelens_plugins.evaluation.specs import Places, TaskSpec
from timelens_plugins.moments import Moment, find_video, load_moments
from timelens_plugins.moments.faults import BY_VALIDATE, skipped_by
from timelens_plugins.suffixes import VIDEO_SUFFIXES

__all__ = ["SubsetMoments", "check_specs", "load_subset"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SubsetMoments:
    """The moments of a task whose videos exist, and what is missing.

    Attributes:
        task: its name.
        moments: whose videos exist, in the order of the annotations.
        missing: paths of videos that are annotated but absent, or of zero bytes.
        missing_moments: for each of ``moments``, how many without a video (and with a span) stand right before it, and
            for the last one also behind it: so the first of them, as ``--limit`` takes them, have those of their part.
        missing_absent: as many of those whose event is not in the video.
    """

    task: str
    moments: tuple[Moment, ...]
    missing: tuple[str, ...]
    missing_moments: tuple[int, ...]
    missing_absent: tuple[int, ...]

    @property
    def any_absent(self) -> bool:
        """Whether there are annotations of events that are not in the video."""
        return any(self.missing_absent) or not all(moment.spans for moment in self.moments)


def check_specs(specs: Iterable[TaskSpec], limit: float | None = None, offset: int = 0) -> None:
    """Load these subsets, which raises for whatever is missing, and see that some of their moments are to be answered.

    Args:
        specs: of the tasks of a run.
        limit: moments of each task, or a share of them below 1; None or -1 for all.
        offset: moments of each task that are passed over.

    Raises:
        ValueError: also a limit or an offset that leaves nothing to answer; a share of tasks of different sizes, as
            lmms-eval takes of every task as many as the share is of the first.
    """
    shares: dict[int, str] = {}
    for spec in specs:
        count = len(load_subset(spec).moments)
        if limit not in (None, -1) and not 0 < limit < math.inf:
            raise ValueError(f"limit must be above 0, or -1 for all {count} moments of {spec.task}, got {limit:g}")
        if offset >= count:
            raise ValueError(f"{spec.task}: an offset of {offset} leaves none of its {count} moments")
        if limit is not None and 0 < limit < 1:
            shares.setdefault(math.ceil(count * limit), spec.task)
    if len(shares) > 1:
        told = " and ".join(f"{count} of {task}" for count, task in shares.items())
        raise ValueError(
            f"limit {limit:g} is {told}, but lmms-eval would take the first number of each task: give a number of "
            "moments, or evaluate the tasks one by one"
        )


def load_subset(spec: TaskSpec) -> SubsetMoments:
    """The moments of a task, each with the path of an existing video.

    Raises:
        FileNotFoundError: no root folder, no annotations, or missing videos, which it names.
        ValueError: faults in the annotations, an empty video file, or no video at all.
    """
    return _load(spec, spec.resolve(), _allow_missing())


@functools.lru_cache
def _load(spec: TaskSpec, places: Places, allow_missing: bool) -> SubsetMoments:
    annotations = _annotations(spec, places)
    with skipped_by(BY_VALIDATE):
        loaded = load_moments(annotations, format=places.format, allow_absent=True)
    lmms_eval_logger.info("{}: {}", spec.task, loaded.report.summary())  # the one that the command shows
    moments = [moment for moment in loaded if moment.flags.isdisjoint(spec.leave_out)]
    if spec.leave_out:  # said where it is none, too: a flag may be misspelt
        flags, left_out = " or ".join(spec.leave_out), len(loaded) - len(moments)
        lmms_eval_logger.info("{}: {} annotations flagged {} are not evaluated", spec.task, left_out, flags)
    folders = places.videos or (annotations.parent / "videos", annotations.parent)
    if places.shards is not None:
        unpack_shards(places.shards, folders[0])
    source = (loaded.report.format, annotations.stem)
    return _with_videos(spec.task, moments, source, folders, allow_missing)


def _allow_missing() -> bool:
    value = os.environ.get("TIMELENS_ALLOW_MISSING", "0")
    if value not in ("0", "1", ""):
        raise ValueError(f"TIMELENS_ALLOW_MISSING must be 0 or 1, got {value!r}")
    return value == "1"


def _annotations(spec: TaskSpec, places: Places) -> Path:
    for path in places.annotations:
        if path.is_file():
            return path
    variable = f" (root: {spec.root.removeprefix('$')})" if spec.root is not None else f" ({spec.file})"
    raise FileNotFoundError(f"{spec.task}: no annotations at {places.annotations[0]}{variable}")


def _with_videos(
    task: str, moments: Sequence[Moment], unnamed: tuple[str, str], folders: Sequence[Path], allow_missing: bool
) -> SubsetMoments:
    """``unnamed``: what the source of annotations is that name no data set, and what they are called instead."""
    located = _located(moments, folders)
    empty = sorted({str(path) for path in located.values() if path is not None and path.stat().st_size == 0})
    if empty and not allow_missing:
        raise ValueError(
            f"{task}: {_some(empty)} of zero bytes; fetch again. To evaluate the others and have these counted as "
            "missing, set TIMELENS_ALLOW_MISSING=1."
        )
    found, missing, before = [], {}, list[list[int]]()
    waiting = [0, 0]  # with a span, and of events that are not in the video
    for moment in moments:
        path = located[moment.video]
        if path is None or str(path) in empty:
            missing[moment.video] = str(path or folders[0] / moment.video)
            waiting[not moment.spans] += 1
        else:
            before.append(waiting)
            waiting = [0, 0]
            source = unnamed[1] if moment.source == unnamed[0] else moment.source
            found.append(replace(moment, video=str(path), source=source))
    if missing and not (allow_missing and found):
        remedy = (
            "" if allow_missing else " To evaluate the others and have these counted, set TIMELENS_ALLOW_MISSING=1."
        )
        raise FileNotFoundError(
            f"{task}: {_some(list(missing.values()))} missing, with {len(moments) - len(found)} of {len(moments)} "
            f"annotations.{remedy}"
        )
    if missing:
        logger.warning(
            "%s: %s missing%s; %d of %d annotations are not evaluated (TIMELENS_ALLOW_MISSING=1)",
            task,
            _some(list(missing.values())),
            f", {len(empty)} of them of zero bytes" if empty else "",
            len(moments) - len(found),
            len(moments),
        )
    if before:
        before[-1] = [a + b for a, b in zip(before[-1], waiting, strict=True)]
    missing_moments, missing_absent = (tuple(counts[kind] for counts in before) for kind in (0, 1))
    return SubsetMoments(task, tuple(found), tuple(missing.values()), missing_moments, missing_absent)


def _located(moments: Iterable[Moment], folders: Sequence[Path]) -> dict[str, Path | None]:
    """The file of every annotated video: of the first folder that has it, there by its path, then by its id."""
    indices = [(folder, _index_videos(folder)) for folder in folders]
    located: dict[str, Path | None] = {}
    for moment in moments:
        if moment.video not in located:
            places = (_locate(moment, folder, index) for folder, index in indices)
            located[moment.video] = next((path for path in places if path is not None), None)
    return located


def _locate(moment: Moment, folder: Path, index: dict[str, Path]) -> Path | None:
    path = folder / moment.video
    if path.is_file():
        return path
    if "/" not in moment.video_id:
        return index.get(moment.video_id)
    try:
        return find_video(path)
    except FileNotFoundError:
        return None


def _index_videos(folder: Path) -> dict[str, Path]:
    """Video id to file; an earlier suffix wins."""
    index: dict[str, Path] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir(), key=lambda p: _suffix_rank(p.suffix)):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                index.setdefault(path.name[: -len(path.suffix)], path)
    return index


def _suffix_rank(suffix: str) -> int:
    return VIDEO_SUFFIXES.index(suffix.lower()) if suffix.lower() in VIDEO_SUFFIXES else len(VIDEO_SUFFIXES)


def _some(paths: list[str], shown: int = 5) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return f"{len(paths)} video{'s' if len(paths) != 1 else ''} ({', '.join(paths[:shown])}{more})"
