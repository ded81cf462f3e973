"""Recipes: videos that are not where the annotations say (renamed, gone, all gone), and what training continues."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import RECIPES, recipe, run
from transformers import AutoModelForImageTextToText

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.recipe import start
from timelens_plugins.sft import TimeLensSFTTrainer
from timelens_plugins.training.checkpoints import STATE_FILE


@pytest.fixture
def annotations(training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the training set, whose first video is gone and whose second has another extension."""
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(training_set.parent, tmp_path / "made")
    gone, renamed, *_ = sorted((folder / "videos").rglob("*.mp4"))
    gone.unlink()
    renamed.rename(renamed.with_suffix(".mkv"))
    return folder / training_set.name


TRAINING = pytest.mark.parametrize(("name", "trainer"), [("sft", TimeLensSFTTrainer), ("rlvr", TimeLensGRPOTrainer)])


@TRAINING
def test_training_that_skips_reads_what_is_there(
    name: str, trainer: Any, annotations: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[list[str]] = []

    def look(self: Any, **_: Any) -> None:
        rows = self.train_dataset
        seen.append([row["moments"][0]["video"] if "moments" in row else row["video"] for row in rows])

    monkeypatch.setattr(trainer, "train", look)
    monkeypatch.setattr(trainer, "save_model", lambda self: None)
    with pytest.raises(FileNotFoundError, match=f"1 of 6 videos are missing under {annotations.parent / 'videos'}"):
        run(name, annotations=str(annotations))
    run(name, annotations=str(annotations), on_bad_video="skip")
    assert "1 of 6 videos are missing under" in caplog.text
    paths = {Path(video) for video in seen[0]}
    assert len([path for path in paths if path.is_file()]) == 5
    assert sorted(path.suffix for path in paths) == [".mkv", *[".mp4"] * 5]


def test_difficulty_answers_what_is_there(annotations: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert run("difficulty", annotations=str(annotations), output="d.jsonl") == 0
    rows = [json.loads(line) for line in Path("d.jsonl").read_text().splitlines()]
    assert {Path(row["video_path"]).suffix for row in rows} == {".mkv", ".mp4"}
    assert len({row["video_path"] for row in rows}) == 5
    [failed] = Path("d.jsonl.failed.jsonl").read_text().splitlines()
    assert not Path(json.loads(failed)["video"]).exists()
    assert "1 of 6 videos are missing under" in caplog.text


def test_a_wrong_folder_is_an_error_before_the_model_is_loaded(
    annotations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", load)
    for name, settings in (("difficulty", {"output": "d.jsonl"}), ("sft", {"on_bad_video": "skip"})):
        with pytest.raises(FileNotFoundError, match=r"6 of 6 videos are missing under elsewhere, such as elsewhere/"):
            run(name, annotations=str(annotations), video_root="elsewhere", **settings)
    assert not Path("d.jsonl").exists()


def test_difficulty_without_a_row_fails(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (annotations.parent / "videos").rglob("*.m*"):
        path.write_bytes(b"no video")
    assert run("difficulty", annotations=str(annotations), output="d.jsonl") == 1
    assert "d.jsonl is empty: no video could be read" in capsys.readouterr().err
    assert len(Path("d.jsonl.failed.jsonl").read_text().splitlines()) == 6


@TRAINING
def test_training_continues_from_what_is_asked_for(
    name: str, trainer: Any, training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(trainer, "train", lambda self, resume_from_checkpoint: asked.append(resume_from_checkpoint))
    monkeypatch.setattr(trainer, "save_model", lambda self: None)
    settings = {"annotations": str(training_set), "output_dir": "run"}
    run(name, **settings, resume_from_checkpoint=False)
    for step in (1, 2):
        (tmp_path / "run" / f"checkpoint-{step}").mkdir(parents=True)
        (tmp_path / "run" / f"checkpoint-{step}" / STATE_FILE).write_text("{}")
    run(name, **settings)
    run(name, **settings, resume_from_checkpoint=True)
    run(name, **settings, resume_from_checkpoint="run/checkpoint-1")
    assert asked == [None, "run/checkpoint-2", "run/checkpoint-2", "run/checkpoint-1"]
    for setting, says in ((False, "checkpoint-2 of an earlier run"), ("elsewhere", "no such checkpoint")):
        with pytest.raises(ValueError, match=says):
            run(name, **settings, resume_from_checkpoint=setting)
    assert len(asked) == 4


@TRAINING
def test_what_a_trainer_refuses_is_one_message(
    name: str,
    trainer: Any,
    training_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("no folder")
    flags = ["--annotations", str(training_set), "--output_dir", "run", "--cache", "taken"]
    config = str(RECIPES / "configs" / f"tiny_{name}.yaml")
    monkeypatch.setattr(sys, "argv", [f"recipes/{name}.py", "--config", config, *flags])
    module = recipe(name)
    with pytest.raises(SystemExit, match="2"):
        start(module.main, module.SETTINGS)
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"{name}.py: cache=taken is a file")


def test_fewer_moments_than_a_batch_are_told_before_training(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--annotations", str(training_set), "--output_dir", "run", "--per_device_train_batch_size", "400"]
    monkeypatch.setattr(sys, "argv", ["rlvr.py", "--config", str(RECIPES / "configs" / "tiny_rlvr.yaml"), *flags])
    module = recipe("rlvr")
    with pytest.raises(SystemExit, match="2"):
        start(module.main, module.SETTINGS)
    assert "prompts, fewer than the 100 of one generation batch" in capsys.readouterr().err.splitlines()[-1]


def test_the_reference_model_has_the_revision_of_the_trained_one(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    revisions: list[str | None] = []
    original = AutoModelForImageTextToText.from_pretrained.__func__

    def load(cls: Any, *args: Any, revision: str | None = None, **kwargs: Any) -> Any:
        revisions.append(revision)
        return original(cls, *args, **kwargs)

    def of_reference(path: str, *, revision: str | None = None, **_: Any) -> Any:
        revisions.append(revision)
        return original(AutoModelForImageTextToText, path)

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", classmethod(load))
    monkeypatch.setattr("trl.trainer.grpo_trainer.create_model_from_path", of_reference)
    monkeypatch.setattr(TimeLensGRPOTrainer, "train", lambda self, **_: None)
    run("rlvr", annotations=str(training_set), output_dir="run", beta=0.1, model_revision="tuned")
    assert revisions == ["tuned", "tuned"]
