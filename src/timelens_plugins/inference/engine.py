"""The engine ``transformers``: a Hugging Face model, for which each video is decoded, encoded and prefilled once.

The questions about a video share the prefill of everything before they part. Videos are prefilled one by one; the
answers about many of them are decoded together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import InterleavedTimestampsMixin, build_messages
from timelens_plugins.families import shares_prefix
from timelens_plugins.families.load import restore_positions
from timelens_plugins.inference.answering import Answer, Begin, Engine, Question
from timelens_plugins.inference.decoding_limits import DecodingLimits
from timelens_plugins.inference.fingerprint import answer_settings, weights_of
from timelens_plugins.inference.plain import generate_plain, plain_log_probs
from timelens_plugins.shared_prefix import (
    Prefilled,
    Prompt,
    PromptTree,
    complete,
    generate_group,
    log_probs,
    prefill,
    share_prompt,
)
from timelens_plugins.shared_prefix.sampling import seeded
from timelens_plugins.video import FrameCache, VideoClip, VideoError, sample_frames

__all__ = ["Answer", "Question", "VideoAnswerer"]

logger = logging.getLogger(__name__)


@dataclass
class _Prefilled:
    """The questions about a video, ready to be answered; with a seed for each sample, or none."""

    indices: Sequence[int]
    prefilled: Prefilled
    seeds: list[int]


@dataclass
class VideoAnswerer(Engine[VideoClip]):
    """A model, its processor and how to generate.

    Args:
        model: of a known family, in evaluation mode.
        processor: from :func:`timelens_plugins.encodings.load_processor`; its ``frame_sampling`` decides frames and
            pixels.
        generation: decoding settings of one answer.
        samples: answers per question; more than one needs ``do_sample``.
        share_prefix: prefill a video once for all its questions and samples; without, the model's own ``generate``
            computes it once for each.
        max_rows: answers decoded at the same time, of as many videos as that takes and memory allows; None: 64.
        clip_workers: videos decoded ahead of the model, in memory at once; None: as many as it takes not to wait.
        cache: where decoded frames are kept for the next run about the same videos.
        on_bad_video: ``"error"`` stops at an unreadable video, ``"skip"`` answers with an empty text and the error.
        system_prompt: a system turn before the question; None for none, as in the official protocol.
        log_probs: also give the log-prob of each token of an answer, by one more forward.
    """

    model: PreTrainedModel
    processor: InterleavedTimestampsMixin
    generation: GenerationConfig
    samples: int = 1
    share_prefix: bool = True
    max_rows: int | None = None
    clip_workers: int | None = None
    video_backend: str = "auto"
    cache: FrameCache | None = None
    on_bad_video: Literal["error", "skip"] = "error"
    system_prompt: str | None = None
    log_probs: bool = False
    skipped: dict[str, str] = field(default_factory=dict, init=False)
    cut: int = field(default=0, init=False)
    too_long: int = field(default=0, init=False)
    _limits: DecodingLimits = field(init=False, repr=False)

    def __post_init__(self) -> None:
        restore_positions(self.model)
        self.frame_sampling = self.processor.frame_sampling
        self.share_prefix = shares_prefix(self.model, self.share_prefix)
        if self.samples > 1 and not self.generation.do_sample:
            raise ValueError(f"{self.samples} samples of a greedy answer would be equal; set do_sample")
        self._limits = DecodingLimits(self.max_rows, self.model.device)
        if not self.share_prefix:
            logger.info("share_prefix=False: the prompt, video included, is computed once for each answer")

    @property
    def prompt(self) -> str:
        """The one that was saved with the checkpoint."""
        return self.processor.prompt

    def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
        """Grouped by video in order of first appearance.

        Sampled answers without a seed are computed video by video, right after ``begin`` was asked for each.
        """
        waiting: list[_Prefilled] = []
        for indices, clip in self._clips(questions, begin):
            if isinstance(clip, VideoError):
                if self.on_bad_video == "error":  # what is known so far is not lost with the run
                    yield from self._decode(waiting, questions)
                yield from self._unread(clip, questions[indices[0]].video, indices)
                continue
            prompts, seeds = self._prompts(clip, [questions[i] for i in indices])
            room = self._context - (self.generation.max_new_tokens or 0)
            self.too_long += sum(len(prompt) > room for prompt in prompts)
            if not self.share_prefix or self.log_probs or (self.generation.do_sample and seeds is None):
                yield from zip(indices, self._generate(prompts, seeds), strict=True)
                continue
            if (ready := self._fitting(indices, prompts, seeds, last=not waiting)) is None:
                self._limits.reached(sum(one.prefilled.bytes for one in waiting))
                yield from self._decode(waiting, questions)
                waiting, ready = [], self._prefill(indices, prompts, seeds)
            waiting.append(ready)
            rows = sum(len(one.indices) for one in waiting) * self.samples
            if self._limits.full(rows, sum(one.prefilled.bytes for one in waiting)):
                yield from self._decode(waiting, questions)
                waiting = []
        yield from self._decode(waiting, questions)

    def settings(self) -> dict[str, Any]:
        """Model, processor, system turn and backend; every weight is read."""
        return {
            "weights": weights_of(self.model).exact,
            **answer_settings(self.model, self.processor),
            "system_prompt": self.system_prompt,
            "video_backend": self.video_backend,
        }

    def recall(self, answer: Answer) -> None:
        """Count an answer of an earlier run that was cut."""
        self.cut += bool(answer.details.get("cut"))

    def close(self) -> None:
        """Say how many answers have no end, and how many prompts are longer than the model knows."""
        if self.cut:
            logger.warning("%d answers were cut by the limit of new tokens: raise max_new_tokens", self.cut)
        if self.too_long:
            logger.warning(
                "%d prompts with their answers are longer than the %d tokens that the model was made for: show less of "
                "the videos (total_tokens, max_frames)",
                self.too_long,
                self._context,
            )

    @property
    def _context(self) -> int:
        return int(self.model.config.get_text_config().max_position_embeddings)

    def _prepare(self, path: str, start: float | None, end: float | None) -> VideoClip:
        return sample_frames(
            path,
            self.processor.frame_sampling,
            video_start=start,
            video_end=end,
            backend=self.video_backend,
            cache=self.cache,
        )

    def _prompts(self, clip: VideoClip, questions: Sequence[Question]) -> tuple[list[Prompt], list[int] | None]:
        """Of each question, and the seed of each sample where questions have seeds."""
        loaded, encoding = load_clip(self.processor, clip), self.processor.encoding
        chats = [build_messages(clip, "", encoding, question=q.text, system=self.system_prompt) for q in questions]
        prompts = [loaded.prompt(chat) for chat in chats]
        seeds = [q.seed + k for q in questions if q.seed is not None for k in range(self.samples)]
        if seeds and len(seeds) != len(questions) * self.samples:
            raise ValueError(f"{clip.path}: some of its questions have a seed, and some have none")
        return prompts, seeds or None

    def _prefill(self, indices: Sequence[int], prompts: Sequence[Prompt], seeds: list[int] | None) -> _Prefilled:
        return _Prefilled(indices, prefill(self.model, *share_prompt(prompts)), seeds or [])

    def _fitting(
        self, indices: Sequence[int], prompts: Sequence[Prompt], seeds: list[int] | None, *, last: bool
    ) -> _Prefilled | None:
        """None where memory runs out, unless nothing else can be given up. What the attempt held is free by then: the
        error, which holds it, does not outlive this function."""
        try:
            return self._prefill(indices, prompts, seeds)
        except torch.OutOfMemoryError:
            if last:
                raise
            return None

    def _decode(self, waiting: list[_Prefilled], questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Answers about several videos; about fewer at a time where memory runs out, which takes a new prefill."""
        if not waiting:
            return
        seeds = [seed for one in waiting for seed in one.seeds]
        indices = [i for one in waiting for i in one.indices]
        held = sum(one.prefilled.bytes for one in waiting)
        try:
            completions = complete(
                self.model,
                [one.prefilled for one in waiting],
                self.generation,
                completions=self.samples,
                max_rows=self._limits.rows,
                seeds=seeds or None,
            )
        except torch.OutOfMemoryError:
            if len(waiting) == 1:
                raise
            completions = None
        if completions is not None:
            yield from zip(indices, self._answers(completions), strict=True)
            return
        self._limits.reached(held)
        groups = [one.indices for one in waiting]
        waiting.clear()  # what they hold is what is missing
        for half in (groups[: len(groups) // 2], groups[len(groups) // 2 :]):
            again = []
            for own in half:
                asked = [questions[i] for i in own]
                again.append(self._prefill(own, *self._prompts(self._prepare(*asked[0].clip), asked)))
            yield from self._decode(again, questions)

    def _generate(self, prompts: Sequence[Prompt], seeds: list[int] | None) -> list[Answer]:
        """Answers about one video."""
        if self.share_prefix:
            shared, queries = share_prompt(prompts)
            completions = generate_group(
                self.model,
                shared,
                self.generation,
                completions=self.samples,
                queries=queries,
                max_rows=self._limits.rows,
                seeds=seeds,
            )
        elif seeds is None:
            rows = self._limits.rows
            completions = [
                generate_plain(self.model, prompt, self.generation, self.samples, rows) for prompt in prompts
            ]
        else:
            each = [prompt for prompt in prompts for _ in range(self.samples)]
            drawn = [self._draw(prompt, seed) for prompt, seed in zip(each, seeds, strict=True)]
            completions = [drawn[i : i + self.samples] for i in range(0, len(drawn), self.samples)]
        return self._answers(completions, self._log_probs(prompts, completions) if self.log_probs else None)

    def _answers(
        self,
        completions: Sequence[Sequence[Tensor]],
        log_probs: Sequence[tuple[tuple[float, ...], ...]] | None = None,
    ) -> list[Answer]:
        own = self.generation.eos_token_id
        ends = {own} if isinstance(own, int) else set(own or ())
        answers = []
        for number, rows in enumerate(completions):
            written = self.processor.answer_texts(rows)
            ids = tuple(tuple(row.tolist()) for row in rows)
            cut = any(row[-1] not in ends for row in ids)
            self.cut += cut
            details = {"cut": True} if cut else {}
            chances = None if log_probs is None else log_probs[number]
            answers.append(Answer(tuple(written), tuple(map(len, ids)), None, ids, details, chances))
        return answers

    def _draw(self, prompt: Prompt, seed: int) -> Tensor:
        with seeded(self.model.device, seed):
            return generate_plain(self.model, prompt, self.generation)[0]

    def _log_probs(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Tensor]]
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Of each completion of each prompt."""
        if self.share_prefix:
            shared, queries = share_prompt(prompts)
            with torch.no_grad():
                found = log_probs(self.model, PromptTree.of_queries(shared, zip(queries, completions, strict=True)))
            flat = iter(found.split())
        else:
            flat = (
                plain_log_probs(self.model, prompt, row)
                for prompt, rows in zip(prompts, completions, strict=True)
                for row in rows
            )
        return [tuple(tuple(next(flat).tolist()) for _ in rows) for rows in completions]
