"""vLLM beside transformers on real clips: ids, log-probs, greedy answers; and every fault of a request is caught."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.encodings import build_messages, load_processor
from timelens_plugins.families.load import load_model
from timelens_plugins.inference.answering import Answer, Question
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.inference.plain import plain_log_probs
from timelens_plugins.inference.vllm.engine import VllmEngine
from timelens_plugins.inference.vllm.model import VllmModel
from timelens_plugins.inference.vllm.parity import ParityError, Probe, check_parity, default_tolerance, probe_of
from timelens_plugins.inference.vllm.request import vllm_prompts
from timelens_plugins.inference.vllm.settings import VllmSettings
from timelens_plugins.video import sample_frames

QUERIES = ("person turn a light on", "person flipped the light switch near the door", "a cat jumps off the table")
NEW_TOKENS = 12


@dataclass
class Started:
    """A checkpoint in vLLM, and what transformers says about it."""

    family: str
    path: Path
    model: VllmModel
    answers: list[Answer]
    engine: VllmEngine
    questions: list[Question]
    probe: Probe

    @property
    def tolerance(self) -> float:
        """Of log-probs."""
        return default_tolerance(self.model.dtype)


@pytest.fixture(
    scope="module",
    params=[
        ("qwen3_vl", "native", "float32"),
        ("qwen2_5_vl", "native", "float32"),
        ("qwen2_5_vl", "interleaved_timestamp", "float32"),
        ("qwen3_5", "native", "bfloat16"),  # vLLM's linear attention on the CPU takes nothing else
    ],
    ids="-".join,
)
def started(
    request: pytest.FixtureRequest, vllm_checkpoints: dict[str, Path], real_videos: list[str]
) -> Iterator[Started]:
    family, encoding, dtype = request.param
    path = vllm_checkpoints[family]
    processor = load_processor(path, encoding, total_tokens=1024, min_tokens=16)
    model = VllmModel(str(path), processor, VllmSettings(enforce_eager=True, max_model_len=3072), dtype=dtype)
    engine = VllmEngine(model, {"max_new_tokens": NEW_TOKENS}, log_probs=True)
    questions = [Question(v, GROUNDING_PROMPT.format(query=q)) for q in QUERIES for v in real_videos]
    answers = dict(engine.answer(questions))
    assert sorted(answers) == list(range(len(questions)))
    clip = sample_frames(real_videos[0], processor.frame_sampling)
    loaded, _ = load_model(path, processor=processor, dtype=dtype)
    asked = build_messages(clip, "", processor.encoding, question=questions[0].text)
    probe = probe_of(loaded, processor, "the clip", clip, asked)
    yield Started(family, path, model, [answers[i] for i in sorted(answers)], engine, questions, probe)
    model.close()


def test_answers_and_log_probs_are_those_of_transformers(started: Started) -> None:
    """Greedy answers in float32; in 16 bits, where random weights have near ties, the chances of what vLLM wrote."""
    from transformers import GenerationConfig

    model, processor = load_model(started.path, processor=started.model.processor, dtype=started.model.dtype)
    own = model.generation_config
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
    )
    ours = dict(VideoAnswerer(model, processor, config, log_probs=True).answer(started.questions))
    worst = 0.0
    for index, (question, theirs) in enumerate(zip(started.questions, started.answers, strict=True)):
        assert theirs.log_probs is not None
        assert theirs.token_ids is not None
        clip = sample_frames(question.video, processor.frame_sampling)
        [asked] = vllm_prompts(processor, clip, [question.text])
        text = list(itertools.takewhile(lambda i: i not in started.probe.pads, theirs.token_ids[0]))
        if not text:
            continue
        scores = plain_log_probs(model, asked.prompt, torch.tensor(text))  # vision tokens stand for nothing in a text
        worst = max(worst, float((scores - torch.tensor(theirs.log_probs[0][: len(text)])).abs().max()))
        if started.model.dtype == torch.float32:
            assert theirs.texts == ours[index].texts
            assert theirs.token_ids == ours[index].token_ids
            assert theirs.log_probs[0] == pytest.approx(ours[index].log_probs[0], abs=2e-3)  # type: ignore[index]
            assert dict(theirs.details) == dict(ours[index].details)
    print(f"{started.family}: greatest difference of log-probs {worst:.4g}")
    assert worst < started.tolerance
    assert len({answer.texts for answer in started.answers}) > 1, "answers depend on the question"


def test_parity_is_looked_at_when_vllm_starts(started: Started) -> None:
    assert len(started.model.parity) == 2
    for found in started.model.parity:
        print(f"{started.family}: {found}")
        assert found.difference < started.tolerance
        assert found.tokens > 8 or started.model.dtype != torch.float32


def test_questions_about_a_video_find_it_in_the_prefix_cache(started: Started) -> None:
    """All but the first question about each of two videos, whose prompts are in the cache but for their last tokens."""
    llm = started.model.start(())
    assert llm.reset_prefix_cache()
    before = _cache_hits(llm)
    engine = VllmEngine(started.model, {"max_new_tokens": 1})
    first = dict(engine.answer(started.questions))
    assert [first[i].token_ids[0][0] for i in range(len(first))] == [a.token_ids[0][0] for a in started.answers]  # type: ignore[index]
    share = engine.counts["cached"] / engine.counts["prompt"]
    print(f"{started.family}: {share:.1%} of {engine.counts['prompt']} prompt tokens were in the prefix cache")
    assert engine.counts["cached"] == _cache_hits(llm) - before
    if started.family != "qwen3_5":
        assert 0.55 < share < 2 / 3


def _cache_hits(llm: Any) -> float:
    return next(m.value for m in llm.get_metrics() if m.name == "vllm:prefix_cache_hits")


def _expanded(probe: Probe) -> dict[str, Any]:
    return dict(probe.whole.request) | {"prompt_token_ids": probe.expected}


def _resized(probe: Probe) -> dict[str, Any]:
    return dict(probe.whole.request) | {"mm_processor_kwargs": {"do_sample_frames": False}}


def _other_times(probe: Probe) -> dict[str, Any]:
    [(frames, metadata)] = probe.whole.request["multi_modal_data"]["video"]
    data = {"video": [(frames, metadata | {"fps": metadata["fps"] * 2})]}
    return dict(probe.whole.request) | {"multi_modal_data": data}


FAULTS: dict[Callable[[Probe], dict[str, Any]], dict[str, str]] = {
    _expanded: dict.fromkeys(("qwen3_vl", "qwen2_5_vl", "qwen3_5"), "placeholders are expanded"),
    _resized: {"qwen3_vl": "Likely cause: resize", "qwen3_5": "Likely cause: resize"},
    # Qwen3-VL writes times as text, Qwen2.5-VL has them in its rotary positions alone.
    _other_times: {
        "qwen3_vl": "Likely cause: ids",
        "qwen3_5": "Likely cause: ids",
        "qwen2_5_vl": "Likely cause: positions",
    },
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__.strip("_"))
def test_faults_of_a_request_are_caught(started: Started, fault: Callable[[Probe], dict[str, Any]]) -> None:
    cause = FAULTS[fault].get(started.family)
    images = "image" in started.probe.whole.request["multi_modal_data"]
    if cause is None or (images and fault is not _expanded):
        pytest.skip("no such fault in this family or encoding")
    llm = started.model.start(())
    wrong = replace(started.probe, whole=replace(started.probe.whole, request=fault(started.probe)))
    with pytest.raises(ParityError, match=cause) as raised:
        check_parity(llm, [wrong], started.tolerance)
    print(raised.value)
    check_parity(llm, [started.probe], started.tolerance)


def test_other_pixels_and_other_weights_are_caught(started: Started) -> None:
    """What transformers would say with the other normalisation, and with other weights."""
    llm, probe, processor = started.model.start(()), started.probe, started.model.processor
    clip = sample_frames(started.questions[0].video, processor.frame_sampling)
    asked = build_messages(clip, "", processor.encoding, question=started.questions[0].text)
    loaded, _ = load_model(started.path, processor=processor, dtype=started.model.dtype)
    parts = [processor.video_processor, processor.image_processor]
    saved = [part.image_mean for part in parts]
    try:
        for part in parts:
            part.image_mean = [0.2, 0.2, 0.2]
        other = probe_of(loaded, processor, "the clip", clip, asked)
    finally:
        for part, mean in zip(parts, saved, strict=True):
            part.image_mean = mean
    with pytest.raises(ParityError, match="Likely cause: normalisation"):
        check_parity(llm, [other], started.tolerance)
    with torch.no_grad():
        loaded.get_output_embeddings().weight.mul_(3.0)
    other = probe_of(loaded, processor, "the clip", clip, asked)
    with pytest.raises(ParityError, match="Likely cause: weights"):
        check_parity(llm, [other], started.tolerance)
    check_parity(llm, [probe], started.tolerance)
