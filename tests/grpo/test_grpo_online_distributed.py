"""Two sharded processes draw what one draws, learn what it learns, stop where it stops and keep the same checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from distributed_online_run import plateau, report, settings
from grpo_runs import Diary
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.inference.fingerprint import fingerprint


def test_two_processes_draw_as_one(
    make_trainer: Callable[..., TimeLensGRPOTrainer],
    tiny_checkpoints: dict[str, Path],
    annotations: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "two"
    output.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    worker = Path(__file__).with_name("distributed_online_run.py")
    process = subprocess.Popen(
        [*command, str(worker), str(tiny_checkpoints["qwen3_vl"]), str(annotations), str(output)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    callback, diary = plateau(), Diary()
    one = make_trainer(callbacks=[callback], reward=diary, output_dir=tmp_path / "one", **settings(1))
    one.train()
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors[-4000:]

    first, second = (json.loads((output / f"process-{i}.json").read_text()) for i in range(2))
    expected = json.loads(json.dumps(report(one, callback, diary)))
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints["qwen3_vl"], dtype=torch.float32)
    assert first.pop("settings")["fingerprint"] == fingerprint(model)
    assert second.pop("settings")["fingerprint"] == fingerprint(model)
    asked = [first.pop("asked"), second.pop("asked")]
    assert first == second
    # One is asked about whole generation batches, each of two about its half of them.
    assert [a + b for a, b in zip(*asked, strict=True)] == expected.pop("asked")
    _assert_near(first, expected)
    assert first["step"] == 7
    assert first["best"] == "checkpoint-2"

    # The weights in the output folder are those of the plateau's start, not of the last step.
    final, start, last = (load_file(output / f / "model.safetensors") for f in ("", "checkpoint-2", "checkpoint-7"))
    assert final.keys() == start.keys()
    assert all(torch.equal(final[name], start[name]) for name in final)
    assert not all(torch.equal(final[name], last[name]) for name in final)
    AutoModelForImageTextToText.from_pretrained(output)


def _assert_near(a: Any, b: Any) -> None:
    """Equal but for the rounding of sums that sharding takes in another order."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = list(a.values()), [b[key] for key in a]
    if isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            _assert_near(x, y)
    elif isinstance(a, float):
        assert abs(a - b) <= 1e-6 * max(1.0, abs(b))
    else:
        assert a == b
