"""Which moments to train on: the filters of the TimeLens recipe by their names, and a part held out by video."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from timelens_plugins.moments.moment import Moment, is_audio_query
from timelens_plugins.moments.videos import without_video_suffix

__all__ = ["FilterReport", "filter_moments", "split_by_video"]


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


def split_by_video(
    moments: Sequence[Moment], validation_share: float, seed: int = 0
) -> tuple[list[Moment], list[Moment]]:
    """Moments to train on and moments to validate on, which share no video; both in their order.

    Videos are told by the names of their files without folder and extension, as ``timelens validate --against`` tells
    them. Which are held out depends on these names and the seed alone: a larger set holds out the same ones and more.

    Args:
        moments: of at least two videos.
        validation_share: of the videos that are held out, above 0 and below 1; at least one is, and one is not.
        seed: of the choice.

    Raises:
        ValueError: a share out of range, or a single video.
    """
    if not 0 < validation_share < 1:
        raise ValueError(f"validation_share must lie between 0 and 1, got {validation_share}")
    names = dict.fromkeys(_file_name(moment) for moment in moments)
    if len(names) < 2:
        raise ValueError(f"a split needs at least two videos, got {len(names)}")
    ranked = sorted(names, key=lambda name: hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest())
    held = set(ranked[: min(max(1, round(validation_share * len(ranked))), len(ranked) - 1)])
    train = [moment for moment in moments if _file_name(moment) not in held]
    return train, [moment for moment in moments if _file_name(moment) in held]


def _file_name(moment: Moment) -> str:
    return without_video_suffix(PurePosixPath(moment.video.replace("\\", "/")).name)
