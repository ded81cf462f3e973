"""A model answers every moment, once or several times: each video is decoded, encoded and prefilled once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.difficulty.shards import ClipWork, Outcome, Shard, clips_of
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.inference.fingerprint import fingerprint
from timelens_plugins.moments import Moment
from timelens_plugins.timestamps import InterleavedTimestampsMixin

__all__ = ["Answering", "difficulty_settings", "estimate_difficulty", "model_settings"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answering:
    """How moments are answered.

    Attributes:
        samples: answers a moment: 1, greedy; or several, sampled.
        temperature, top_p: of sampled answers.
        max_new_tokens: of an answer.
        max_rows: answers of a video decoded at the same time, each with its own copy of the prompt's cache.
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

    def generation_config(self, model: PreTrainedModel) -> GenerationConfig:
        """For ``generate``; a checkpoint's own sampling settings do not apply."""
        own, config = model.generation_config, model.config
        ids = {getattr(config, name, None) for name in ("image_token_id", "video_token_id")} - {None}
        sampled = (
            {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
            if self.samples > 1
            else {"do_sample": False}
        )
        return GenerationConfig(
            **sampled,
            max_new_tokens=self.max_new_tokens,
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
    return {
        "model": name,
        "revision": revision,
        **model_settings(fingerprint(model), processor),
        "dtype": str(model.dtype).removeprefix("torch."),
        "samples": answering.samples,
        "max_new_tokens": answering.max_new_tokens,
        **(sampled if answering.samples > 1 else {}),
    }


def model_settings(weights: str, processor: InterleavedTimestampsMixin) -> dict[str, Any]:
    """Those of :func:`difficulty_settings` that a training run shares with estimates made for it.

    Args:
        weights: the model's ``fingerprint`` (see ``inference.fingerprint``), of before any adapter was put on.
        processor: as it is trained with.
    """
    return {
        "fingerprint": weights,
        "encoding": processor.encoding,
        "timestamp_format": processor.timestamp_format,
        "prompt": hashlib.blake2b(GROUNDING_PROMPT.encode(), digest_size=4).hexdigest(),
        **asdict(processor.frame_sampling),
    }


def estimate_difficulty(
    answerer: VideoAnswerer,
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
        answerer: with ``on_bad_video="skip"``, videos that cannot be read are listed; else the first stops the run.
        moments: to be answered, with paths of videos.
        output: the file of rows; see :mod:`~timelens_plugins.difficulty.shards` for what lies beside it.
        settings: from :func:`difficulty_settings`.
        seed: of sampled answers.
        shard, shards: which of how many processes this is; each answers its own videos.
        video_root: folder that the rows' ``video_path`` starts from.
        progress: show a bar with the time left.

    Returns:
        What was written; None where other processes are still at work, the last of which writes it.

    Raises:
        JournalError: beside ``output`` lies work of another model or other settings.
        VideoError: an unreadable video, unless it is skipped.
    """
    clips = clips_of(moments)
    failed: dict[str, str] = {}
    with Shard(output, clips, settings, shard, shards) as work:
        total, left = (sum(len(clip.moments) for clip in part) for part in (work.mine, work.pending))
        where = "" if shards == 1 else f" {shard}/{shards}"
        with tqdm(
            total=total, initial=total - left, desc=f"Difficulty{where}", unit="moment", disable=not progress
        ) as bar:
            for clip, answers, error in _answered(answerer, work.pending, seed):
                if error is None:
                    work.add(clip, answers)
                else:
                    failed[clip.video] = error
                bar.update(len(clip.moments))
        return work.finish(failed, video_root)


def _answered(
    answerer: VideoAnswerer, clips: Sequence[ClipWork], seed: int
) -> Iterator[tuple[ClipWork, list[tuple[str, ...]], str | None]]:
    """Clips with the answers of their moments, in order, while the next videos are decoded."""
    questions = [
        Question(m.video, GROUNDING_PROMPT.format(query=m.query), m.video_start, m.video_end)
        for clip in clips
        for m in clip.moments
    ]
    stream = answerer.answer(questions)
    expected = 0
    for clip in clips:
        torch.manual_seed(_clip_seed(seed, clip.key))  # the engine generates a clip when its first answer is asked for
        answers, error = [], None
        for _ in clip.moments:
            index, answer = next(stream)
            if index != expected:
                raise RuntimeError(f"answer {index} came where {expected} was due; this is a defect")
            expected += 1
            answers.append(answer.texts)
            error = error or answer.error
        yield clip, answers, error


def _clip_seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()) >> 1
