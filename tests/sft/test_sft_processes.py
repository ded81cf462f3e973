"""Whole runs in processes of their own: the recipe killed, resumed and evaluated; two processes against one."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.moments import load_moments
from timelens_plugins.synthetic.materialise import materialise
from timelens_plugins.training.checkpoints import last_checkpoint

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": PATHS, "TOKENIZERS_PARALLELISM": "false"}


RECIPE = ROOT / "recipes" / "sft.py"
CONFIG = ("--config", str(ROOT / "recipes" / "configs" / "tiny_sft.yaml"))
LAUNCH = ("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--cpu")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )


def logged(folder: str) -> list[dict[str, Any]]:
    """What was logged at each step, without the clock's readings."""
    state = json.loads((Path(folder) / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


def test_the_recipe_is_killed_and_resumed_and_its_checkpoint_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = run(tmp_path, str(HERE / "killed_recipe.py"), *CONFIG, "--output_dir", "killed")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-3000:]
    assert [path.name for path in (tmp_path / "killed").glob("checkpoint-*")] == ["checkpoint-2"]
    half_written = tmp_path / "killed" / "checkpoint-3"
    shutil.copytree(tmp_path / "killed" / "checkpoint-2", half_written, ignore=shutil.ignore_patterns("*state*"))
    resumed = run(tmp_path, *LAUNCH, str(RECIPE), *CONFIG, "--output_dir", "killed")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "36 moments kept, 0 dropped" in resumed.stderr
    assert "merger: 74,880 trained, 0 frozen" in resumed.stderr
    assert "checkpoint-3 is incomplete and will not be used" in resumed.stderr

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *CONFIG, "--output_dir", "through"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(RECIPE), run_name="__main__")
        assert not end.value.code
    finally:
        torch.set_num_threads(threads)
    checkpoints = [last_checkpoint(tmp_path / name) for name in ("through", "killed")]
    expected, found = (logged(str(path)) for path in checkpoints)
    assert [entry["step"] for entry in expected] == [1, 2, 3, 4, 5, 6]
    assert found == expected
    _evaluates(tmp_path / "killed", tmp_path)


def _evaluates(checkpoint: Path, folder: Path) -> None:
    """A question to the checkpoint through lmms-eval's model ``timelens``, processor included."""
    from lmms_eval.api.instance import Instance

    from timelens_plugins.evaluation.model import TimeLens

    model = TimeLens(pretrained=str(checkpoint), device="cpu", batch_size=2)
    [moment, *_] = load_moments(
        folder / "build/synthetic/training_set-clips4-size64/timelens-100k.jsonl",
        video_root=folder / "build/synthetic/training_set-clips4-size64/videos",
    )
    model.task_dict["task"] = {"test": [{}]}
    parts = [{"type": "video", "url": moment.video}, {"type": "text", "text": "When?"}]
    request = Instance(
        request_type="generate_until",
        arguments=(
            "",
            lambda doc: [{"role": "user", "content": parts}],
            {"max_new_tokens": 4, "until": []},
            0,
            "task",
            "test",
        ),
        idx=0,
        metadata={"task": "task", "doc_id": 0, "repeats": 1},
    )
    [answer] = model.generate_until([request])
    assert answer.text


def test_two_processes_have_the_losses_of_one(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    from two_processes import losses, with_broken

    annotations = Path(materialise("synthetic:training_set,clips=2,size=64", tmp_path))
    checkpoint, broken = str(tiny_checkpoints["qwen3_vl"]), tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)),
        *(str(HERE / "two_processes.py"), checkpoint, str(annotations), str(tmp_path), str(broken)),
    ]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "find_unused_parameters" not in result.stderr
    found = json.loads((tmp_path / "losses.json").read_text())

    moments = list(load_moments(annotations, video_root=annotations.parent / "videos"))
    settings = {"per_device_train_batch_size": 2}
    whole = losses(checkpoint, moments, str(tmp_path / "one"), **settings)
    skipping = losses(checkpoint, with_broken(moments, str(broken)), str(tmp_path / "one"), **settings)
    for (steps, evaluated), (expected, evaluation) in zip(found, (whole, skipping, skipping), strict=True):
        assert [tuple(step) for step in steps] == [pytest.approx(step, rel=1e-4) for step in expected]
        for name in ("eval_loss", "eval_answer_tokens", "eval_left_out_rows"):
            assert evaluated[name] == pytest.approx(evaluation[name], rel=1e-4)
