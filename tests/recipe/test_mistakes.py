"""Mistakes in a recipe's settings or data: one message that names the place, status 2, and no trace of the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from recipe_runs import RECIPES, run
from transformers import AutoModelForImageTextToText
from trl import ModelConfig

from timelens_plugins.grpo import TimeLensGRPOConfig
from timelens_plugins.recipe import (
    DataArguments,
    Drawing,
    EstimateArguments,
    RewardArguments,
    StoppingArguments,
    adapters,
    base_checkpoint,
    before_training,
    parse,
    start,
)

OF_ESTIMATES = (DataArguments, EstimateArguments)
OF_TRAINING = (DataArguments, Drawing, StoppingArguments, RewardArguments, TimeLensGRPOConfig, ModelConfig)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my.yaml"


def of_training(**changes: Any) -> str:
    content = yaml.safe_load((RECIPES / "configs" / "tiny_rlvr.yaml").read_text()) | changes
    return yaml.safe_dump(content)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frames_per_second": 2}, "unknown setting frames_per_second"),
        ({"max_frame": 8}, "unknown setting max_frame; did you mean max_frames?"),
        ({"fps": [2]}, r"fps must be a number, got \[2\]"),
        ({"fps": None}, "fps must be a number, got None"),
        ({"max_frames": 2.5}, "max_frames must be a whole number, got 2.5"),
        ({"max_frames": True}, "max_frames must be a whole number, got True"),
        ({"annotations": 5}, "annotations must be text, got 5"),
        ({"audio_queries": 1}, "audio_queries must be true or false, got 1"),
        ({"rewards": {"temporal_iou": 1}}, "rewards must be a list, got"),
        ({"thinking": "perhaps"}, "argument --thinking"),
        ({"learning_rate": "fast"}, "argument --learning_rate"),
        ({"difficulty": ["online"]}, "difficulty must be one of none, offline, online"),
        ({"env": "HF_HUB_OFFLINE=1"}, "env must be a mapping of variables"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], told: str, config: Path) -> None:
    config.write_text(of_training(**changes))
    with pytest.raises(ValueError, match=told):
        parse(OF_TRAINING, ["--config", str(config)])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("fps: 1\nmax_frames: 8\nfps: 2\n", "fps stands 2 times"),
        ("- fps: 1\n", "not a mapping of settings"),
        ("fps: [1\n", "expected ',' or ']'"),
    ],
)
def test_a_wrong_file_is_named(text: str, told: str, config: Path) -> None:
    config.write_text(text)
    with pytest.raises(ValueError, match=rf"(?s)--config .*my\.yaml: .*{told}"):
        parse(OF_TRAINING, ["--config", str(config)])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--config", "gone.yaml"], "--config gone.yaml: No such file or directory"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config is given 2 times"),
        (["--config"], "argument --config: expected one argument"),
        (["--config", "my.yaml", "--max_frame", "8"], "flags: unknown setting max_frame; did you mean max_frames?"),
        (["--config", "my.yaml", "--fps", "two"], "argument --fps"),
    ],
)
def test_a_wrong_flag_is_named(flags: list[str], told: str, config: Path) -> None:
    config.write_text(of_training())
    with pytest.raises(ValueError, match=told):
        parse(OF_TRAINING, flags)


def test_what_is_written_another_way_is_read_as_before(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_TEST", "")
    config.write_text(
        of_training(
            rewards="temporal_iou", learning_rate="1e-5", lora_target_modules="all-linear", env={"OF_THIS_TEST": 3}
        )
    )
    data, _, _, rewards, training, model = parse(OF_TRAINING, [f"--config={config}", "--max-frames", "6"])
    assert (rewards.rewards, training.learning_rate, model.lora_target_modules) == (
        ["temporal_iou"],
        1e-5,
        "all-linear",
    )
    assert (data.max_frames, os.environ["OF_THIS_TEST"]) == (6, "3")


def test_paths_are_those_that_a_shell_would_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a folder named ~ would be made in the working folder."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    config.write_text(
        "annotations: ~/a b.json\nmodel_name_or_path: $SCRATCH/m\noutput: ${SCRATCH}/o.jsonl\ncache: ~/c\n"
    )
    data, estimate = parse(OF_ESTIMATES, ["--config", str(config), "--video_root=~/videos", "--synthetic_folder=~"])
    assert (data.annotations, data.video_root, data.synthetic_folder) == (
        "/home/me/a b.json",
        "/home/me/videos",
        "/home/me",
    )
    assert (estimate.model_name_or_path, estimate.output, estimate.cache) == (
        "/scratch/m",
        "/scratch/o.jsonl",
        "/home/me/c",
    )
    config.write_text(of_training(output_dir="$SCRATCH/run", resume_from_checkpoint="~/checkpoint-1"))
    _, _, _, _, training, _ = parse(OF_TRAINING, ["--config", str(config)])
    assert (training.output_dir, training.resume_from_checkpoint) == ("/scratch/run", "/home/me/checkpoint-1")
    config.write_text(of_training(output_dir="$NOWHERE/run"))
    with pytest.raises(ValueError, match=r"output_dir: \$NOWHERE/run: the environment variable \$NOWHERE is not set"):
        parse(OF_TRAINING, ["--config", str(config)])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"output": ""}, "output='' is a folder"),
        ({"output": "."}, r"output='\.' is a folder"),
        ({"output": "/dev/null"}, "/dev/null: a device"),
        ({"shard": 5, "shards": 2}, "shard=5 of shards=2"),
        ({"shard": 0, "shards": 0}, "shard=0 of shards=0"),
        ({"clip_workers": 0}, "clip_workers must be at least 1, got 0; leave it out"),
        ({"video_backend": "foo"}, "unknown video backend"),
        ({"dtype": "foo"}, "dtype must be auto, float32, bfloat16 or float16, got 'foo'"),
    ],
)
def test_estimates_that_could_not_be_made_are_told_before(
    changes: dict[str, Any], told: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", weights)
    given = {"output": "d.jsonl", "synthetic_folder": "made", "annotations": "synthetic:training_set,clips=2,size=64"}
    with pytest.raises((ValueError, OSError), match=told):
        run("difficulty", **given | changes)


def test_settings_of_adapters_without_adapters() -> None:
    """All weights would be trained."""
    assert base_checkpoint(ModelConfig(model_name_or_path="m", use_peft=True, lora_r=8), "") == "m"
    with pytest.raises(ValueError, match="lora_r, lora_target_modules: without effect without use_peft: true"):
        base_checkpoint(ModelConfig(model_name_or_path="m", lora_r=8, lora_target_modules=["q_proj"]), "")


@pytest.mark.parametrize(
    ("given", "target"), [(["q_proj"], {"q_proj"}), (["a", "b"], {"a", "b"}), ("all-linear", None)]
)
def test_one_name_of_adapted_modules_is_a_name(given: Any, target: set[str] | None) -> None:
    made = adapters(ModelConfig(model_name_or_path="m", use_peft=True, lora_target_modules=given))
    assert made.target_modules == (target or given)
    assert adapters(ModelConfig(model_name_or_path="m")) is None


def fails(error: Exception, *, early: bool) -> Any:
    def main(*_: Any) -> None:
        if early:
            with before_training():
                raise error
        raise error

    return main


def test_a_mistake_is_one_message_and_a_defect_keeps_its_trace(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("annotations: a.json\nmodel_name_or_path: m\noutput: o.jsonl\n")
    monkeypatch.setattr(sys, "argv", ["recipes/difficulty.py", "--config", str(config)])
    for error in (ValueError("no moment is left"), FileNotFoundError("6 of 6 videos are missing")):
        with pytest.raises(SystemExit, match="2"):
            start(fails(error, early=True), OF_ESTIMATES)
        assert capsys.readouterr().err == f"difficulty.py: {error}\n"
    for error, early in ((ValueError("in a step"), False), (TypeError("a defect"), True)):
        with pytest.raises(type(error), match=str(error)):
            start(fails(error, early=early), OF_ESTIMATES)
    with pytest.raises(SystemExit, match="3"):
        start(lambda *_: 3, OF_ESTIMATES)


def test_the_recipe_as_a_command(config: Path) -> None:
    config.write_text("annotations: gone.json\nmodel_name_or_path: m\noutput: o.jsonl\n")
    command = [sys.executable, str(RECIPES / "difficulty.py"), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("difficulty.py: ")
    assert "gone.json" in done.stderr.splitlines()[-1]
