"""Without sharing, no attention wrapper is asked for: eager attention, which cannot share, trains and answers alike."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_runs import run
from transformers import AutoModelForImageTextToText, GenerationConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.encodings import load_processor
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.moments import Moment
from timelens_plugins.shared_prefix.attention import uninstall


@pytest.fixture(autouse=True)
def _no_wrapper() -> Iterator[None]:
    uninstall("sdpa")
    yield
    assert not hasattr(ALL_ATTENTION_FUNCTIONS["sdpa"], "shared_prefix_base"), "something wrapped attention"


SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"max_steps": 2},
    "rlvr": {"max_steps": 2, "max_completion_length": 6, "rewards": ["giou"]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_training(
    name: str, training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    given = SETTINGS[name] | {"annotations": str(training_set), "save_strategy": "no"}
    run(name, output_dir="eager", share_prefix=False, attn_implementation="eager", **given)
    assert caplog.text.count("share_prefix=False: the prompt, video included, is computed once for each ") == 1


def test_answers(family: str, tiny_checkpoints: dict[str, Path], moments: list[Moment]) -> None:
    processor = load_processor(tiny_checkpoints[family], fps=1.0, min_tokens=4, total_tokens=64)
    questions = [Question(moment.video, moment.query) for moment in moments[:4]]
    answers = {}
    for attention, share in (("eager", False), ("sdpa", True)):
        model = AutoModelForImageTextToText.from_pretrained(
            tiny_checkpoints[family], dtype=torch.float32, attn_implementation=attention
        ).eval()
        config = GenerationConfig(max_new_tokens=6)  # where answers end is the model's to say
        answerer = VideoAnswerer(model, processor, config, share_prefix=share)
        answers[share] = sorted(answerer.answer(questions))
        uninstall("sdpa")
    assert answers[False] == answers[True]
