"""``recipes/rlvr.py`` with difficulty and early stopping, in this process: what it trains on, and what it saves."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recipe_runs import run
from safetensors.torch import load_file
from transformers import TrainerCallback

from timelens_plugins.difficulty import select_moments
from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.moments import AnnotationError
from timelens_plugins.plateau.best import save_final_model
from timelens_plugins.plateau.callback import RewardPlateauCallback


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``recipes/difficulty.py`` has been at work: ``build/tiny_difficulty.jsonl``."""
    folder = tmp_path_factory.mktemp("recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("timelens_plugins.file_state._SETTLED", -(10**12))  # the clips are new
        assert run("difficulty", "tiny_difficulty", cache="build/frames") == 0
    return folder


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> list[list[str]]:
    """Which moments each trainer was given; nothing is trained or saved."""
    monkeypatch.chdir(workplace)
    seen: list[list[str]] = []
    monkeypatch.setattr(TimeLensGRPOTrainer, "train", lambda self, **_: seen.append(self.train_dataset["id"]))
    monkeypatch.setattr(TimeLensGRPOTrainer, "save_model", lambda self: None)
    return seen


FILE = "build/tiny_difficulty.jsonl"
OFFLINE = {"difficulty": "offline", "difficulty_file": FILE, "sampling": "uniform", "target_size": 9, "strata": "none"}


def test_offline_selection(trained_on: list[list[str]], workplace: Path) -> None:
    rows = [json.loads(line) for line in (workplace / FILE).read_text().splitlines()]
    seconds = min(row["duration"] for row in rows)
    run("rlvr", "tiny_rlvr", **OFFLINE, seed=4)
    run("rlvr", "tiny_rlvr", **OFFLINE, seed=4)
    run("rlvr", "tiny_rlvr", **OFFLINE, seed=5)
    run("rlvr", "tiny_rlvr", **OFFLINE | {"max_duration": seconds, "target_size": 500})
    run("rlvr", "tiny_rlvr")
    first, again, other, short, everything = trained_on
    assert first == again != other
    assert set(first) < set(everything) == {row["id"] for row in rows}
    # Filters of the training that the estimation did not have take their rows away without complaint.
    assert set(short) == {row["id"] for row in rows if row["duration"] == seconds} != set(everything)


def test_training_reads_the_frames_that_the_estimation_has_kept(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workplace)
    taken: list[dict[str, int]] = []

    def train(self: TimeLensGRPOTrainer, **_: Any) -> None:
        with self.prompts.clips as clips:
            assert clips.take(self.train_dataset[0]) is not None
            assert clips.cache is not None
            taken.append(dict(clips.cache.counts))

    monkeypatch.setattr(TimeLensGRPOTrainer, "train", train)
    monkeypatch.setattr(TimeLensGRPOTrainer, "save_model", lambda self: None)
    videos = {json.loads(line)["video_path"] for line in (workplace / FILE).read_text().splitlines()}
    assert len(list((workplace / "build" / "frames").iterdir())) == len(videos)
    run("rlvr", "tiny_rlvr", cache="build/frames")
    assert taken == [{"read": 1}]
    with pytest.raises(ValueError, match="cache_gb=1 without cache=FOLDER"):
        run("rlvr", "tiny_rlvr", cache_gb=1)


def test_bad_difficulty_files(
    trained_on: list[list[str]], workplace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = (workplace / FILE).read_text().splitlines()
    rows = [json.loads(line) for line in lines]

    def wrong(number: int, **change: Any) -> list[dict[str, Any]]:
        return [row | change if i == number else row for i, row in enumerate(rows)]

    for content, says in (
        ([{k: v for k, v in row.items() if "iou" not in k} for row in rows], "row 1: field 'iou': missing"),
        (wrong(2, ious=[float("nan")] * 3), "row 3.*must be finite"),
        (wrong(2, ious=[1.2] * 3), "row 3.*must lie between 0 and 1"),
        (wrong(2, query="another one", id="x"), "line 3.*not in the data"),
        ([*rows, rows[2]], "'id'.*stands twice|repeats a moment"),
        (wrong(2, settings=rows[2]["settings"] | {"fps": 4.0}), "line 3.*under other settings than line 1"),
        (rows[:-1], "1 of 36 moments have no row"),
        (
            [row | {"settings": row["settings"] | {"fps": 4.0}} for row in rows],
            r"fps: 4\.0, here 1\.0.*difficulty_mismatch",
        ),
    ):
        path = tmp_path / "wrong.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
        with pytest.raises(AnnotationError, match=says) as caught:
            run("rlvr", "tiny_rlvr", **OFFLINE | {"difficulty_file": str(path)})
        assert str(path) in str(caught.value)
        assert re.search(
            "; (correct it, or )?(estimate|keep one|pass the ann|do not mix|run the est)", str(caught.value)
        )
    with pytest.raises(AnnotationError, match=r"fingerprint: '\w+', here '\w+'.*difficulty_mismatch: accept"):
        run("rlvr", "tiny_rlvr", **OFFLINE, model_name_or_path="synthetic:qwen3_vl,seed=1")
    assert not trained_on
    run("rlvr", "tiny_rlvr", **OFFLINE, model_name_or_path="synthetic:qwen3_vl,seed=1", difficulty_mismatch="accept")
    assert "accepted all the same (difficulty_mismatch: accept)" in caplog.text
    assert len(trained_on[0]) == 9


def test_an_unreadable_video_is_left_out_though_it_is_gone(
    trained_on: list[list[str]], workplace: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [json.loads(line) for line in (workplace / FILE).read_text().splitlines()]
    lost = [row["id"] for row in rows if row["video_id"] == rows[0]["video_id"]]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["id"] not in lost))
    listing = {"video": rows[0]["video_path"], "error": "not found", "moments": lost}
    (tmp_path / "d.jsonl.failed.jsonl").write_text(json.dumps(listing) + "\n")
    made = next((workplace / "build" / "synthetic").rglob("timelens-100k.jsonl")).parent
    folder = shutil.copytree(made, tmp_path / "made")  # of its own: what a synthetic: name stands for is made again
    (folder / "videos" / rows[0]["video_path"]).unlink()
    annotations = str(folder / "timelens-100k.jsonl")
    settings = OFFLINE | {"difficulty_file": str(path), "target_size": 500, "annotations": annotations}
    run("rlvr", "tiny_rlvr", **settings)
    with pytest.raises(FileNotFoundError, match="1 of 12 videos are missing"):
        run("rlvr", "tiny_rlvr", annotations=annotations)
    assert set(trained_on[0]) == {row["id"] for row in rows} - set(lost)
    assert f"{len(lost)} of 36 moments have no estimate, as 1 videos could not be read" in caplog.text


def test_selection_by_difficulty_is_that_of_the_library(
    trained_on: list[list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With IoUs that a random model does not reach."""
    rows = [json.loads(line) for line in (workplace / FILE).read_text().splitlines()]
    path = workplace / "build" / "made_up.jsonl"
    with path.open("w") as file:
        for i, row in enumerate(rows):
            ious = [i / len(rows)] * 3
            file.write(json.dumps(row | {"iou": ious[0], "ious": ious}) + "\n")
    run("rlvr", "tiny_rlvr", difficulty="offline", difficulty_file=str(path), target_size=12, strata="none", seed=3)
    from timelens_plugins.difficulty import Difficulty
    from timelens_plugins.moments import load_moments

    annotations = next((workplace / "build" / "synthetic").rglob("timelens-100k.jsonl"))
    moments = list(load_moments(annotations))
    assert [m.id for m in moments] == [row["id"] for row in rows]
    known = Difficulty(torch.arange(36).double().numpy() / 36)
    expected = select_moments(moments, known, 12, strata="none", seed=3)
    assert trained_on == [[moments[i].id for i in expected.indices]]


def test_the_tiny_online_config(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Draws, stops, saves the model of the plateau's start; the same command again changes nothing of it."""
    monkeypatch.chdir(workplace)
    often = {"save_steps": 1, "save_total_limit": 30}
    run("rlvr", "tiny_rlvr_online", **often)
    output = workplace / "build" / "tiny_rlvr_online"
    last = max(output.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    state = json.loads((last / "trainer_state.json").read_text())
    assert state["global_step"] < 30, "stopped"
    assert state["stateful_callbacks"]["RewardPlateauCallback"]["attributes"]["decision"]["reason"] == "plateau"
    assert all("difficulty/effective_prompts" in entry for entry in state["log_history"] if "loss" in entry)
    best = Path(state["best_model_checkpoint"])
    assert (output / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()
    assert "is that of" in caplog.text
    kept = (output / "model.safetensors").read_bytes()
    run("rlvr", "tiny_rlvr_online", **often)
    assert "this run was stopped already" in caplog.text
    assert not any(int(p.name.partition("-")[2]) > state["global_step"] for p in output.glob("checkpoint-*"))
    assert json.loads((last / "trainer_state.json").read_text()) == state
    # Those of the last step, if they are asked for.
    run("rlvr", "tiny_rlvr_online", saved_model="last", **often)
    assert (output / "model.safetensors").read_bytes() == (last / "model.safetensors").read_bytes()
    run("rlvr", "tiny_rlvr_online", **often)
    assert (output / "model.safetensors").read_bytes() == kept


class Falling:
    """A reward that is better the earlier it is asked for, with some noise."""

    __name__ = "falling"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, completions: list[Any], **_: Any) -> list[float]:
        self.calls += 1
        noise = torch.Generator().manual_seed(self.calls)
        values = 0.8 - 0.02 * self.calls + 0.05 * torch.randn(len(completions), generator=noise)
        return values.tolist()


@pytest.mark.parametrize("adapter", [False, True])
def test_a_stopped_run_keeps_its_best_checkpoint(
    adapter: bool, make_trainer: Callable[..., TimeLensGRPOTrainer], tmp_path: Path
) -> None:
    from peft import LoraConfig

    callback = RewardPlateauCallback(patience=8, min_steps=10)
    trainer = make_trainer(
        output_dir=tmp_path,
        callbacks=[callback],
        reward=Falling(),
        max_steps=60,
        max_completion_length=4,
        save_strategy="steps",
        save_steps=2,
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM") if adapter else None,
    )
    trainer.train()
    save_final_model(trainer, callback)
    assert callback.decision is not None
    assert callback.decision["reason"] == "fall"
    assert trainer.state.global_step == callback.decision["step"] < 60
    start = Path(str(trainer.state.best_model_checkpoint))
    assert int(start.name.partition("-")[2]) < trainer.state.global_step - 2
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    final, best = load_file(tmp_path / name), load_file(start / name)
    last = load_file(tmp_path / f"checkpoint-{trainer.state.global_step}" / name)
    assert final.keys() == best.keys() == last.keys()
    assert all(torch.equal(final[key], best[key]) for key in final)
    assert not all(torch.equal(final[key], last[key]) for key in final)
    assert (tmp_path / name).stat().st_ino != (start / name).stat().st_ino, "writing it must not change the checkpoint"


class StopAtOnce(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = True


def test_a_run_that_was_not_stopped_saves_its_last_model(
    make_trainer: Callable[..., TimeLensGRPOTrainer], tmp_path: Path
) -> None:
    callback = RewardPlateauCallback(patience=8)
    trainer = make_trainer(output_dir=tmp_path, callbacks=[callback, StopAtOnce()], max_steps=4)
    trainer.train()
    save_final_model(trainer, callback)
    saved = load_file(tmp_path / "model.safetensors")
    trained = trainer.model.state_dict()
    assert all(torch.equal(saved[name], trained[name]) for name in saved)
    save_final_model(trainer, None)

    callback.decision = {"step": 1}
    trainer.save_model = lambda: pytest.fail("the saved model was written over")
    with pytest.raises(FileNotFoundError, match="best, the model from where the plateau began, is gone"):
        save_final_model(trainer, callback)
    del trainer.save_model
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="FULL_STATE_DICT"):
        save_final_model(trainer, callback)
