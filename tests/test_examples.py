"""The scripts in examples/ and the training example of the README, as they stand there (own CSV: test_own_tasks)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from timelens_plugins.recipe.rewards import own_reward
from timelens_plugins.synthetic.benchmark import write_training_set

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(*command: str | Path, cwd: Path) -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    annotations = write_training_set(tmp_path / "set", 1, size=64, fps=4.0, progress=False)
    return sorted((annotations.parent / "videos").rglob("*.mp4"))[0]


def test_custom_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(EXAMPLES / "custom_reward.py", cwd=tmp_path).split("\n")[:3] == [
        "0.75  The event happens in 3.5 - 12.0 seconds.",
        "0.50  From 5 to 9 seconds.",
        "0.00  I cannot tell.",
    ]
    monkeypatch.syspath_prepend(EXAMPLES)
    reward = own_reward("custom_reward:start_reward")
    answers = [[{"role": "assistant", "content": "The event happens in 8.0 - 9.0 seconds."}]]
    assert reward(answers, spans=[[[1.0, 2.0], [7.0, 9.0]]], query=["q"], id=["x"]) == [0.5]


def test_shared_prefix_log_probs(clip: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    script = EXAMPLES / "shared_prefix_log_probs.py"
    printed = run(script, tiny_checkpoints["qwen3_vl"], clip, "a red circle appears", cwd=tmp_path)
    assert len(re.findall(r"^ *-\d+\.\d\d nats  ['\"]", printed, re.MULTILINE)) == 4
    assert re.search(r"\d+ tokens of prompt were computed once, not 4 times", printed)


def test_the_training_example_of_the_readme(clip: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    [program] = [block for block in blocks if "TimeLensGRPOTrainer" in block]
    assert len(program.splitlines()) <= 30
    (tmp_path / "train.py").write_text(program)
    (tmp_path / "own.csv").write_text("video,query,start,end\nclip.mp4,a red circle appears,1.0,4.5\n")
    (tmp_path / "videos").mkdir()
    shutil.copy(clip, tmp_path / "videos" / "clip.mp4")
    checkpoint = re.search(r'checkpoint = "(.*)"', program)
    assert checkpoint is not None
    shutil.copytree(tiny_checkpoints["qwen3_vl"], tmp_path / checkpoint[1])  # transformers prefers a folder to the hub
    run("train.py", cwd=tmp_path)
    assert (tmp_path / "trained" / "model.safetensors").is_file()
    assert "TimeLensQwen3VLProcessor" in (tmp_path / "trained" / "processor_config.json").read_text()
