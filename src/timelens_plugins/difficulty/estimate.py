"""A model answers every moment, once or several times: each video is decoded, encoded and prefilled once."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel

from timelens_plugins.answers import ask
from timelens_plugins.clips import ClipKey
from timelens_plugins.difficulty.shards import ClipWork, Outcome, Shard, clips_of
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.inference.answering import Answer, Engine, Question
from timelens_plugins.inference.fingerprint import answer_settings, digest_of, thought_settings, weights_of
from timelens_plugins.moments import Moment
from timelens_plugins.shared_prefix.sampling import NO_SAMPLING

__all__ = ["Answering", "difficulty_settings", "engine_settings", "estimate_difficulty", "model_settings"]

logger = logging.getLogger(__name__)

REPETITION_PENALTY = 1.0
"""None, whatever the checkpoint says: the released difficulty filter turns it off, as rollouts of training do."""

_LOOKING = 8
"""Threads that look at the headers of files."""


@dataclass(frozen=True)
class Answering:
    """How moments are answered.

    Attributes:
        samples: answers a moment: 1, greedy; or several, sampled.
        temperature, top_p: of sampled answers.
        max_new_tokens: of an answer.
        max_rows: answers decoded at the same time; sampled ones are of one video.
        seed: of sampled answers. What is sampled for a video depends on it, the video and its queries, and not on what
            was answered before, so neither a kill nor the number of processes changes anything.
    """

    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    max_rows: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "max_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.samples > 1 and not (self.temperature > 0 and 0 < self.top_p <= 1):
            raise ValueError(
                f"sampled answers need temperature > 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}"
            )

    def generation(self) -> dict[str, Any]:
        """For an engine that has no transformers model, by the names of lmms-eval's tasks."""
        greedy = {"max_new_tokens": self.max_new_tokens, "do_sample": self.samples > 1}
        return greedy | ({"temperature": self.temperature, "top_p": self.top_p} if self.samples > 1 else {})

    def generation_config(self, model: PreTrainedModel) -> GenerationConfig:
        """For ``generate``; a checkpoint's own sampling settings do not apply."""
        own, config = model.generation_config, model.config
        ids = {getattr(config, name, None) for name in ("image_token_id", "video_token_id")} - {None}
        sampled = (
            {**NO_SAMPLING, "do_sample": True, "temperature": self.temperature, "top_p": self.top_p}
            if self.samples > 1
            else {"do_sample": False}
        )
        return GenerationConfig(
            **sampled,
            max_new_tokens=self.max_new_tokens,
            repetition_penalty=REPETITION_PENALTY,
            # A vision token in an answer would be looked up among the video's features.
            suppress_tokens=sorted(ids) if self.samples > 1 and ids else None,
            eos_token_id=own.eos_token_id if own is not None else None,
            pad_token_id=own.pad_token_id if own is not None else None,
            use_cache=True,
        )


def difficulty_settings(
    model: PreTrainedModel,
    processor: InterleavedTimestampsMixin,
    name: str,
    answering: Answering,
    revision: str | None = None,
) -> dict[str, Any]:
    """What answers depend on, as JSON types; written into every row.

    Args:
        model, processor: that answer.
        name: path or hub id of the checkpoint.
        answering: how.
        revision: of a hub repository.
    """
    sampled = {k: v for k, v in asdict(answering).items() if k not in ("samples", "max_new_tokens")}
    weights = weights_of(model)
    return {
        "model": name,
        "revision": revision,
        **model_settings(weights.rounded, processor),
        "weights": weights.exact,
        **answer_settings(model, processor),
        "samples": answering.samples,
        "max_new_tokens": answering.max_new_tokens,
        "repetition_penalty": REPETITION_PENALTY,
        **(sampled if answering.samples > 1 else {}),
    }


def engine_settings(engine: Engine[Any], name: str, answering: Answering) -> dict[str, Any]:
    """As :func:`difficulty_settings`, for an engine whose weights are out of reach."""
    names = ("temperature", "top_p", "seed") if answering.samples > 1 else ()
    return {
        "model": name,
        **engine.settings(),
        "prompt": hashlib.blake2b(engine.prompt.encode(), digest_size=4).hexdigest(),
        "samples": answering.samples,
        "max_new_tokens": answering.max_new_tokens,
        **{name: getattr(answering, name) for name in names},
    }


