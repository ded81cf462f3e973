"""The recipes in the process of a test."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from timelens_plugins.locations import shipped_folder
from timelens_plugins.recipe import from_dict

RECIPES = shipped_folder("recipes")


def recipe(name: str) -> ModuleType:
    """``recipes/NAME.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def launch(name: str, *command: str, expect: int = 0, **changes: Any) -> None:
    """As :func:`run`, in a process of its own; ``command`` stands in place of the recipe's file."""
    flags = [part for key, value in changes.items() for part in (f"--{key}", str(value))]
    given = [*(command or [str(RECIPES / f"{name}.py")]), "--config", str(RECIPES / "configs" / f"tiny_{name}.yaml")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, *given, *flags], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == expect, done.stderr[-3000:]


def launch_two(name: str, **changes: Any) -> None:
    """As :func:`launch`, on two processes: without GPUs, ``accelerate launch --num_processes 2`` starts one."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    launch(name, *torchrun, str(RECIPES / f"{name}.py"), **changes)
    [first, *_] = Path(changes["output_dir"]).glob("checkpoint-*")
    assert {path.name for path in first.glob("rng_state_*.pth")} == {"rng_state_0.pth", "rng_state_1.pth"}


def run(name: str, config: str | None = None, **changes: Any) -> Any:
    """As ``python recipes/NAME.py --config recipes/configs/CONFIG.yaml`` with flags ``changes``; None: not set.

    Args:
        name: of the recipe.
        config: default: ``tiny_NAME``.
        changes: to the configuration.
    """
    module = recipe(name)
    settings = yaml.safe_load((RECIPES / "configs" / f"{config or f'tiny_{name}'}.yaml").read_text()) | changes
    settings = {key: value for key, value in settings.items() if value is not None}
    return module.main(*from_dict(module.SETTINGS, settings))
