"""The callback in a real ``transformers.Trainer`` that logs rewards, and ``timelens plateau`` on what it leaves."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

from timelens_plugins.cli import main
from timelens_plugins.plateau import PlateauSettings, read_reward_log
from timelens_plugins.plateau.callback import RewardPlateauCallback, samples_per_step

STEPS = 160
BATCH = 4


class Model(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.layer = torch.nn.Linear(2, 1)
        self.post_init()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(x).pow(2).mean()}


class Rows(Dataset):
    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor([1.0, index / 10_000])}


class RewardTrainer(Trainer):
    """Logs rewards that rise until step 60 and are flat from then on; a function of the step alone."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            step = self.state.global_step
            noise = np.random.default_rng(step).standard_normal(2)
            progress = min(step / 60, 1)
            logs["reward"] = 0.3 + 0.3 * progress + 0.01 * noise[0]
            logs["reward_std"] = 0.25 - 0.1 * progress + 0.005 * noise[1]
        super().log(logs, start_time)


class StopAt(TrainerCallback):
    """Ends a run early, as a kill after a checkpoint would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


def trainer(folder: Path, *callbacks: TrainerCallback, kind: type[Trainer] = RewardTrainer, **options: Any) -> Trainer:
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "logging_steps": 1,
        "save_steps": 10,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    arguments = TrainingArguments(output_dir=str(folder), **{**settings, **options})
    return kind(Model(PretrainedConfig()), arguments, train_dataset=Rows(), callbacks=list(callbacks))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, RewardPlateauCallback]:
    folder = tmp_path_factory.mktemp("run")
    callback = RewardPlateauCallback(patience=32, min_steps=20)
    run = trainer(folder, callback)
    run.train()
    return folder, run, callback


def last_state(folder: Path) -> dict[str, Any]:
    newest = max(folder.glob("checkpoint-*"), key=lambda p: int(p.name.partition("-")[2]))
    state: dict[str, Any] = json.loads((newest / "trainer_state.json").read_text())
    return state


def test_the_run_stops_and_says_why(stopped: tuple[Path, Trainer, RewardPlateauCallback]) -> None:
    folder, run, callback = stopped
    assert callback.decision is not None
    step, start = callback.decision["step"], callback.decision["start_step"]
    assert 60 < step < 120
    assert abs(start - 60) <= 25
    assert run.state.global_step == step
    state = last_state(folder)
    assert state["global_step"] == step
    recorded = state["stateful_callbacks"]["RewardPlateauCallback"]
    assert recorded["attributes"]["decision"] == callback.decision
    assert recorded["args"]["patience"] == 32
    (entry,) = [e for e in state["log_history"] if "plateau" in e]
    assert entry["plateau"] == callback.decision
    assert entry["samples"] == step * BATCH


def test_the_checkpoint_of_the_plateaus_start_is_kept_as_best(
    stopped: tuple[Path, Trainer, RewardPlateauCallback],
) -> None:
    folder, run, callback = stopped
    assert callback.decision is not None
    expected = folder / f"checkpoint-{-(-callback.decision['start_step'] // 10) * 10}"
    assert run.state.best_model_checkpoint == str(expected)
    assert last_state(folder)["best_model_checkpoint"] == str(expected)
    for file in expected.rglob("*"):
        copy = folder / "best" / file.relative_to(expected)
        if file.is_file():
            assert copy.read_bytes() == file.read_bytes()
            assert copy.stat().st_ino == file.stat().st_ino  # no second copy on the disk
    Model.from_pretrained(folder / "best")


def test_a_resumed_run_stops_where_the_other_did(
    stopped: tuple[Path, Trainer, RewardPlateauCallback], tmp_path: Path
) -> None:
    _, _, callback = stopped
    trainer(tmp_path, RewardPlateauCallback(patience=32, min_steps=20), StopAt(50)).train()
    again = RewardPlateauCallback(patience=32, min_steps=20)
    trainer(tmp_path, again).train(resume_from_checkpoint=str(tmp_path / "checkpoint-50"))
    assert again.decision == callback.decision


def test_resuming_with_another_batch_size_keeps_counting_samples(tmp_path: Path) -> None:
    trainer(tmp_path, RewardPlateauCallback(min_steps=20), StopAt(50)).train()
    again = RewardPlateauCallback(min_steps=20)
    run = trainer(tmp_path, again, StopAt(54), per_device_train_batch_size=2 * BATCH)
    run.train(resume_from_checkpoint=str(tmp_path / "checkpoint-50"))
    samples = [entry["samples"] for entry in run.state.log_history if "samples" in entry]
    assert samples == [BATCH * i for i in range(1, 51)] + [50 * BATCH + 2 * BATCH * i for i in range(1, 5)]
    assert again.patience == last_state(tmp_path)["stateful_callbacks"]["RewardPlateauCallback"]["args"]["patience"]
    assert again.patience == 67  # of the run as it was planned first: 0.9 * 640 ** (2/3)


def test_a_run_that_was_stopped_is_not_quietly_continued(
    stopped: tuple[Path, Trainer, RewardPlateauCallback], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _, callback = stopped
    assert callback.decision is not None
    step = callback.decision["step"]
    with caplog.at_level(logging.WARNING, "timelens_plugins"):
        run = trainer(folder, RewardPlateauCallback(patience=32, min_steps=20))
        run.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    assert run.state.global_step <= step + 1
    assert "this run was stopped already" in caplog.text


def test_rotation_that_would_lose_the_start_is_said_and_the_best_still_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "timelens_plugins"):
        callback = RewardPlateauCallback(patience=32, min_steps=20)
        trainer(tmp_path, callback, save_total_limit=2).train()
    assert "save_total_limit=2" in caplog.text
    assert callback.decision is not None
    assert (tmp_path / "best" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"save_steps": 0.01, "save_total_limit": 4}, "keeps 8 steps, and a plateau is known about 48 steps.* to 25,"),
        ({"save_steps": 0.1, "save_total_limit": 4}, None),  # every 16 steps
        ({"save_strategy": "epoch", "save_total_limit": 1}, None),
        ({"save_strategy": "no", "save_total_limit": 1}, None),
    ],
)
def test_rotation_is_counted_in_the_steps_between_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], warned: str | None
) -> None:
    run = trainer(tmp_path, RewardPlateauCallback(patience=32), StopAt(1), **options)
    with caplog.at_level(logging.WARNING, "timelens_plugins"):
        run.train()
    assert ("save_total_limit" in caplog.text) == (warned is not None)
    if warned is not None:
        assert re.search(warned, caplog.text)


@pytest.mark.parametrize("stale", ["later", "same"])
def test_a_checkpoint_that_another_run_left_is_not_kept_as_best(
    tmp_path: Path, stopped: tuple[Path, Trainer, RewardPlateauCallback], stale: str
) -> None:
    _, _, known = stopped
    assert known.decision is not None
    left = tmp_path / f"checkpoint-{known.decision['step'] + (40 if stale == 'later' else 0)}"
    left.mkdir()
    (left / "trainer_state.json").write_text('{"log_history": []}')
    callback = RewardPlateauCallback(patience=32, min_steps=20)
    run = trainer(tmp_path, callback, save_steps=1000)
    run.train()
    assert callback.decision == known.decision
    assert run.state.best_model_checkpoint == str(tmp_path / f"checkpoint-{known.decision['step']}")
    kept = json.loads((tmp_path / "best" / "trainer_state.json").read_text())
    assert kept["global_step"] == known.decision["step"]
    assert (tmp_path / "best" / "model.safetensors").is_file()


def test_a_run_without_checkpoints_keeps_the_last_one(tmp_path: Path) -> None:
    callback = RewardPlateauCallback(patience=32, min_steps=20)
    run = trainer(tmp_path, callback, save_strategy="no")
    run.train()
    assert callback.decision is not None
    kept = json.loads((tmp_path / "best" / "trainer_state.json").read_text())
    assert kept["global_step"] == callback.decision["step"]


def test_a_trainer_without_rewards_is_an_error(tmp_path: Path) -> None:
    run = trainer(tmp_path, RewardPlateauCallback(patience=32, min_steps=10), kind=Trainer)
    with pytest.raises(ValueError, match=r"'reward', which this trainer does not log; it logs .*loss"):
        run.train()


def test_a_spread_that_is_not_logged_is_an_error(tmp_path: Path) -> None:
    run = trainer(tmp_path, RewardPlateauCallback(patience=32, min_steps=10, spread_key="spread"))
    with pytest.raises(ValueError, match=r"the spread 'spread', which this trainer does not log; it logs .*reward_std"):
        run.train()


class TwoSpreads(Trainer):
    """The spread within groups is flat, that of the batch falls; the first entry lacks the former."""

    first: float | None = None

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        if "loss" in logs:
            step = self.state.global_step
            noise = np.random.default_rng(step).standard_normal(3)
            logs["reward"] = 0.5 + 0.01 * noise[0]
            logs["reward_std"] = 0.3 - 0.001 * step + 0.001 * noise[1]
            logs["reward_within_group_std"] = 0.2 + 0.005 * noise[2]
            if step == 1:
                del logs["reward_within_group_std"]
                logs["reward_std"] = self.first
        super().log(logs, start_time)


class TwoSpreadsFromTheFirst(TwoSpreads):
    first = 0.3


@pytest.mark.parametrize(
    ("kind", "watched"), [(TwoSpreads, "reward_within_group_std"), (TwoSpreadsFromTheFirst, "reward_std")]
)
def test_live_resumed_and_replayed_the_same_spread_is_watched(
    tmp_path: Path, kind: type[Trainer], watched: str
) -> None:
    live, first, again = (RewardPlateauCallback(patience=32, min_steps=20) for _ in range(3))
    options: dict[str, Any] = {"kind": kind, "max_steps": 100}
    trainer(tmp_path / "whole", live, **options).train()
    trainer(tmp_path / "part", first, StopAt(10), **options).train()
    run = trainer(tmp_path / "part", again, **options)
    run.train(resume_from_checkpoint=str(tmp_path / "part" / "checkpoint-10"))
    log, _ = read_reward_log(tmp_path / "whole")
    decision = log.replay(PlateauSettings(32, 20))
    assert [live.spread_key, first.spread_key, again.spread_key, log.spread_key] == [watched] * 4
    assert live.decision == again.decision == (decision and decision.to_dict())
    assert (decision is not None) == (watched == "reward_within_group_std")


def test_settings_that_cannot_work_are_errors_at_once() -> None:
    with pytest.raises(ValueError, match="patience must be"):
        RewardPlateauCallback(patience=0)
    with pytest.raises(ValueError, match="confidence"):
        RewardPlateauCallback(confidence=2.0)


def test_samples_are_prompts_not_completions(tmp_path: Path) -> None:
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=16, gradient_accumulation_steps=4, use_cpu=True
    )
    assert samples_per_step(arguments) == 64
    arguments.num_generations, arguments.num_iterations = 8, 2  # type: ignore[attr-defined]
    assert samples_per_step(arguments) == 4


def test_trls_trainers_log_these_keys() -> None:
    import inspect

    from trl.trainer import grpo_trainer, rloo_trainer

    for module in (grpo_trainer, rloo_trainer):
        source = inspect.getsource(module)
        assert '["reward"].append' in source
        assert '["reward_std"].append' in source


# ---------------------------------------------------------------- timelens plateau


def test_the_command_replays_and_draws(
    stopped: tuple[Path, Trainer, RewardPlateauCallback], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, callback = stopped
    assert callback.decision is not None
    out = tmp_path / "d.json"
    assert main(["plateau", str(folder), "--plot", str(tmp_path / "p.svg"), "--json", str(out)]) == 0
    assert f"seen at step {callback.decision['step']}" in capsys.readouterr().out
    assert json.loads(out.read_text())["decision"] == callback.decision
    drawing = (tmp_path / "p.svg").read_text()
    assert "<svg" in drawing
    assert main(["plateau", str(folder), "--plot", str(tmp_path / "p.png")]) == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert main(["plateau", str(folder), "--min-steps", "1000"]) == 0
    assert "no plateau" in capsys.readouterr().out


def write_state(path: Path, history: list[dict[str, Any]], **recorded: Any) -> Path:
    callbacks = {"RewardPlateauCallback": {"args": recorded, "attributes": {}}} if recorded else {}
    state = {"log_history": history, "max_steps": len(history), "stateful_callbacks": callbacks}
    path.write_text(json.dumps(state))
    return path


def test_the_names_that_the_run_recorded_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = [
        {"step": i, "samples": 8 * i, "score": 0.1 * i, "reward": 0.5, "reward_std": 0.2, "width": 0.1}
        for i in range(1, 100)
    ]
    path = write_state(tmp_path / "trainer_state.json", history, reward_key="score", spread_key="width")
    assert main(["plateau", str(path)]) == 0
    said = capsys.readouterr().out
    assert "reward: score, spread: width;" in said
    assert "no plateau" in said
    assert main(["plateau", str(path), "--reward-key", "reward", "--spread-key", "reward_std"]) == 0
    said = capsys.readouterr().out
    assert "reward: reward, spread: reward_std;" in said
    assert "stop: " in said
    assert main(["plateau", str(path), "--spread-key", "breadth"]) == 2
    assert f"{path}: no entry has the spread 'breadth'" in capsys.readouterr().err
    path = write_state(tmp_path / "foreign.json", history)
    assert main(["plateau", str(path)]) == 0
    assert "reward: reward, spread: reward_std;" in capsys.readouterr().out


def test_a_log_of_another_run_needs_the_samples_of_a_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = [{"step": i, "reward": 0.5 + 0.01 * (-1) ** (i * i // 3), "reward_std": 0.2} for i in range(1, 200)]
    path = write_state(tmp_path / "trainer_state.json", history)
    assert main(["plateau", str(path)]) == 2
    assert "say how many prompts each optimizer step drew" in capsys.readouterr().err
    assert main(["plateau", str(path), "--samples-per-step", "8"]) == 0
    assert "stop: the reward has reached a plateau" in capsys.readouterr().out
    write_state(path, [entry | {"samples": 4.0 * entry["step"]} for entry in history])
    assert main(["plateau", str(path)]) == 0
    assert "up to step 199 (796 samples)" in capsys.readouterr().out
    assert main(["plateau", str(path), "--samples-per-step", "8"]) == 2
    assert "counts samples itself; leave samples_per_step out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("history", "says"),
    [
        ([{"step": 1, "loss": 0.1}], "no entry of a step has 'reward'; logged are loss, step"),
        ([{"step": 1, "reward": "high"}], "entry 1: 'reward' must be a number"),
        ([{"step": 2, "reward": 0.1}, {"step": 1, "reward": 0.1}], "entry 2: step 1"),
        ([{"step": "1", "reward": 0.1}], "'step' must be a whole number"),
    ],
)
def test_logs_that_cannot_be_read(
    tmp_path: Path, history: list[dict[str, Any]], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_state(tmp_path / "trainer_state.json", history)
    assert main(["plateau", str(path), "--samples-per-step", "8"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert str(path) in error


def test_files_that_are_no_trainer_states(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["plateau", str(tmp_path / "x.json")]) == 2
    assert "not the trainer_state.json" in capsys.readouterr().err
    assert main(["plateau", str(tmp_path)]) == 2
    assert "neither trainer_state.json nor checkpoints" in capsys.readouterr().err
    state = write_state(tmp_path / "s.json", [{"step": i, "reward": 0.1 * i, "samples": 8 * i} for i in range(1, 9)])
    assert main(["plateau", str(state), "--plot", str(tmp_path / "p.gif")]) == 2
    assert ".png or .svg" in capsys.readouterr().err
