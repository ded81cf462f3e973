"""Difficulty estimation by several processes: who answers which videos, what is done, and the rows of all of them.

A folder beside the output holds the work::

    OUTPUT.parts/part-0-of-2.jsonl      answers by clip, appended and synced one clip at a time
    OUTPUT.parts/finished-0-of-2.json   process 0 has been through its videos; which clips could not be read
    OUTPUT                              rows in the order of the moments, written by the last process to finish
    OUTPUT.failed.jsonl                 videos that could not be read; only where there are any

A process that was killed goes on where it stopped, also when the run is started again with another number of
processes: clips count as done whichever part holds them. What says that a process has finished names the work it has
finished, by a digest: left over from a start with other videos, it counts for nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from timelens_plugins.difficulty.rows import difficulty_row
from timelens_plugins.inference import Journal, JournalError
from timelens_plugins.moments import Moment

__all__ = ["ClipWork", "Outcome", "Shard", "clips_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipWork:
    """The moments of one video, or of one window of it.

    ``key`` stands for exactly these queries about this clip: with other ones it is other work.
    """

    key: str
    moments: tuple[Moment, ...]

    @property
    def video(self) -> str:
        """Path of the video."""
        return self.moments[0].video


def clips_of(moments: Iterable[Moment]) -> list[ClipWork]:
    """Moments by clip, in order of first appearance."""
    groups: dict[tuple[str, float | None, float | None], list[Moment]] = {}
    for moment in moments:
        groups.setdefault((moment.video, moment.video_start, moment.video_end), []).append(moment)
    return [ClipWork(_key(group), tuple(group)) for group in groups.values()]


def _key(moments: Sequence[Moment]) -> str:
    content = json.dumps([[m.id, m.query, m.video_start, m.video_end] for m in moments])
    return f"{moments[0].video_id}#{hashlib.blake2b(content.encode(), digest_size=8).hexdigest()}"


def _digest(clips: Sequence[ClipWork], settings: Mapping[str, Any]) -> str:
    """Stands for these clips in this order, by which they are dealt out, and these settings."""
    content = json.dumps([[clip.key for clip in clips], dict(settings)], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Outcome:
    """The rows of all processes.

    Attributes:
        output: the file.
        rows: in it.
        failed: path of a video that could not be read -> why.
        unanswered: moments of such videos.
    """

    output: Path
    rows: int
    failed: Mapping[str, str]
    unanswered: int


class Shard:
    """One process's share of the clips, and its journal. A context manager.

    Args:
        output: the difficulty file to come.
        clips: of all processes, in order.
        settings: what answers depend on; a journal written under others is refused.
        index, count: which of how many processes this is. Videos are dealt out in turn; all clips of one go together.

    Raises:
        JournalError: the folder holds work of other settings, or a damaged file.
        BlockingIOError: another process does this share right now.
    """

    def __init__(
        self, output: str | Path, clips: Sequence[ClipWork], settings: Mapping[str, Any], index: int = 0, count: int = 1
    ) -> None:
        if not 0 <= index < count:
            raise ValueError(f"process {index} of {count}: the first of n processes is 0, the last n - 1")
        self.output, self.clips, self.settings = Path(output), clips, settings
        self._name = f"{index}-of-{count}"
        self._count = count
        self._work = _digest(clips, settings)
        self.folder = self.output.with_name(f"{self.output.name}.parts")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / f"part-{self._name}.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BlockingIOError(
                f"{self.folder}: another process is at work as {index} of {count}; wait, or choose another output"
            ) from None
        self._finished(self._name).unlink(missing_ok=True)
        self._journal = Journal(self.folder / f"part-{self._name}.jsonl", settings)
        videos = {video: i for i, video in enumerate(dict.fromkeys(clip.video for clip in clips))}
        done = self._answers()
        self.mine = [clip for clip in clips if videos[clip.video] % count == index]
        self.pending = [clip for clip in self.mine if clip.key not in done]

    def add(self, clip: ClipWork, answers: Sequence[Sequence[str]]) -> None:
        """Keep the answers of a clip, a list of texts for each of its moments."""
        if len(answers) != len(clip.moments):
            raise ValueError(f"{clip.key}: {len(answers)} lists of answers for {len(clip.moments)} moments")
        self._journal.add(clip.key, {"answers": [list(texts) for texts in answers]})

    def finish(self, failed: Mapping[str, str], video_root: str | None = None) -> Outcome | None:
        """Note that this share is done; the last process to say so writes the output.

        Args:
            failed: videos of this share that could not be read, and why.
            video_root: folder that the rows' paths start from.

        Returns:
            What was written; None while other processes are still at work.
        """
        self._journal.close()
        unread = {clip.key: failed[clip.video] for clip in self.mine if clip.video in failed}
        _replace(self._finished(self._name), json.dumps({"work": self._work, "failed": unread}) + "\n")
        all_unread: dict[str, str] = {}
        for index in range(self._count):
            of_process = self._unread_by(index)
            if of_process is None:
                logger.info("this process is done; the last one writes %s", self.output)
                return None
            all_unread |= of_process
        return self._merge(all_unread, video_root)

    def _unread_by(self, index: int) -> dict[str, str] | None:
        """Clips that process ``index`` could not read -> why; None where it has not finished this work."""
        try:
            mark = json.loads(self._finished(f"{index}-of-{self._count}").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        unread: dict[str, str] = mark["failed"]
        return unread if mark.get("work") == self._work else None

    def _merge(self, unread: Mapping[str, str], video_root: str | None) -> Outcome:
        answers = self._answers()
        rows: dict[str, dict[str, Any]] = {}
        lost = []
        for clip in self.clips:
            if clip.key in answers:
                for moment, texts in zip(clip.moments, answers[clip.key]["answers"], strict=True):
                    rows[moment.id] = difficulty_row(moment, texts, self.settings, video_root)
            elif clip.key not in unread:
                lost.append(clip.key)
        if lost:
            raise JournalError(
                f"{self.folder}: {len(lost)} clips have neither answers nor an error, such as {lost[0]!r}: files of "
                "the folder were removed; start again, which answers what is missing"
            )
        order = [moment.id for clip in self.clips for moment in clip.moments]
        _replace(self.output, "".join(json.dumps(rows[i], ensure_ascii=False) + "\n" for i in order if i in rows))
        listing = self.output.with_name(f"{self.output.name}.failed.jsonl")
        failed: dict[str, str] = {}
        moments: dict[str, list[str]] = {}
        for clip in self.clips:
            if clip.key not in answers:
                failed.setdefault(clip.video, unread[clip.key])
                moments.setdefault(clip.video, []).extend(moment.id for moment in clip.moments)
        if moments:
            lines = [json.dumps({"video": v, "error": failed[v], "moments": ids}) + "\n" for v, ids in moments.items()]
            _replace(listing, "".join(lines))
        else:
            listing.unlink(missing_ok=True)
        unanswered = sum(map(len, moments.values()))
        return Outcome(self.output, len(rows), failed, unanswered)

    def _answers(self) -> dict[str, dict[str, Any]]:
        """Finished clips of all parts, of any number of processes."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("part-*.jsonl")):
            own = path == self._journal.path
            found |= dict(self._journal) if own else Journal.read(path, self.settings)
        return found

    def _finished(self, name: str) -> Path:
        return self.folder / f"finished-{name}.json"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        self._lock.close()


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; it is on the disk when it has its name."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
