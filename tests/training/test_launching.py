"""Files for launchers: accelerate reads each configuration as it is meant, the Slurm templates start every node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

RECIPES = Path(__file__).parents[2] / "recipes"
STAGES = {"deepspeed_zero1": 1, "deepspeed_zero2": 2, "deepspeed_zero3": 3}


@pytest.mark.parametrize("name", STAGES)
def test_deepspeed(name: str) -> None:
    """Batch, accumulation and clipping are left to the training settings: accelerate's own defaults would be others."""
    path = str(RECIPES / "accelerate" / f"{name}.yaml")
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", path, "script.py"]))
    assert args.use_deepspeed
    assert int(args.zero_stage) == STAGES[name]
    assert (str(args.gradient_accumulation_steps), str(args.gradient_clipping)) == ("auto", "auto")
    assert args.deepspeed_multinode_launcher == "standard"
    assert args.mixed_precision == "bf16"
    assert "optimizer" not in yaml.safe_load(Path(path).read_text())["deepspeed_config"]
    if STAGES[name] == 3:
        assert str(args.zero3_init_flag).lower() == str(args.zero3_save_16bit_model).lower() == "true"


@pytest.mark.parametrize("recipe", ["rlvr", "sft"])
def test_slurm_starts_a_launcher_on_each_node(recipe: str, tmp_path: Path) -> None:
    """With stand-ins for Slurm's commands that run both nodes here, and for accelerate, which notes what it is told."""
    commands = {
        "scontrol": "printf 'node1\\nnode2\\n'",
        "srun": 'shift; for node in 0 1; do SLURM_NODEID=$node "$@"; done',
        "accelerate": 'python3 -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"',
    }
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text("")
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "123456"}
    done = subprocess.run(
        ["bash", str(RECIPES / "slurm" / f"{recipe}.sbatch"), "--max_steps", "7"],
        cwd=tmp_path,
        env=job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == 2
    parsed: list[Any] = [launch_command_parser().parse_args(arguments[1:]) for arguments in told]
    assert [args.machine_rank for args in parsed] == [0, 1]
    for args in parsed:
        assert (args.num_machines, args.num_processes, args.main_process_ip) == (2, 16, "node1")
        assert args.main_process_port == 20000 + 123456 % 20000
        assert args.training_script == f"recipes/{recipe}.py"
        assert args.training_script_args[-2:] == ["--max_steps", "7"]
        assert (RECIPES.parent / args.config_file).is_file()
        assert (RECIPES.parent / args.training_script_args[1]).is_file()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck() -> None:
    done = subprocess.run(
        ["shellcheck", *map(str, sorted((RECIPES / "slurm").glob("*.sbatch")))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
