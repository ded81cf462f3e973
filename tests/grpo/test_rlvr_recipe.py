"""The recipe from a copy of the tree, as a user starts it, and its checkpoint in the evaluation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from trl import ModelConfig

from timelens_plugins.difficulty import Weighting
from timelens_plugins.grpo import TimeLensGRPOConfig
from timelens_plugins.locations import shipped_folder
from timelens_plugins.recipe import DataArguments, Drawing, StoppingArguments, from_dict
from timelens_plugins.training.checkpoints import STATE_FILE


def test_accelerate_launch_and_evaluation(tmp_path: Path) -> None:
    shutil.copytree(shipped_folder("recipes"), tmp_path / "recipes")
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "1", "recipes/rlvr.py"]
    done = subprocess.run(
        [*command, "--config", "recipes/configs/tiny_rlvr.yaml", "--max_steps", "3"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "self-check passed" in done.stdout
    output = tmp_path / "build" / "tiny_rlvr"
    assert (output / "checkpoint-3" / STATE_FILE).is_file()

    os.environ.setdefault("FORCE_QWENVL_VIDEO_READER", "decord")
    from transformers import GenerationConfig

    from timelens_plugins.evaluation.model import TimeLens
    from timelens_plugins.inference.engine import Question, VideoAnswerer

    for folder in (output, output / "checkpoint-3"):
        model = TimeLens(pretrained=str(folder), device="cpu")
        assert model.processor.frame_sampling.total_tokens == 14336, "evaluation says its own budget"
        assert type(model.processor).__name__ == "TimeLensQwen3VLProcessor"
    video = next((tmp_path / "build" / "synthetic").rglob("*.mp4"))
    generation = GenerationConfig(max_new_tokens=4, eos_token_id=model.model.generation_config.eos_token_id)
    answerer = VideoAnswerer(model.model, model.processor, generation)
    [(_, answer)] = answerer.answer([Question(str(video), "When?")])
    assert answer.output_tokens[0] >= 1


RELEASED: dict[str, Any] = {
    "num_generations": 8,
    "learning_rate": 1e-6,
    "lr_scheduler_type": "constant",
    "beta": 0.0,
    "loss_type": "bnpo",
    "scale_rewards": "none",
    "temperature": 1.0,
    "max_completion_length": 512,
    "vision": "merger",
}


@pytest.mark.parametrize(("size", "steps", "snap"), [("7b", 310, True), ("8b", 100, False)])
def test_released_settings(size: str, steps: int, snap: bool) -> None:
    path = shipped_folder("recipes") / "configs" / f"timelens_{size}_rlvr.yaml"
    settings = yaml.safe_load(path.read_text())
    settings |= {"bf16": False, "use_cpu": True}
    rewards = settings.pop("rewards")
    classes = (DataArguments, Drawing, StoppingArguments, TimeLensGRPOConfig, ModelConfig)
    data, difficulty, _, training, _ = from_dict(classes, settings)
    assert {name: getattr(training, name) for name in RELEASED} == RELEASED
    assert rewards == ["temporal_iou"]
    assert (training.max_steps, training.snap_spans) == (steps, snap)
    assert (data.fps, data.max_frames, data.min_tokens, data.total_tokens) == (2.0, 448, 64, 14336)
    assert (data.min_duration, data.max_duration, data.max_words) == (5, 500, 200)
    assert (difficulty.difficulty, difficulty.target_size, difficulty.strata) == ("offline", 2500, "duration")
    assert difficulty.weighting() == Weighting("gaussian", mean=0.05, std=0.2, bins=20)
