"""A killed run continues with the losses of an uninterrupted one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import history
from killed_run import SETTINGS
from safetensors.torch import load_file
from transformers import TrainerCallback

from timelens_plugins.clips import ClipKey, ClipLoader
from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.moments import Moment
from timelens_plugins.plateau.callback import samples_per_step
from timelens_plugins.plateau.history import read_reward_log
from timelens_plugins.training.checkpoints import STATE_FILE, last_checkpoint

MakeTrainer = Callable[..., TimeLensGRPOTrainer]
NAMES = ("loss", "grad_norm", "reward", "entropy", "kl", "num_tokens", "learning_rate")


def test_a_checkpoint_in_the_middle_of_a_generation_batch_says_how_many_prompts_a_step_drew(
    make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    """What ``timelens plateau`` counts patience in, where the run had no callback that counts samples."""
    trainer = make_trainer(output_dir=tmp_path / "run", steps_per_generation=2, save_strategy="steps", save_steps=1)
    trainer.train()
    for step in (1, 2, 3):
        log, _ = read_reward_log(tmp_path / "run" / f"checkpoint-{step}")
        assert log.samples == tuple(samples_per_step(trainer.args) * s for s in log.steps), step


class ClipsWanted(TrainerCallback):
    """Notes after each step which clips are still to be taken, and how often."""

    clips: ClipLoader

    def __init__(self) -> None:
        self.at_step: dict[int, dict[ClipKey, int]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at_step[state.global_step] = dict(self.clips._wanted)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_kill_and_resume(
    family: str, make_trainer: MakeTrainer, tiny_checkpoints: dict[str, Path], annotations: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    command = [sys.executable, str(Path(__file__).with_name("killed_run.py"))]
    process = subprocess.Popen(
        [*command, str(tiny_checkpoints[family]), str(annotations), str(killed)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted: list[ClipsWanted] = [ClipsWanted(), ClipsWanted()]
    whole = make_trainer(family, **SETTINGS | {"save_strategy": "no"}, callbacks=wanted[:1])
    wanted[0].clips = whole.prompts.clips
    whole.train()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -9, errors[-2000:]

    # What a kill during the next save would leave behind.
    shutil.copytree(killed / "checkpoint-3", killed / "checkpoint-4")
    (killed / "checkpoint-4" / STATE_FILE).unlink()
    checkpoint = last_checkpoint(killed)
    assert checkpoint == str(killed / "checkpoint-3")

    resumed = make_trainer(family, output_dir=killed, **SETTINGS, callbacks=wanted[1:])
    wanted[1].clips = resumed.prompts.clips
    resumed.train(resume_from_checkpoint=checkpoint)
    assert len(history(whole)) == 7
    assert history(resumed, *NAMES) == history(whole, *NAMES)
    # No clip that was announced stays behind, though what is restored comes in another order than announced.
    assert wanted[1].at_step == {step: kept for step, kept in wanted[0].at_step.items() if step > 3}
    assert not wanted[1].at_step[7]

    other = make_trainer(family, output_dir=killed, **SETTINGS | {"num_iterations": 3})
    with pytest.raises(ValueError, match=r"made with num_iterations=2 \(now 3\): resume with the same settings"):
        other.train(resume_from_checkpoint=checkpoint)
    (killed / "checkpoint-3" / STATE_FILE).unlink()
    with pytest.raises(ValueError, match="saving it was interrupted"):
        make_trainer(family, output_dir=killed, **SETTINGS).train(resume_from_checkpoint=checkpoint)


def test_resume_in_the_second_epoch(
    family: str, make_trainer: MakeTrainer, moments: list[Moment], tmp_path: Path
) -> None:
    """Each epoch has an order of its own, also for a run that never saw the first; Qwen2.5-VL's weights are saved under
    other names than the model's."""
    settings = {"rows": moments[:4], "max_steps": 6, "save_steps": 1, "learning_rate": 1e-3}
    whole = make_trainer(family, **settings, output_dir=tmp_path, save_strategy="steps")
    whole.train()
    for step in (2, 3):  # at an epoch's end, and in the middle of one
        resumed = make_trainer(family, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert history(resumed, *NAMES) == history(whole, *NAMES)


def test_a_finished_run_stays_as_it_is(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """Started again, it takes no step, and its model is that of the last one; with more steps, it goes on."""
    settings = {"output_dir": tmp_path, "save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    whole = make_trainer(max_steps=3, lr_scheduler_type="constant")
    whole.train()
    for steps in (2, 2, 3):
        again = make_trainer(max_steps=steps, **settings)
        again.train(resume_from_checkpoint=last_checkpoint(tmp_path))
        assert again.state.global_step == steps
        assert len(history(again)) == steps
        assert not (tmp_path / f"checkpoint-{steps + 1}").exists()
        saved = load_file(tmp_path / f"checkpoint-{steps}" / "model.safetensors")
        trained = again.model.state_dict()
        assert all(torch.equal(tensor, trained[name]) for name, tensor in saved.items())
    assert history(again, *NAMES) == history(whole, *NAMES)


def test_a_reference_model_that_follows_is_not_in_a_checkpoint(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A resumed run would begin again with that of the start, and log another KL divergence."""
    synced = {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1}
    trainer = make_trainer(output_dir=tmp_path, max_steps=1, save_strategy="steps", save_steps=1, **synced)
    assert "sync_ref_model=True cannot go on from a checkpoint" in caplog.text
    trainer.train()
    with pytest.raises(ValueError, match="sync_ref_model=True cannot go on from a checkpoint"):
        make_trainer(output_dir=tmp_path, **synced).train(resume_from_checkpoint=True)


def test_skipped_videos_stay_counted(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    trainer = make_trainer(output_dir=tmp_path, max_steps=1, save_strategy="steps", save_steps=1, on_bad_video="skip")
    trainer.prompts.clips.skipped["gone.mp4"] = "no such file"
    trainer.train()
    assert json.loads((tmp_path / "checkpoint-1" / STATE_FILE).read_text())["skipped"] == {"gone.mp4": "no such file"}
    resumed = make_trainer(output_dir=tmp_path, max_steps=2, on_bad_video="skip")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert history(resumed, "videos/skipped")[-1] == (1.0,)
