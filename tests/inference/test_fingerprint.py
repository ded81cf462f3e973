"""Digests of weights and processors: whatever answers depend on, and nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from accelerate import cpu_offload
from thinking_template import with_thinking

from timelens_plugins.difficulty.estimate import model_settings
from timelens_plugins.encodings import load_processor
from timelens_plugins.families.tiny import build_model
from timelens_plugins.inference.fingerprint import answer_settings, weights_of
from timelens_plugins.video import sample_frames


def test_where_weights_lie_does_not_count() -> None:
    model = build_model("qwen3_vl", tie_word_embeddings=True)
    whole = weights_of(model)
    assert weights_of(cpu_offload(copy.deepcopy(model))) == whole
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert weights_of(half).rounded == whole.rounded
    assert weights_of(half).exact != whole.exact
    assert weights_of(half.float()).rounded == whole.rounded


def test_names_and_shapes_count() -> None:
    one, other = torch.nn.Linear(4, 2, bias=False), torch.nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        one.weight.fill_(1.0)
        other.weight.fill_(1.0)
    assert weights_of(one) != weights_of(other)
    named = torch.nn.Module()
    named.other = one.weight  # type: ignore[assignment]
    assert weights_of(named) != weights_of(one)


def test_answers_of_a_prompt_that_opens_a_thought_are_told_from_those_that_lacked_it(
    tiny_checkpoints: dict[str, Path],
) -> None:
    processor = load_processor(tiny_checkpoints["qwen3_vl"])
    model = build_model("qwen3_vl")
    processor.chat_template = with_thinking(processor.chat_template)
    for settings in (answer_settings(model, processor), model_settings("", processor)):
        assert "opened_thought" not in settings, "answers of all other prompts count as before"
    processor.configure(thinking=True)
    for settings in (answer_settings(model, processor), model_settings("", processor)):
        assert settings["opened_thought"] == "<think>\n"


def test_settings_stay_the_same_while_a_processor_is_used(tiny_checkpoints: dict[str, Path], real_data: Path) -> None:
    for family in ("qwen3_vl", "qwen2_5_vl"):
        checkpoint, model = tiny_checkpoints[family], build_model(family)
        processor = load_processor(checkpoint, total_tokens=64)
        before = answer_settings(model, processor)
        clip = sample_frames(real_data / "charades" / "3MSZA.mp4", processor.frame_sampling)
        chats = [
            processor.apply_chat_template(processor.grounding_messages(clip, query), tokenize=False)
            for query in ("a", "a longer query")
        ]
        processor(text=chats, videos=[clip, clip], padding=True, return_tensors="pt")
        assert (
            answer_settings(model, processor)
            == before
            == answer_settings(model, load_processor(checkpoint, total_tokens=64))
        )
