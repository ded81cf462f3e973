"""Qwen2.5-VL, Qwen3-VL and Qwen3.5 with their own vocabularies, on the real clips; and Qwen3.5's thinking mode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast, ProcessorMixin
from true_vocabularies import IDS, THINKING_TEMPLATE, true_tokenizer

from timelens_plugins.encodings import load_processor
from timelens_plugins.families.tiny import build_model, build_processor
from timelens_plugins.video import sample_frames

QUERY = "person turn a light on"
PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"


@pytest.fixture(scope="module", params=list(IDS))
def named(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(named: str) -> PreTrainedTokenizerFast:
    return true_tokenizer(named)


@pytest.fixture(scope="module")
def stock(named: str, tokenizer: PreTrainedTokenizerFast) -> ProcessorMixin:
    processor = build_processor(named, tokenizer)
    if named == "qwen3_5":
        processor.chat_template = THINKING_TEMPLATE
    return processor


@pytest.fixture(scope="module")
def checkpoint(
    named: str, stock: ProcessorMixin, tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """As transformers saves it, weights aside: nothing of it is ours."""
    folder = tmp_path_factory.mktemp(named)
    stock.save_pretrained(folder)
    build_model(named, tokenizer, hidden_size=64).config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> Any:
    """Loaded once: vocabularies of a quarter million tokens take their time."""
    return load_processor(checkpoint, min_tokens=16, total_tokens=400, max_frames=24)


def test_ids_are_the_published_ones(named: str, tokenizer: PreTrainedTokenizerFast) -> None:
    assert {name: tokenizer.convert_tokens_to_ids(name) for name in IDS[named]} == IDS[named]
    text = "The event happens in 12.3 - 45.6 seconds. Zwölf Boxkämpfer, 两个人在厨房里做饭"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("clip", ["3MSZA.mp4", "OHOFG.mp4"])
def test_ids_equal_the_stock_processor_s(named: str, clip: str, ours: Any, stock: Any, real_data: Path) -> None:
    """Native prompts, where the pair of markers around a whole video belongs to its placeholder."""
    frames = sample_frames(real_data / "charades" / clip, ours.frame_sampling)
    text = ours.apply_chat_template(ours.grounding_messages(frames, QUERY), add_generation_prompt=True)
    found = ours(text=[text], videos=[frames], return_tensors="pt")
    collapsed = text if named == "qwen2_5_vl" else text.replace(PLACEHOLDER, "<|video_pad|>")
    expected = stock(
        text=[collapsed],
        videos=[frames.frames],
        video_metadata=[frames.metadata()],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])
    assert torch.equal(found["mm_token_type_ids"], expected["mm_token_type_ids"])


@pytest.mark.parametrize("clip", ["3MSZA.mp4", "OHOFG.mp4"])
def test_times_are_right_at_odd_rates(named: str, clip: str, ours: Any, real_data: Path) -> None:
    """Markers are the mean time of a frame pair to one decimal, at 30 and at 9.533 frames a second."""
    if named == "qwen2_5_vl":
        pytest.skip("Qwen2.5-VL writes no time into its native prompt")
    frames = sample_frames(real_data / "charades" / clip, ours.frame_sampling)
    inputs = ours(
        text=[ours.apply_chat_template(ours.grounding_messages(frames, QUERY))], videos=[frames], return_tensors="pt"
    )
    written = ours.tokenizer.decode(inputs["input_ids"][0])
    times = [float(t) for t in re.findall(r"<(\d+\.\d) seconds>", written)]
    pairs = frames.times.reshape(-1, 2).mean(axis=1)
    assert times == [float(f"{t:.1f}") for t in pairs]
    assert len(times) == 12


def test_interleaved_times_with_true_tokens(ours: Any, tokenizer: Any, real_data: Path) -> None:
    frames = sample_frames(real_data / "charades" / "OHOFG.mp4", ours.frame_sampling, fps=0.5, max_frames=8)
    ours.configure(encoding="interleaved_timestamp")
    try:
        text = ours.apply_chat_template(ours.grounding_messages(frames, QUERY))
        ids = ours(text=[text], videos=[frames], return_tensors="pt")["input_ids"][0]
    finally:
        ours.configure(encoding="native")
    image, start = (tokenizer.convert_tokens_to_ids(name) for name in ("<|image_pad|>", "<|vision_start|>"))
    assert int((ids == start).sum()) == len(frames.times) // 2
    assert int((ids == image).sum()) > 0
    written = tokenizer.decode(ids[ids != image])
    assert re.findall(r"(\d+\.\d)s: <\|vision_start\|><\|vision_end\|>", written) == [
        f"{t:.1f}" for t in frames.times[::2]
    ]


def test_thinking_is_off_unless_asked_for(named: str, ours: Any, checkpoint: Path, tmp_path: Path) -> None:
    """The setting reaches the template, is saved with the processor, and is refused where there is nothing to think."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "when?"}]}]
    assert ours.thinking is False
    if named != "qwen3_5":
        with pytest.raises(ValueError, match="no thinking mode"):
            ours.configure(thinking=True)
        return
    assert ours.apply_chat_template(messages, add_generation_prompt=True).endswith("<think>\n\n</think>\n\n")
    asked = ours.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=True)
    assert asked.endswith("assistant\n<think>\n")
    thinking = load_processor(checkpoint, thinking=True)
    assert thinking.apply_chat_template(messages, add_generation_prompt=True) == asked
    thinking.save_pretrained(tmp_path)
    saved = load_processor(tmp_path)
    assert saved.thinking is True
    tokens = saved.apply_chat_template(messages, add_generation_prompt=True, tokenize=True)
    think = saved.tokenizer.convert_tokens_to_ids("<think>")
    assert think in torch.as_tensor(tokens).flatten().tolist()
