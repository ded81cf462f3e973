"""Answers questions about videos with a Hugging Face model: each video is decoded, encoded and prefilled once.

Questions are grouped by video (and window). The next videos are decoded in background threads while the model works.
A group's questions share the prefill of everything before they part. A video that cannot be read stops the run with
its name, or, if asked, gives every question about it an empty answer that carries the error.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from transformers import GenerationConfig, PreTrainedModel

from timelens_plugins.answers import PREAMBLES
from timelens_plugins.shared_prefix import Prompt, generate_group, share_prompt
from timelens_plugins.timestamps import InterleavedTimestampsMixin
from timelens_plugins.video import VideoClip, VideoError, sample_frames

__all__ = ["Answer", "Question", "VideoAnswerer", "question_prompts"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """A text to put after a video, or after the window ``video_start..video_end`` (seconds) of it."""

    video: str
    text: str
    video_start: float | None = None
    video_end: float | None = None

    @property
    def clip(self) -> tuple[str, float | None, float | None]:
        """What has to be decoded."""
        return self.video, self.video_start, self.video_end


@dataclass(frozen=True, slots=True)
class Answer:
    """Model text for one question; with several samples, one text each. ``error`` names a video that was skipped."""

    texts: tuple[str, ...]
    output_tokens: tuple[int, ...]
    error: str | None = None


@dataclass
class VideoAnswerer:
    """A model, its processor and how to generate.

    Args:
        model: a Qwen-VL style model in evaluation mode.
        processor: from :func:`timelens_plugins.timestamps.load_processor`; its ``frame_sampling`` decides frames and
        pixels. generation: decoding settings of one answer.
        samples: answers per question; more than one needs ``do_sample``.
        share_prefill: prefill a video once for all its questions and samples; without, once for each.
        max_rows: answers decoded at the same time, each with its own copy of the prompt's cache.
        decoder_threads: videos decoded ahead of the model, in memory at once.
        on_bad_video: ``"error"`` stops at an unreadable video, ``"skip"`` answers with an empty text and the error.
        system_prompt: a system turn before the question; None for none, as in the official protocol.
    """

    model: PreTrainedModel
    processor: InterleavedTimestampsMixin
    generation: GenerationConfig
    samples: int = 1
    share_prefill: bool = True
    max_rows: int = 8
    decoder_threads: int = 2
    video_backend: str = "auto"
    on_bad_video: Literal["error", "skip"] = "error"
    system_prompt: str | None = None
    skipped: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.samples > 1 and not self.generation.do_sample:
            raise ValueError(f"{self.samples} samples of a greedy answer would be equal; set do_sample")

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Answers as they come, each with the index of its question; grouped by video in order of first appearance."""
        groups: dict[tuple[str, float | None, float | None], list[int]] = {}
        for index, question in enumerate(questions):
            groups.setdefault(question.clip, []).append(index)
        for indices, clip in self._decoded(groups):
            if isinstance(clip, VideoClip):
                yield from zip(indices, self._generate(clip, [questions[i].text for i in indices]), strict=True)
                continue
            if self.on_bad_video == "error":
                raise clip
            logger.error("skipped: %s", clip)
            self.skipped[questions[indices[0]].video] = str(clip)
            for index in indices:
                yield index, Answer(("",) * self.samples, (0,) * self.samples, error=str(clip))

    def _decoded(
        self, groups: dict[tuple[str, float | None, float | None], list[int]]
    ) -> Iterator[tuple[list[int], VideoClip | VideoError]]:
        """Each group with its clip, in order; the next clips are decoded meanwhile."""
        waiting: deque[tuple[list[int], Future[VideoClip]]] = deque()
        remaining = iter(groups.items())
        with ThreadPoolExecutor(self.decoder_threads, thread_name_prefix="decode") as pool:
            try:
                while True:
                    while len(waiting) < self.decoder_threads and (group := next(remaining, None)):
                        (path, start, end), indices = group
                        waiting.append((indices, pool.submit(self._decode, path, start, end)))
                    if not waiting:
                        return
                    indices, future = waiting.popleft()
                    clip: VideoClip | VideoError
                    try:
                        clip = future.result()
                    except VideoError as error:
                        clip = error
                    yield indices, clip
            finally:
                for _, future in waiting:
                    future.cancel()

    def _decode(self, path: str, start: float | None, end: float | None) -> VideoClip:
        return sample_frames(
            path, self.processor.frame_sampling, video_start=start, video_end=end, backend=self.video_backend
        )

    def _generate(self, clip: VideoClip, texts: Sequence[str]) -> list[Answer]:
        prompts = question_prompts(self.processor, clip, texts, system_prompt=self.system_prompt)
        groups = [prompts] if self.share_prefill else [[prompt] for prompt in prompts]
        answers: list[Answer] = []
        for group in groups:
            shared, queries = share_prompt(group)
            completions = generate_group(
                self.model,
                shared,
                self.generation,
                completions=self.samples,
                queries=queries,
                max_rows=self.max_rows if self.share_prefill else self.samples,
            )
            for rows in completions:
                written = self.processor.batch_decode(rows, skip_special_tokens=True)
                answers.append(Answer(tuple(written), tuple(len(row) for row in rows)))
        return answers


def question_prompts(
    processor: InterleavedTimestampsMixin, clip: VideoClip, texts: Sequence[str], *, system_prompt: str | None = None
) -> list[Prompt]:
    """The prompts that put each text after the same clip, in the processor's encoding; they share its vision tensors.

    The clip goes through the processor once. What follows it starts behind a vision marker, which no token crosses, so
    the other texts are tokenized by themselves.
    """
    preamble = PREAMBLES[processor.encoding]
    system = [] if system_prompt is None else [{"role": "system", "content": [{"type": "text", "text": system_prompt}]}]
    chats = []
    for text in texts:
        parts = [{"type": "video", "video": clip}, {"type": "text", "text": preamble + text}]
        chats.append(
            processor.apply_chat_template(
                [*system, {"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
            )
        )
    first = Prompt.from_inputs(processor(text=[chats[0]], videos=[clip], return_tensors="pt"))
    marker = processor.tokenizer.convert_tokens_to_ids("<|vision_end|>")
    after_video = int((first.input_ids == marker).nonzero()[-1]) + 1
    prompts = []
    for chat in chats:
        tail = chat[chat.rindex("<|vision_end|>") + len("<|vision_end|>") :]
        ids = torch.tensor(processor.tokenizer(tail, add_special_tokens=False)["input_ids"], dtype=torch.long)
        text_only = torch.zeros_like(ids)
        prompts.append(
            replace(
                first,
                input_ids=torch.cat([first.input_ids[:after_video], ids]),
                mm_token_type_ids=torch.cat([first.mm_token_type_ids[:after_video], text_only]),
            )
        )
    if not torch.equal(prompts[0].input_ids, first.input_ids):
        raise RuntimeError("the text after a video was tokenized differently on its own; this is a defect")
    return prompts
