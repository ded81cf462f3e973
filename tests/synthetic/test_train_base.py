"""The script that trains the demo's base model: it learns, saves what it says, and continues where it stopped."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from timelens_plugins.locations import shipped_folder
from timelens_plugins.synthetic.curriculum import RECALL_LEVELS, Curriculum


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_base", shipped_folder("recipes") / "demo" / "train_base.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "DEV_SCENES", 4)
    monkeypatch.setattr(module, "SAVE_EVERY", 1)
    return module


def arguments(output: Path, **changes: object) -> argparse.Namespace:
    values = {
        "output": output,
        "seed": 0,
        "align_steps": 2,
        "steps": 4,
        "batch": 2,
        "lr": 2.5e-3,
        "next_level": 0.35,
        "aux": 0.3,
        "evaluate_every": 100,
        "threads": 1,
    }
    return argparse.Namespace(**(values | changes))


def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = script.Run(arguments(tmp_path / "whole"))
    whole.align()
    whole.teach()
    draw = Curriculum.draw
    drawn = []

    def interrupted(self: Curriculum, level: int, count: int) -> object:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(level)
        return draw(self, level, count)

    with monkeypatch.context() as patch:
        patch.setattr(Curriculum, "draw", interrupted)
        first = script.Run(arguments(tmp_path / "parts"))
        first.align()
        with pytest.raises(KeyboardInterrupt):
            first.teach()
    second = script.Run(arguments(tmp_path / "parts"))
    assert (second.aligned, second.step) == (2, 2)
    second.align()
    second.teach()
    assert second.step == 4
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    with pytest.raises(SystemExit, match="other arguments"):
        script.Run(arguments(tmp_path / "parts", lr=1e-3))


def test_the_checkpoint_loads_by_itself_and_is_small(tmp_path: Path, script: ModuleType) -> None:
    run = script.Run(arguments(tmp_path, align_steps=1, steps=1))
    run.align()
    run.teach()
    run.save()
    base = tmp_path / "base"
    assert sum(file.stat().st_size for file in base.iterdir()) < 3_000_000
    model = AutoModelForImageTextToText.from_pretrained(base)
    assert model.config.model_type == "qwen3_vl"
    assert AutoProcessor.from_pretrained(base).tokenizer.eos_token == "<|im_end|>"
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["stage"] == "evaluation"
    assert {"grounded_miou", "best constant span", "random span"} <= last.keys()


def test_lessons_can_be_learnt(tmp_path: Path, script: ModuleType) -> None:
    """The loss of one batch that repeats falls: labels, weights and gradients fit together."""
    run = script.Run(arguments(tmp_path))
    lessons = [*run.curriculum.draw(0, 2), *run.curriculum.draw(len(RECALL_LEVELS), 1)]
    batch = run.writer.collate(lessons)
    optimizer = torch.optim.AdamW(run.model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        loss = script.answer_loss(run.model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_attending_to_all_frames_at_once_changes_nothing(tmp_path: Path, script: ModuleType) -> None:
    run = script.Run(arguments(tmp_path))
    batch = run.writer.collate(run.curriculum.draw(0, 2))
    fast = script.hidden_states(run.model, batch)
    for block in run.model.model.visual.blocks:
        del block.attn.forward  # the class's own again
    assert torch.allclose(script.hidden_states(run.model, batch), fast, atol=1e-5)
