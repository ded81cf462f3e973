"""The recipes in the process of a test."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

import yaml
from trl import TrlParser

from timelens_plugins.locations import shipped_folder

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
    return module.main(*TrlParser(module.SETTINGS).parse_dict(settings))
