"""What every engine has in common: questions grouped by video, clips prepared ahead, the rule for unreadable videos.

An engine answers questions about videos. Evaluation and difficulty estimation keep the journal and the progress bar
above it, and do not know which engine it is.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.clips import ClipKey, ReadAhead
from timelens_plugins.video import FrameCache, FrameSampling, VideoError, expected_tokens

__all__ = ["Answer", "Begin", "Engine", "Question"]

logger = logging.getLogger(__name__)

Prepared = TypeVar("Prepared")

Begin = Callable[[ClipKey], bool]
"""Asked when an engine turns to a clip; False leaves its questions out."""

_TOKENS_OF_A_QUESTION = 100
"""What a further question about a clip costs, in vision tokens: five take 1.1 times one in benchmarks/evaluate.py."""


@dataclass(frozen=True, slots=True)
class Question:
    """A text to put after a video, or after the window ``video_start..video_end`` (seconds) of it.

    ``seed`` is that of a sampled answer, which then depends on nothing but it and the question; of several answers each
    has the next number. None: from torch's own random numbers.
    """

    video: str
    text: str
    video_start: float | None = None
    video_end: float | None = None
    seed: int | None = None

    @property
    def clip(self) -> ClipKey:
        """What has to be decoded."""
        return ClipKey(self.video, self.video_start, self.video_end)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says to one question; with several samples, one entry each.

    Attributes:
        texts: what it wrote.
        output_tokens: how many tokens that took.
        error: why there is no answer: a video that was skipped, or a request that failed. The texts are empty then.
        token_ids: of the texts, end-of-sequence token included, where the engine knows them.
        details: what else the engine was told, JSON types; kept in journals beside the answer.
        log_probs: natural logarithm of each token's probability by the model as it is, before temperature and
            penalties, where the engine was asked for them.
    """

    texts: tuple[str, ...]
    output_tokens: tuple[int, ...]
    error: str | None = None
    token_ids: tuple[tuple[int, ...], ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    log_probs: tuple[tuple[float, ...], ...] | None = None


class Engine(ABC, Generic[Prepared]):
    """Answers questions about videos.

    Attributes:
        samples: answers a question.
        on_bad_video: ``"error"`` stops at an unreadable video, ``"skip"`` answers with empty texts and the error.
        clip_workers: clips prepared at the same time, ahead of the model, and in memory at once; None for as many as
            it takes that nobody waits, see :class:`~timelens_plugins.clips.ReadAhead`.
        skipped: path of a video that could not be read -> why.
        frame_sampling: what decides how large a clip will be; None where nothing is known.
        cache: where decoded frames are kept for the next run; None: nowhere.
        seconds: how long :meth:`answer` took, what was done with the answers included.
        waited: seconds of those in which no clip was ready.
    """

    samples: int
    on_bad_video: Literal["error", "skip"]
    clip_workers: int | None
    skipped: dict[str, str]
    frame_sampling: FrameSampling | None = None
    cache: FrameCache | None = None
    seconds: float = 0.0
    waited: float = 0.0

    @property
    def prompt(self) -> str:
        """With ``{query}``: what the model is asked with where a moment has no question of its own."""
        return GROUNDING_PROMPT

    def answer(self, questions: Sequence[Question], begin: Begin | None = None) -> Iterator[tuple[int, Answer]]:
        """Answers as they come, each with the index of its question; each question exactly once.

        Clips are taken in the order in which questions first name them.

        Args:
            questions: in any order.
            begin: asked for each clip right before the model turns to it, not when it is read ahead.

        Raises:
            VideoError: an unreadable video, unless it is skipped.
        """
        started = time.perf_counter()
        try:
            yield from self._answer(questions, begin)
        finally:
            self.seconds += time.perf_counter() - started

    @abstractmethod
    def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
        """:meth:`answer`."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that answers depend on besides the question, its generation settings and its video; JSON types."""

    def recall(self, answer: Answer) -> None:
        """Take note of an answer of an earlier run, which is not asked for again."""

    def close(self) -> None:
        """The end of a run, or of what came of it: say what there is to say, give back what is held."""

    def waiting(self) -> str:
        """A line for the end of a run: how much of it went by without a clip to work on, and what its cache did."""
        line = f"waiting for video: {self.waited / max(self.seconds, 1e-9):.0%} of {self.seconds:.0f} s"
        return line if self.cache is None else f"{line}; {self.cache.summary()}"

    def cost(self, clip: ClipKey, questions: int) -> float:
        """What so many questions about a clip cost, in vision tokens, by the header of its file; for comparing.

        Infinite for a clip that cannot be read.
        """
        tokens = 0.0 if self.frame_sampling is None else expected_tokens(clip.video, self.frame_sampling, *clip[1:])
        return tokens + questions * self.samples * _TOKENS_OF_A_QUESTION

    @abstractmethod
    def _prepare(self, path: str, start: float | None, end: float | None) -> Prepared:
        """A clip as this engine takes it; called in a background thread."""

    def _clips(
        self, questions: Sequence[Question], begin: Begin | None = None
    ) -> Iterator[tuple[list[int], Prepared | VideoError]]:
        """Questions' indices by clip, in order of first appearance, with the clip or the reason why there is none."""
        groups: dict[ClipKey, list[int]] = {}
        for index, question in enumerate(questions):
            groups.setdefault(question.clip, []).append(index)
        workers = self.clip_workers
        with ReadAhead(lambda key: self._prepare(*key), workers, ahead=workers) as clips:
            clips.request(groups)
            for key, indices in groups.items():
                if begin is not None and not begin(key):
                    clips.withdraw([key])
                    continue
                before = clips.waited
                try:
                    with clips.held(key) as prepared:
                        yield indices, prepared
                except VideoError as error:
                    yield indices, error
                finally:
                    self.waited += clips.waited - before

    def _unread(self, error: VideoError, path: str, indices: Sequence[int]) -> Iterator[tuple[int, Answer]]:
        """What becomes of the questions about a video that cannot be read."""
        if self.on_bad_video == "error":
            raise error
        logger.error("skipped: %s", error)
        self.skipped[path] = error.fault
        yield from ((index, self._failed(error.fault)) for index in indices)

    def _failed(self, error: str) -> Answer:
        return Answer(("",) * self.samples, (0,) * self.samples, error=error)
