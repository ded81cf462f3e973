"""DeepSpeed on two processes has the losses of one, continues from its checkpoints, and saves what loads anywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed_run import METHODS
from safetensors.torch import load_file

HERE = Path(__file__).parent
STAGES = ("1", "2", "3")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed"),
]


@pytest.fixture(scope="module")
def runs(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder of all runs, and what each logged under ``method + stage``, uninterrupted and resumed."""
    from timelens_plugins.synthetic.benchmark import write_training_set

    output = tmp_path_factory.mktemp("deepspeed")
    annotations = write_training_set(output / "train", 2, size=64, fps=4.0, progress=False)
    paths = os.pathsep.join(str(HERE.parent / name) for name in ("grpo", "sft"))
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "PYTHONPATH": paths}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(str(HERE / "deepspeed_run.py"), str(tiny_checkpoints["qwen3_vl"]), str(annotations), str(output)),
            *STAGES,
        ],
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines() if line.startswith("RESULT")]
    return output, {f"{run['method']}{run['stage']}{'-resumed' * run['resumed']}": run["log"] for run in found}


@pytest.fixture(scope="module")
def one(tiny_checkpoints: dict[str, Path], runs: tuple[Path, Any]) -> dict[str, Any]:
    """The same runs on one process, without DeepSpeed: their logs and weights."""
    import deepspeed_run

    output, _ = runs
    found = {}
    sys.path.append(str(HERE.parent / "grpo"))
    for method in deepspeed_run.METHODS:
        trainer = getattr(deepspeed_run, method)(
            tiny_checkpoints["qwen3_vl"],
            output / "train" / "timelens-100k.jsonl",
            output / f"{method}-one",
            1,
            use_cpu=True,
        )
        trainer.train()
        weights = {name: tensor.detach() for name, tensor in trainer.model.state_dict().items()}
        found[method] = (deepspeed_run.logged(trainer, method), weights)
    return found


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("method", METHODS)
def test_losses_resume_and_checkpoints(
    method: str, stage: str, runs: tuple[Path, dict[str, Any]], one: dict[str, Any]
) -> None:
    from deepspeed_run import LOGGED, STEPS
    from transformers import AutoModelForImageTextToText

    output, logs = runs
    expected, trained = one[method]
    found = logs[f"{method}{stage}"]
    assert len(found) == len(expected) == STEPS
    for step, wanted in zip(found, expected, strict=True):
        for name, value, target in zip(LOGGED[method], step, wanted, strict=True):
            assert (value is None) == (target is None), name
            if target is not None:
                torch.testing.assert_close(value, target, rtol=1e-4, atol=1e-5, msg=f"{name}: {value}, one: {target}")
    assert logs[f"{method}{stage}-resumed"] == found, "the run resumed from step 2 has the losses of the uninterrupted"

    folder = output / f"{method}{stage}"
    for name, tensor in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(tensor, trained[name], rtol=1e-3, atol=1e-4)
    loaded, told = AutoModelForImageTextToText.from_pretrained(
        folder / f"checkpoint-{STEPS}", dtype=torch.float32, output_loading_info=True
    )
    assert not any(told.values()), told
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter.detach(), trained[name], rtol=1e-3, atol=1e-4)
