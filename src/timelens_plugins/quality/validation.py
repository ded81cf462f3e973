"""``validate``: all checks on one annotation file, with or without its videos, alone or against another file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from timelens_plugins.moments import LoadedMoments, load_moments
from timelens_plugins.quality.annotations import annotation_problems
from timelens_plugins.quality.problems import CHECKS, Problem, ValidationReport

if TYPE_CHECKING:
    from timelens_plugins.quality.videos import VideoFacts

__all__ = ["Validation", "validate", "validated"]


@dataclass(frozen=True)
class Validation:
    """A report with what it was made from."""

    report: ValidationReport
    moments: LoadedMoments
    facts: Sequence[VideoFacts] = field(default_factory=tuple)


def validate(
    file: str | Path,
    videos: str | Path | None = None,
    *,
    against: Sequence[str | Path] = (),
    against_videos: str | Path | None = None,
    format: str | None = None,  # noqa: A002 - the word for it
    workers: int | None = None,
    progress: bool = False,
) -> ValidationReport:
    """Everything that is broken or doubtful in an annotation file.

    Args:
        file: annotations in any format of :func:`~timelens_plugins.moments.load_moments`.
        videos: folder that the paths of the videos start from; None looks at no video.
        against: other annotation files, whose videos and queries must not occur in this one.
        against_videos: their folder, to find the same videos under other names.
        format: of ``file``; None recognises it.
        workers: video files looked at at the same time.

    Raises:
        AnnotationError: nothing of the file can be read.
        OSError: the file, or the folder of the videos, is not there.
    """
    checked = validated(
        file,
        videos,
        against=against,
        against_videos=against_videos,
        format=format,
        workers=workers,
        progress=progress,
    )
    return checked.report


def validated(
    file: str | Path,
    videos: str | Path | None = None,
    *,
    against: Sequence[str | Path] = (),
    against_videos: str | Path | None = None,
    format: str | None = None,  # noqa: A002
    workers: int | None = None,
    progress: bool = False,
) -> Validation:
    """As :func:`validate`, with the moments and what is known of their videos."""
    loaded = load_moments(file, format=format, video_root=_folder(videos), on_error="skip")
    problems: list[Problem] = list(annotation_problems(loaded))
    notes: list[str] = []
    facts: list[VideoFacts] = []
    if videos is not None:
        from timelens_plugins.quality.videos import look_at_videos, video_problems

        facts = look_at_videos(loaded, workers=workers, progress=progress)
        problems += video_problems(loaded, facts)
    for other in against:
        from timelens_plugins.quality.leakage import leakage_problems

        others = load_moments(other, video_root=_folder(against_videos), on_error="skip")
        if skipped := len(others.report.skipped):
            notes.append(f"{other}: {skipped:,} rows could not be read and were not compared")
        other_facts: list[VideoFacts] = []
        if videos is not None and against_videos is not None:
            other_facts = look_at_videos(others, workers=workers, progress=progress)
        problems += leakage_problems(loaded, others, str(other), facts, other_facts)
    order = {name: place for place, name in enumerate(CHECKS)}
    report = ValidationReport(
        file=loaded.report.file,
        format=loaded.report.format,
        moments=len(loaded),
        videos=loaded.report.videos,
        videos_checked=sum(fact.file is not None for fact in facts),
        problems=tuple(sorted(problems, key=lambda problem: order[problem.check])),
        notes=tuple(notes),
    )
    return Validation(report, loaded, facts)


def _folder(path: str | Path | None) -> Path | None:
    if path is not None and not Path(path).is_dir():
        raise NotADirectoryError(f"{path}: no folder of videos there")
    return None if path is None else Path(path)