def model_settings(weights: str, processor: InterleavedTimestampsMixin) -> dict[str, Any]:
    """Those of :func:`difficulty_settings` that a training run shares with estimates made for it.

    Args:
        weights: the model's ``fingerprint`` (see ``inference.fingerprint``), of before any adapter was put on.
        processor: as it is trained with.
    """
    return {
        "fingerprint": weights,
        "chat_template": digest_of(processor.chat_template),
        "encoding": processor.encoding,
        "timestamp_format": processor.timestamp_format,
        "thinking": processor.thinking,
        **thought_settings(processor),
        "prompt": hashlib.blake2b(processor.prompt.encode(), digest_size=4).hexdigest(),
        **processor.frame_sampling.to_dict(),
    }


def estimate_difficulty(
    engine: Engine[Any],
    moments: Sequence[Moment],
    output: str | Path,
    settings: dict[str, Any],
    *,
    seed: int = 0,
    shard: int = 0,
    shards: int = 1,
    video_root: str | None = None,
    progress: bool = True,
) -> Outcome | None:
    """Answer every moment and write difficulty rows; started again, it goes on where it was killed.

    Args:
        engine: with ``on_bad_video="skip"``, videos that cannot be read are listed; else the first stops the run.
        moments: to be answered, with paths of videos.
        output: the file of rows; see :mod:`~timelens_plugins.difficulty.shards` for what lies beside it.
        settings: from :func:`difficulty_settings`.
        seed: of sampled answers.
        shard, shards: which of how many processes this is; each answers its own videos, the largest first, and then
            what the others have not begun.
        video_root: folder that the rows' ``video_path`` starts from.
        progress: show a bar with the time left.

    Returns:
        What was written; None where other processes are still at work, the last of which writes it.

    Raises:
        JournalError: finished work was removed, or videos were replaced, while this ran.
        VideoError: an unreadable video, unless it is skipped.
    """
    clips = clips_of(moments)
    failed: dict[str, str] = {}
    with Shard(output, clips, settings, shard, shards, _costs(engine, clips)) as work:
        for record in work.done:
            for texts, details in zip(record["answers"], record.get("details", ()), strict=False):
                engine.recall(Answer(tuple(texts), (0,) * len(texts), details=details))
        mine = {clip.key for clip in work.mine}
        total = sum(len(clip.moments) for clip in work.mine)
        left = sum(len(clip.moments) for clip in work.pending if clip.key in mine)
        where = "" if shards == 1 else f" {shard}/{shards}"
        with tqdm(
            total=total, initial=total - left, desc=f"Difficulty{where}", unit="moment", disable=not progress
        ) as bar:

            def begin(clip: ClipWork) -> bool:
                # An engine that samples here computes a clip right after it has asked.
                torch.manual_seed(_clip_seed(seed, clip.key))
                begun = work.begin(clip)
                if begun != (clip.key in mine):  # the share grows by what others leave, and shrinks by what they take
                    bar.total += len(clip.moments) if begun else -len(clip.moments)
                return begun

            try:
                for clip, answers in _answered(engine, work.pending, begin):
                    error = next((answer.error for answer in answers if answer.error is not None), None)
                    if error is None:
                        work.add(clip, [answer.texts for answer in answers], [answer.details for answer in answers])
                    else:
                        failed[clip.video] = error
                    bar.update(len(clip.moments))
            finally:
                engine.close()
        logger.info("%s", engine.waiting())
        return work.finish(failed, video_root)


def _costs(engine: Engine[Any], clips: Sequence[ClipWork]) -> list[float]:
    """Of each clip, by the headers of the files."""
    with ThreadPoolExecutor(_LOOKING) as pool:
        return list(pool.map(lambda clip: engine.cost(_clip_key(clip), len(clip.moments)), clips))


def _clip_key(clip: ClipWork) -> ClipKey:
    first = clip.moments[0]
    return ClipKey(first.video, first.video_start, first.video_end)


def _answered(
    engine: Engine[Any], clips: Sequence[ClipWork], begin: Callable[[ClipWork], bool]
) -> Iterator[tuple[ClipWork, list[Answer]]]:
    """Clips with the answers of their moments, as they are complete, while the next videos are decoded."""
    questions = [
        Question(m.video, m.question or ask(engine.prompt, m.query), m.video_start, m.video_end)
        for clip in clips
        for m in clip.moments
    ]
    by_key = {_clip_key(clip): clip for clip in clips}
    starts = list(itertools.accumulate((len(clip.moments) for clip in clips), initial=0))
    owner = [number for number, clip in enumerate(clips) for _ in clip.moments]
    answers: dict[int, Answer] = {}
    for index, answer in engine.answer(questions, lambda key: begin(by_key[key])):
        if index in answers:
            raise RuntimeError(f"question {index} was answered twice; this is a defect")
        answers[index] = answer
        done = owner[index]
        of_clip = range(starts[done], starts[done + 1])
        if all(i in answers for i in of_clip):
            yield clips[done], [answers[i] for i in of_clip]


def _clip_seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()) >> 1
