"""Qwen3.5 through every recipe and the evaluation: the same commands as for the other families."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import launch, launch_two, run
from transformers import GenerationConfig

from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.synthetic.benchmark import write_training_set


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    return write_training_set(folder, {"charades": 3}, seed=4, size=64, progress=False)


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe"])
def test_sft_difficulty_rlvr_and_evaluation(
    family: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The prefix is shared in all of them, and what is saved is loaded by the next."""
    changes: dict[str, Any] = {"annotations": str(data), "synthetic_folder": str(tmp_path / "synthetic")}
    sft, rlvr, rows = tmp_path / "sft", tmp_path / "rlvr", tmp_path / "rows.jsonl"
    run("sft", model_name_or_path=f"synthetic:{family}", output_dir=str(sft), max_steps=2, **changes)
    assert run("difficulty", model_name_or_path=str(sft), output=str(rows), samples=2, max_new_tokens=6, **changes) == 0
    estimates = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(estimates) == sum(len(json.loads(line)["events"]) for line in data.read_text().splitlines())
    run(
        "rlvr",
        model_name_or_path=str(sft),
        output_dir=str(rlvr),
        max_steps=2,
        max_completion_length=8,
        num_generations=2,
        per_device_train_batch_size=4,
        **changes,
    )
    state = json.loads((rlvr / "checkpoint-2" / "trainer_state.json").read_text())
    assert {"reward", "loss", "grad_norm"} <= state["log_history"][0].keys()
    assert "self-check passed" in capsys.readouterr().out
    model = TimeLens(pretrained=str(rlvr), device="cpu")
    assert model.model.config.model_type == family
    clip = next(data.parent.rglob("*.mp4"))
    questions = [Question(str(clip), text) for text in ("When does a ring appear?", "When?", "Where is it?")]
    answers = []
    config = GenerationConfig(
        max_new_tokens=8, do_sample=False, eos_token_id=model.model.generation_config.eos_token_id
    )
    for share in (True, False):
        answerer = VideoAnswerer(model.model, model.processor, config, share_prefix=share)
        answers.append([answer.texts for _, answer in sorted(answerer.answer(questions), key=lambda pair: pair[0])])
    assert answers[0] == answers[1], "shared and plain"


@pytest.mark.slow
def test_two_processes_equal_one(data: Path, tmp_path: Path) -> None:
    """The same rewards and gradient norms."""
    given: dict[str, Any] = {
        "model_name_or_path": "synthetic:qwen3_5",
        "annotations": str(data),
        "synthetic_folder": str(tmp_path / "synthetic"),
        "max_steps": 2,
        "max_completion_length": 8,
        "loss_type": "grpo",
    }
    launch("rlvr", output_dir=tmp_path / "1", per_device_train_batch_size=8, **given)
    launch_two("rlvr", output_dir=tmp_path / "2", per_device_train_batch_size=4, **given)
    logs = []
    for folder in ("1", "2"):
        state = json.loads((tmp_path / folder / "checkpoint-2" / "trainer_state.json").read_text())
        logs.append([(row["reward"], row["grad_norm"]) for row in state["log_history"] if "reward" in row])
    assert logs[0] == [pytest.approx(row, rel=2e-3) for row in logs[1]]
    assert len(logs[0]) == 2
