"""Two processes have the losses of one: prompts of unequal lengths, and a video that only one of them cannot read.

And one process goes on where two had stopped, with the prompts and losses that they would have had.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from distributed_run import NAMES, kept_prefill, moments_with_a_broken_video, settings, several_queries
from grpo_runs import history
from safetensors.torch import load_file

from timelens_plugins.grpo import TimeLensGRPOTrainer


def test_ddp_and_fsdp2_have_the_losses_of_one_process(
    make_trainer: Callable[..., TimeLensGRPOTrainer],
    tiny_checkpoints: dict[str, Path],
    annotations: Path,
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    worker = Path(__file__).with_name("distributed_run.py")
    done = subprocess.run(
        [*command, str(worker), str(tiny_checkpoints["qwen3_vl"]), str(annotations), str(tmp_path), str(broken)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = [json.loads(line.split(" ", 1)[1]) for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert [entry["name"] for entry in results] == ["ddp", "videos", "kept", "fsdp2"]

    found: dict[str, Any] = {}
    for name, chosen in (("videos", several_queries), ("kept", kept_prefill), ("ddp", settings)):
        one = make_trainer(rows=moments_with_a_broken_video(annotations, broken), **chosen(1))
        one.train()
        found[name] = history(one, *NAMES), {name: p.detach() for name, p in one.model.state_dict().items()}
        assert found[name][0][0][-1] == 1.0, "one video skipped"
    found["fsdp2"] = found["videos"]
    for entry in results:
        expected, trained = found[entry["name"]]
        for step, wanted in zip(entry["history"], expected, strict=True):
            for name, value, target in zip(NAMES, step, wanted, strict=True):
                # The logged entropy is a mean over micro-steps, of which one process takes twice as many there.
                if target is not None and (entry["name"] == "ddp" or name != "entropy"):
                    torch.testing.assert_close(value, target, rtol=1e-4, atol=1e-5, msg=f"{entry['name']}: {name}")
        saved = load_file(tmp_path / entry["name"] / "model.safetensors")
        for name, tensor in saved.items():
            torch.testing.assert_close(tensor, trained[name], rtol=1e-3, atol=1e-4)

    resumed = make_trainer(rows=moments_with_a_broken_video(annotations, broken), **settings(1))
    resumed.train(resume_from_checkpoint=str(tmp_path / "ddp" / "checkpoint-2"))
    expected, _ = found["ddp"]
    again = history(resumed, *NAMES)
    assert len(again) == 3
    for name, value, target in zip(NAMES, again[2], expected[2], strict=True):
        if target is not None:
            torch.testing.assert_close(value, target, rtol=1e-4, atol=1e-5, msg=f"resumed on one process: {name}")
