"""What the files behind annotations are: found and decodable, how long, the same as another.

Each file is listed packet by packet, which finds a cut-off end, and decoded at a few instants over its whole length. It
is never decoded whole: a picture that is damaged between those instants shows only where it is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from timelens_plugins.moments import Moment, find_video
from timelens_plugins.quality.problems import Problem
from timelens_plugins.video import FrameSampling, VideoError, sample_frames
from timelens_plugins.video.errors import fault_of
from timelens_plugins.video.stream import probe

__all__ = ["VideoFacts", "look_at_videos", "video_problems"]

_LOOKS = FrameSampling(fps=2.0, min_frames=8, max_frames=8, min_tokens=4, total_tokens=8 * 64)
_SLACK = 0.5  # seconds, and
_SLACK_SHARE = 0.01  # of the length, by which a stated duration or a span may be off
_PLACES = 8  # of a picture, on each side, whose grey levels are compared
_SAME = 2.0  # grey levels of 255 by which a place may differ on average after re-encoding
_PLAIN = 4.0  # standard deviation of grey levels below which pictures show next to nothing


@dataclass(frozen=True, slots=True, eq=False)
class VideoFacts:
    """One file.

    Attributes:
        path: as the annotations name it, below the folder given.
        file: the file found; None where there is none.
        error: why it cannot be used; None where it can.
        duration: seconds.
        frames: in all.
        size: bytes.
        index_error: seconds by which a frame's time differs from its number divided by the frame rate, at most.
        pictures: grey levels of 8 x 8 places of each of the frames looked at, float32 of shape ``(frames, 8, 8)``.
    """

    path: str
    file: Path | None
    error: str | None = None
    duration: float = 0.0
    frames: int = 0
    size: int = 0
    index_error: float = 0.0
    pictures: NDArray[np.float32] | None = None


def look_at_videos(moments: Sequence[Moment], *, workers: int | None = None, progress: bool = True) -> list[VideoFacts]:
    """The file of every video, in order of appearance.

    Args:
        workers: files looked at at the same time; one for each core by default.
    """
    paths = list(dict.fromkeys(moment.video for moment in moments))
    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="look") as pool:
        found = pool.map(_look, paths)
        return list(tqdm(found, total=len(paths), desc="Videos", unit="video", disable=not progress))


def _look(path: str) -> VideoFacts:
    try:
        file = find_video(path)
    except (OSError, ValueError) as error:
        return VideoFacts(path, None, fault_of(error, path))
    try:
        size = file.stat().st_size
        stream = probe(str(file))
        clip = sample_frames(file, _LOOKS)
    except (VideoError, OSError) as error:
        return VideoFacts(path, file, fault_of(error, path))
    gray = clip.frames.numpy().mean(axis=1)
    pictures = np.stack([_places(frame) for frame in gray]).astype(np.float32)
    return VideoFacts(path, file, None, stream.duration, stream.total_frames, size, stream.index_error, pictures)


def _places(gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean grey levels of 8 x 8 places of a picture."""
    rows = np.array_split(gray, _PLACES, axis=0)
    return np.array([[part.mean() for part in np.array_split(row, _PLACES, axis=1)] for row in rows])


def video_problems(moments: Sequence[Moment], facts: Sequence[VideoFacts]) -> Iterator[Problem]:
    """What the files say against the annotations, and against one another."""
    by_path: dict[str, list[Moment]] = defaultdict(list)
    for moment in moments:
        by_path[moment.video].append(moment)
    for fact in facts:
        ids = tuple(moment.id for moment in by_path[fact.path])
        if fact.error is not None:
            yield Problem("missing_video" if fact.file is None else "unreadable_video", fact.path, fact.error, ids)
            continue
        yield from _against_annotations(fact, by_path[fact.path])
        if fact.index_error > _SLACK:
            reason = f"frames come up to {fact.index_error:.2f} s off a constant rate, which some readers assume"
            yield Problem("odd_video", fact.path, reason, ids)
    usable = [fact for fact in facts if fact.error is None]
    same_bytes = equal_files(usable)
    for group in same_bytes:
        yield _together("repeated_video", group, by_path, "the same bytes")
    known = [{fact.path for fact in group} for group in same_bytes]
    for group in similar_files(usable):
        if not any({fact.path for fact in group} <= paths for paths in known):
            yield _together("similar_video", group, by_path, "the same pictures")


