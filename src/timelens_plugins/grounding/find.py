"""A model finds queries in a video: one decode, one vision pass and one prefill for all queries and all answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel

from timelens_plugins.answers import AnswerStatus, grounding_prompt, normalize_query, parse_answer
from timelens_plugins.difficulty.estimate import Answering
from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.grounding.calibration import Calibration
from timelens_plugins.grounding.consensus import consensus
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.spans import Span

__all__ = ["FoundMoment", "find_moments"]


@dataclass(frozen=True)
class FoundMoment:
    """Where a query is in a video, as a model answers.

    Attributes:
        video: path of the file.
        query: as asked.
        spans: seconds from the start of the file, in order; empty where ``status`` is not ``parsed``.
        status: ``parsed``; ``denied``: said not to be in this video; else what is wrong with the answers.
        agreement, votes: see :class:`~timelens_plugins.grounding.consensus.Consensus`.
        confidence: the chance that the IoU with the truth is at least 0.5, 0..1; None where that was not measured for
            the model, the number of answers and the temperature.
        answers: what the model wrote.
        readings: the spans of each answer.
    """

    video: str
    query: str
    spans: tuple[Span, ...]
    status: AnswerStatus
    confidence: float | None
    agreement: float | None
    votes: int
    answers: tuple[str, ...]
    readings: tuple[tuple[Span, ...], ...]


def find_moments(
    model: PreTrainedModel,
    processor: InterleavedTimestampsMixin,
    video: str,
    queries: Sequence[str],
    *,
    answers: int = 5,
    temperature: float = 1.0,
    max_new_tokens: int = 512,
    seed: int = 0,
    duration: float | None = None,
    calibration: Calibration | None = None,
) -> list[FoundMoment]:
    """Find each query; the same arguments give the same answers, whatever was asked about other videos before.

    Args:
        model, processor: from :func:`timelens_plugins.families.load.load_model`.
        video: path of the file.
        queries: sentences that describe events.
        answers: sampled for each query; one answer is greedy, and has no confidence.
        temperature: of sampling.
        max_new_tokens: of an answer.
        seed: of sampling.
        duration: of the video in seconds, at which spans are cut.
        calibration: of the checkpoint.

    Raises:
        VideoError: the video cannot be read.
        ValueError: a query without words, or a number out of range.
    """
    texts = [grounding_prompt(query, processor.prompt) for query in queries]
    answering = Answering(samples=answers, temperature=temperature, max_new_tokens=max_new_tokens)
    generation: GenerationConfig = answering.generation_config(model)
    answerer = VideoAnswerer(model, processor, generation, samples=answers, max_rows=answering.max_rows, clip_workers=1)
    measured = calibration is not None and (calibration.answers, calibration.temperature) == (answers, temperature)
    torch.manual_seed(seed)
    found: dict[int, FoundMoment] = {}
    for index, answer in answerer.answer([Question(video, text) for text in texts]):
        query = normalize_query(queries[index])
        parsed = [parse_answer(text, query=query, duration=duration) for text in answer.texts]
        result = consensus(parsed)
        found[index] = FoundMoment(
            video=video,
            query=query,
            spans=result.spans,
            status=result.status,
            confidence=calibration.confidence(result.agreement)
            if calibration is not None and measured and result.agreement is not None
            else None,
            agreement=result.agreement,
            votes=result.votes,
            answers=answer.texts,
            readings=tuple(tuple(one.spans) for one in parsed),
        )
    return [found[index] for index in range(len(texts))]
