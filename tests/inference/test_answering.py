"""What every engine has in common: a clip is prepared once for all its questions, ahead, and no more than allowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from timelens_plugins.clips import ClipKey, ReadAhead, read_ahead
from timelens_plugins.inference.answering import Answer, Begin, Engine, Question
from timelens_plugins.video import VideoError

QUESTIONS = [Question(f"{i % 6}.mp4", f"question {i}") for i in range(12)]


class Counting(Engine[str]):
    """Answers with the path of the clip; keeps count of clips that are prepared and not given back."""

    samples = 1

    def __init__(
        self,
        workers: int | None,
        broken: str = "",
        on_bad_video: Any = "error",
        seconds: tuple[float, float] = (0, 0.02),
    ) -> None:
        self.clip_workers, self.broken, self.on_bad_video = workers, broken, on_bad_video
        self.preparing, self.working = seconds
        self.skipped: dict[str, str] = {}
        self.prepared: list[str] = []
        self.done = self.most = 0
        self.lock = threading.Lock()

    def settings(self) -> dict[str, Any]:
        return {}

    def _prepare(self, path: str, start: float | None, end: float | None) -> str:
        with self.lock:
            self.prepared.append(path)
            self.most = max(self.most, len(self.prepared) - self.done)
        time.sleep(self.preparing)
        if path == self.broken:
            raise VideoError(path, "broken")
        return path

    def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
        for indices, clip in self._clips(questions, begin):
            time.sleep(self.working)  # the others get ready meanwhile
            if isinstance(clip, VideoError):
                yield from self._unread(clip, questions[indices[0]].video, indices)
            else:
                yield from ((i, Answer((clip,), (1,))) for i in indices)
            self.done += 1


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_each_clip_once_in_order_and_no_more_than_allowed(workers: int) -> None:
    engine = Counting(workers)
    found = list(engine.answer(QUESTIONS))
    assert [index for index, _ in found] == [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11]
    assert all(answer.texts == (QUESTIONS[index].video,) for index, answer in found)
    assert sorted(engine.prepared) == [f"{i}.mp4" for i in range(6)]
    assert engine.most == workers


def test_the_time_without_a_clip_is_told() -> None:
    slow = Counting(1, seconds=(0.03, 0))
    list(slow.answer(QUESTIONS))
    assert 0.18 <= slow.waited <= slow.seconds
    assert slow.waited > 0.5 * slow.seconds
    assert slow.waiting() == f"waiting for video: {slow.waited / slow.seconds:.0%} of 0 s"
    fast = Counting(2, seconds=(0, 0.1))
    list(fast.answer(QUESTIONS))
    assert fast.seconds >= 0.6
    assert fast.waited < 0.5 * fast.seconds


def test_more_clips_are_read_ahead_where_they_were_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_ahead, "_most_ahead", lambda: 4)
    keys = [ClipKey(str(i)) for i in range(24)]
    for late, found in ((False, 2), (True, 4)):
        with ReadAhead(lambda key: time.sleep(0.01), workers=None) as clips:
            clips.request(keys)
            for key in keys:
                while not late and not all(future.done() for future in clips._held.values()):
                    time.sleep(0.001)
                with clips.held(key):
                    assert len(clips._held) <= 4
            assert clips._ahead == found


def test_cores_are_shared_by_the_processes_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    for processes, most in (("1", 9), ("16", 5), ("100", 2)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert read_ahead._most_ahead() == most


def test_what_is_not_begun_is_left_out_and_the_others_are_not() -> None:
    engine = Counting(2)
    asked: list[str] = []

    def begin(clip: Any) -> bool:
        asked.append(clip.video)
        return clip.video not in ("0.mp4", "3.mp4")

    found = list(engine.answer(QUESTIONS, begin))
    assert [index for index, _ in found] == [1, 7, 2, 8, 4, 10, 5, 11]
    assert asked == [f"{i}.mp4" for i in range(6)]


def test_unreadable_videos() -> None:
    with pytest.raises(VideoError, match="broken"):
        list(Counting(2, broken="3.mp4").answer(QUESTIONS))
    engine = Counting(2, broken="3.mp4", on_bad_video="skip")
    found = dict(engine.answer(QUESTIONS))
    assert sorted(i for i, answer in found.items() if answer.error is not None) == [3, 9]
    assert list(engine.skipped) == ["3.mp4"]


def test_an_end_before_the_last_answer_leaves_nothing_behind() -> None:
    before = threading.active_count()
    answers = Counting(2).answer(QUESTIONS)
    next(answers)
    answers.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() == before
