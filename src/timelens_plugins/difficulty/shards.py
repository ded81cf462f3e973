"""Difficulty estimation by several processes: who answers which videos, what is done, and the rows of all of them.

A folder beside the output holds the work::

    OUTPUT.parts/                       a journal of answers by clip, see timelens_plugins.inference.journal
    OUTPUT.parts/begun-0-of-2.txt       clips that process 0 has begun, which process 1 leaves to it
    OUTPUT.parts/finished-0-of-2.json   process 0 has nothing left to begin; which clips it could not read
    OUTPUT                              rows in the order of the moments, written by the last process to finish
    OUTPUT.failed.jsonl                 videos that could not be read; only where there are any

Videos are dealt out by what their clips cost, and a process that is through with its own begins what others have not
begun (see timelens_plugins.inference.shares). A process that was killed goes on where it stopped, also when the run is
started again with another number of processes: clips count as done whichever process did them. Two runs at once disturb
nothing; a clip that both are at may be answered twice, and counts once: there are no locks, and what a process has
begun is only a word to the others. It names the work, by a digest, as does what says that a process has finished: left
over from a start with other videos, or other settings, it counts for nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from timelens_plugins.atomic import write_whole
from timelens_plugins.difficulty.rows import difficulty_row
from timelens_plugins.file_state import state_of
from timelens_plugins.inference import Journal, JournalError
from timelens_plugins.inference.shares import in_order
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
    """Stands for these clips in this order, by which they are dealt out, their videos' files, and the settings."""
    states = [(state_of(clip.video) or ())[:3] for clip in clips]
    content = json.dumps([[clip.key for clip in clips], states, dict(settings)], sort_keys=True)
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
        settings: what answers depend on; those given under others are kept and do not count.
        index, count: which of how many processes this is. Clips of one video are dealt out together.
        costs: of each clip, in any unit; by default as many as it has moments.

    Attributes:
        mine: the clips of this process's share, in the order in which it begins them.
        pending: those of them that are not done, and then what the others' shares have left.
        done: what earlier runs have kept of ``mine``, see :meth:`add`.
    """

    def __init__(
        self,
        output: str | Path,
        clips: Sequence[ClipWork],
        settings: Mapping[str, Any],
        index: int = 0,
        count: int = 1,
        costs: Sequence[float] | None = None,
    ) -> None:
        videos: dict[str, list[ClipWork]] = {}
        of_video: dict[str, float] = {}
        for clip, cost in zip(clips, costs or [float(len(clip.moments)) for clip in clips], strict=True):
            videos.setdefault(clip.video, []).append(clip)
            of_video[clip.video] = of_video.get(clip.video, 0.0) + cost
        own, rest = in_order(list(of_video.values()), index, count)
        together = list(videos.values())
        self.output, self.clips, self.settings = Path(output), clips, settings
        self._name = f"{index}-of-{count}"
        self._count = count
        self.folder = self.output.with_name(f"{self.output.name}.parts")
        self._journal = Journal(self.folder, settings)
        self._work = _digest(clips, settings)
        self._finished(self._name).unlink(missing_ok=True)
        self._begun = self.folder / f"begun-{self._name}.txt"
        if count > 1:
            write_whole(self._begun, f"{self._work}\n")
        self.mine = [clip for i in own for clip in together[i]]
        done = self._answers(clips)
        self.done = [done[clip.key] for clip in self.mine if clip.key in done]
        others = [clip for i in rest for clip in together[i]]
        self.pending = [clip for clip in (*self.mine, *others) if clip.key not in done]

    def begin(self, clip: ClipWork) -> bool:
        """Whether this process is to answer a clip, which the others then leave to it; False where it is done, or
        another has begun it."""
        self._journal.refresh()
        if self._journal.has(clip.key, clip.video):
            return False
        if self._count > 1:
            line = json.dumps(clip.key)
            if any(line in self._begun_by(index) for index in range(self._count)):
                return False
            with self._begun.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        return True

    def add(
        self, clip: ClipWork, answers: Sequence[Sequence[str]], details: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """Keep the answers of a clip, a list of texts for each of its moments, and what is to be known about each."""
        if len(answers) != len(clip.moments):
            raise ValueError(f"{clip.key}: {len(answers)} lists of answers for {len(clip.moments)} moments")
        record = {"answers": [list(texts) for texts in answers]}
        more = {"details": [dict(one) for one in details]} if details is not None and any(details) else {}
        self._journal.add(clip.key, clip.video, record | more)

    def finish(self, failed: Mapping[str, str], video_root: str | None = None) -> Outcome | None:
        """Note that nothing is left to begin; where nothing is left to wait for, the output is written.

        Args:
            failed: videos that this process could not read, and why.
            video_root: folder that the rows' paths start from.

        Returns:
            What was written; None while other processes are still at work.
        """
        self._journal.close()
        unread = {clip.key: failed[clip.video] for clip in self.pending if clip.video in failed}
        write_whole(self._finished(self._name), json.dumps({"work": self._work, "failed": unread}) + "\n")
        self._begun.unlink(missing_ok=True)
        finished = [self._unread_by(index) for index in range(self._count)]
        all_unread = {key: fault for of_process in finished for key, fault in (of_process or {}).items()}
        self._journal.refresh()
        answers = self._answers(self.clips)
        lost = [clip for clip in self.clips if clip.key not in answers and clip.key not in all_unread]
        if lost and None in finished:
            logger.info(
                "this process is done, and %d clips are left to others; the last writes %s", len(lost), self.output
            )
            return None
        if lost:
            raise JournalError(
                f"{self.folder}: {len(lost)} clips have neither answers nor an error, such as {lost[0].key!r}: files "
                "of the folder were removed, or videos replaced; start again, which answers what is missing"
            )
        return self._merge(answers, all_unread, video_root)

    def _begun_by(self, index: int) -> Set[str]:
        """Clips that process ``index`` has begun of this work; none for this one, which begins them again."""
        path = self.folder / f"begun-{index}-of-{self._count}.txt"
        if path == self._begun:
            return frozenset()
        try:
            work, *begun = path.read_text(encoding="utf-8").splitlines() or [""]
        except FileNotFoundError:  # it has not started, or is through
            return frozenset()
        return set(begun) if work == self._work else frozenset()

    def _unread_by(self, index: int) -> dict[str, str] | None:
        """Clips that process ``index`` could not read -> why; None where it has not finished this work."""
        try:
            mark = json.loads(self._finished(f"{index}-of-{self._count}").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        unread: dict[str, str] = mark["failed"]
        return unread if mark.get("work") == self._work else None

    def _merge(
        self, answers: Mapping[str, Mapping[str, Any]], unread: Mapping[str, str], video_root: str | None
    ) -> Outcome:
        rows: dict[str, dict[str, Any]] = {}
        for clip in self.clips:
            if clip.key in answers:
                for moment, texts in zip(clip.moments, answers[clip.key]["answers"], strict=True):
                    rows[moment.id] = difficulty_row(moment, texts, self.settings, video_root)
        order = [moment.id for clip in self.clips for moment in clip.moments]
        write_whole(self.output, "".join(json.dumps(rows[i], ensure_ascii=False) + "\n" for i in order if i in rows))
        listing = self.output.with_name(f"{self.output.name}.failed.jsonl")
        failed: dict[str, str] = {}
        moments: dict[str, list[str]] = {}
        for clip in self.clips:
            if clip.key not in answers:
                failed.setdefault(clip.video, unread[clip.key])
                moments.setdefault(clip.video, []).extend(moment.id for moment in clip.moments)
        if moments:
            lines = [json.dumps({"video": v, "error": failed[v], "moments": ids}) + "\n" for v, ids in moments.items()]
            write_whole(listing, "".join(lines))
        else:
            listing.unlink(missing_ok=True)
        unanswered = sum(map(len, moments.values()))
        return Outcome(self.output, len(rows), failed, unanswered)

    def _answers(self, clips: Sequence[ClipWork]) -> dict[str, dict[str, Any]]:
        """Those of the clips that are finished, by whichever process, of this run or another."""
        found = self._journal.lookup((clip.key, clip.video) for clip in clips)
        return {clip.key: record for clip, record in zip(clips, found, strict=True) if record is not None}

    def _finished(self, name: str) -> Path:
        return self.folder / f"finished-{name}.json"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