def _against_annotations(fact: VideoFacts, moments: Sequence[Moment]) -> Iterator[Problem]:
    slack = max(_SLACK, _SLACK_SHARE * fact.duration)
    stated = {m.duration for m in moments if m.duration is not None and m.video_start is None}
    for duration in sorted(stated):
        if abs(duration - fact.duration) > slack:
            ids = tuple(m.id for m in moments if m.duration == duration)
            yield Problem("wrong_duration", fact.path, f"stated {duration:g} s, real {fact.duration:.2f} s", ids)
    for moment in moments:
        if moment.video_end is not None and moment.video_end > fact.duration + slack:
            reason = f"its window ends at {moment.video_end:g} s of a video of {fact.duration:.2f} s"
            yield Problem("wrong_duration", moment.id, reason, (moment.id,))
        offset = moment.video_start or 0.0
        first, last = (f(getattr(s, end) for s in moment.spans) + offset for f, end in ((min, "start"), (max, "end")))
        if first >= fact.duration:
            reason = f"starts at {first:g} s of a video of {fact.duration:.2f} s"
            yield Problem("span_outside_video", moment.id, reason, (moment.id,))
        elif last > fact.duration + slack:
            reason = f"ends at {last:g} s of a video of {fact.duration:.2f} s"
            yield Problem("span_beyond_video", moment.id, reason, (moment.id,))


def _together(check: str, group: Sequence[VideoFacts], by_path: Mapping[str, Sequence[Moment]], what: str) -> Problem:
    names = [fact.path for fact in group]
    ids = tuple(moment.id for name in names for moment in by_path[name])
    return Problem(check, names[0], f"{what} as {', '.join(names[1:])}", ids)


def equal_files(facts: Sequence[VideoFacts]) -> list[list[VideoFacts]]:
    """Files of the same bytes. Only files of one size are read."""
    by_size: dict[int, list[VideoFacts]] = defaultdict(list)
    for fact in facts:
        by_size[fact.size].append(fact)
    groups: dict[tuple[int, str], list[VideoFacts]] = defaultdict(list)
    for size, candidates in by_size.items():
        if len(candidates) > 1:
            for fact in candidates:
                assert fact.file is not None
                with fact.file.open("rb") as file:
                    groups[size, hashlib.file_digest(file, "blake2b").hexdigest()].append(fact)
    return [group for group in groups.values() if len(group) > 1]


def similar_files(facts: Sequence[VideoFacts]) -> list[list[VideoFacts]]:
    """Files of one length that show the same pictures at the instants looked at, such as one re-encoded.

    Videos that show next to nothing are compared with none.
    """
    telling = [fact for fact in facts if fact.pictures is not None and float(fact.pictures.std()) > _PLAIN]
    telling.sort(key=lambda fact: fact.duration)
    groups: list[list[VideoFacts]] = []
    member: dict[int, list[VideoFacts]] = {}
    for i, fact in enumerate(telling):
        for j in range(i - 1, -1, -1):
            other = telling[j]
            if fact.duration - other.duration > max(0.2, 0.005 * fact.duration):
                break
            if _distance(fact, other) <= _SAME:
                group = member.get(j)
                if group is None:
                    group = member[j] = [other]
                    groups.append(group)
                group.append(fact)
                member[i] = group
                break
    return groups


def _distance(a: VideoFacts, b: VideoFacts) -> float:
    """Grey levels by which a place of two files differs on average."""
    if a.pictures is None or b.pictures is None or a.pictures.shape != b.pictures.shape:
        return 255.0
    return float(np.abs(a.pictures - b.pictures).mean())
