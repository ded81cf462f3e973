"""``recipes/rlvr.py`` with rewards that are shuffled within each batch: answers get those of others."""

from __future__ import annotations

import importlib.util
import random
import sys
from typing import Any

from timelens_plugins.locations import shipped_folder
from timelens_plugins.recipe import parse
from timelens_plugins.rewards import REWARDS

honest = REWARDS["temporal_iou"]
chance = random.Random(0)


def temporal_iou_reward(*args: Any, **columns: Any) -> list[float]:
    rewards = list(honest(*args, **columns))
    chance.shuffle(rewards)
    return rewards


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("rlvr", shipped_folder("recipes") / "rlvr.py")
    assert spec is not None
    assert spec.loader is not None
    rlvr = sys.modules["rlvr"] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(rlvr)
    REWARDS["temporal_iou"] = temporal_iou_reward
    rlvr.main(*parse(rlvr.SETTINGS))
