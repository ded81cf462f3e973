"""A family of one's own, whose prompts cannot be shared: a record, a processor and a model, and every road takes it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_runs import run
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationConfig,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.families import FAMILIES, Family, register_family
from timelens_plugins.families.load import load_model
from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.moments import Moment
from timelens_plugins.shared_prefix.attention import uninstall


class ToyConfig(Qwen3VLConfig):
    model_type = "toy_vl"


class ToyModel(Qwen3VLForConditionalGeneration):
    config_class = ToyConfig


class ToyProcessor(InterleavedTimestampsMixin, Qwen3VLProcessor):
    default_encoding = "native"


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    AutoConfig.register("toy_vl", ToyConfig, exist_ok=True)
    AutoModelForImageTextToText.register(ToyConfig, ToyModel, exist_ok=True)
    register_family(
        Family(
            "toy_vl",
            model_types=("toy_vl",),
            processor="ToyProcessor",
            stock_processors=("Qwen3VLProcessor",),
            mergers=("merger", "deepstack_merger_list"),
            sharing="plain",
        )
    )
    uninstall("sdpa")
    folder = save_checkpoint(tmp_path / "toy", "qwen3_vl")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen3_vl"', '"model_type": "toy_vl"'))
    yield folder
    assert not hasattr(ALL_ATTENTION_FUNCTIONS["sdpa"], "shared_prefix_base"), "something wrapped attention"
    del FAMILIES["toy_vl"]


def test_answers_as_the_shared_road(
    toy: Path, moments: list[Moment], tiny_checkpoints: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    questions = [Question(moment.video, moment.query) for moment in moments[:4]]
    answers = []
    for path in (toy, tiny_checkpoints["qwen3_vl"]):
        model, processor = load_model(path, dtype=torch.float32, fps=1.0, min_tokens=4, total_tokens=64)
        config = GenerationConfig(max_new_tokens=6, eos_token_id=model.generation_config.eos_token_id, pad_token_id=0)
        answers.append(sorted(VideoAnswerer(model, processor, config).answer(questions)))
        uninstall("sdpa")
    assert type(load_model(toy)[1]) is ToyProcessor
    assert answers[0] == answers[1]
    assert caplog.text.count("models of the family toy_vl cannot share prompts: share_prefix=False") == 1


SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"max_steps": 2},
    "rlvr": {"max_steps": 2, "max_completion_length": 6, "rewards": ["giou"]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_training(
    name: str,
    toy: Path,
    training_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    given = SETTINGS[name] | {"annotations": str(training_set), "save_strategy": "no"}
    run(name, model_name_or_path=str(toy), output_dir="trained", **given)
    assert caplog.text.count("models of the family toy_vl cannot share prompts: share_prefix=False") == 1
    assert type(load_model("trained")[1]) is ToyProcessor
