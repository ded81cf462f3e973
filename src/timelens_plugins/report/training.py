"""Training curves out of ``trainer_state.json``: what was logged, smoothed, and where a plateau began."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from timelens_plugins.plateau import Decision
from timelens_plugins.plateau.history import (
    REWARD_KEY,
    SamplesUnknown,
    read_trainer_state,
    recorded_decision,
    recorded_settings,
    replay_run,
)
from timelens_plugins.plateau.plot import smoothed

__all__ = ["CURVES", "training_curves"]

CURVES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("mean reward", "", ("reward",)),
    ("within-group std of the reward", "", ("reward_within_group_std",)),
    ("std of the reward over the batch", "", ("reward_std",)),
    ("answers that could not be parsed", "%", ("parse_failures",)),
    ("length of the answers", "tokens", ("completions/mean_length",)),
    ("groups without any spread", "%", ("zero_spread_groups", "frac_reward_zero_std")),
    ("loss", "", ("loss",)),
    ("held-out loss", "", ("eval_loss",)),
)
"""Title, unit, and the names a trainer may log it under, of which the first that occurs counts."""

SMOOTHING = 20  # a smoothed value is the mean over the last 1/20 of the run
LEAST_POINTS = 30  # logged values below which nothing is smoothed


def training_curves(path: str | Path, name: str | None = None) -> dict[str, Any]:
    """The curves of one run as JSON types.

    Args:
        path: ``trainer_state.json``, a checkpoint, or the folder of a run, whose last checkpoint counts.
        name: as the report calls the run; default: the folder's name.

    Returns:
        ``name``, ``file``, ``curves`` (``title``, ``unit``, ``key``, ``steps``, ``values``, ``smooth``) and
        ``plateau``: ``decision`` (None where there is none), ``how`` it is known, and a ``summary``.

    Raises:
        ValueError: not such a file, or nothing in it that could be drawn.
        FileNotFoundError: there is none.
    """
    file, state = read_trainer_state(path)
    history = state["log_history"]
    curves = [curve for title, unit, keys in CURVES if (curve := _curve(history, title, unit, keys)) is not None]
    if any(curve["key"] == "reward_within_group_std" for curve in curves):
        curves = [curve for curve in curves if curve["key"] != "reward_std"]
    if any(curve["key"] == REWARD_KEY for curve in curves):  # the loss of a policy gradient says nothing of progress
        curves = [curve for curve in curves if curve["key"] != "loss"]
    if not curves:
        keys = ", ".join(sorted({key for entry in history for key in entry})) or "nothing"
        raise ValueError(f"{file}: nothing to draw; logged are {keys}")
    return {
        "name": name or _run_name(file),
        "file": str(path),
        "curves": curves,
        "plateau": _plateau(state, file),
    }


def _curve(history: Sequence[Mapping[str, Any]], title: str, unit: str, keys: Sequence[str]) -> dict[str, Any] | None:
    key = next((key for key in keys if any(key in entry for entry in history)), None)
    if key is None:
        return None
    points: dict[int, float] = {}
    for entry in history:
        step, value = entry.get("step"), entry.get(key)
        if _is_number(step) and _is_number(value) and math.isfinite(value):
            points[int(step)] = float(value)
    if not points:
        return None
    steps = sorted(points)
    values = [points[step] * (100 if unit == "%" else 1) for step in steps]
    smooth: list[float] | None = None
    if len(steps) >= LEAST_POINTS and steps[-1] > 0:
        places = np.array(steps, dtype=np.float64)
        smooth = [round(v, 6) for v in smoothed(places, np.array(values), places[-1] / SMOOTHING).tolist()]
    return {
        "title": title,
        "unit": unit,
        "key": key,
        "steps": steps,
        "values": [round(value, 6) for value in values],
        "smooth": smooth,
    }


def _plateau(state: Mapping[str, Any], file: Path) -> dict[str, Any] | None:
    """The decision the run recorded, or else what the rule says when it is replayed on the log."""
    reward_key = recorded_settings(state, str(file)).get("reward_key", REWARD_KEY)
    if not any(reward_key in entry and entry.get("step") for entry in state["log_history"]):
        return None
    if (recorded := recorded_decision(state, str(file))) is not None:
        return _said(recorded, "recorded by the run")
    try:
        replay = replay_run(file)
    except SamplesUnknown:
        said = "Whether there is a plateau is not known: the log does not count samples (timelens plateau can be told)."
        return {"decision": None, "how": "", "summary": said}
    how = f"rule replayed on the log, patience {replay.settings.patience} samples"
    if replay.decision is None:
        return {"decision": None, "how": how, "summary": "No plateau: the run would have gone on."}
    return _said(replay.decision, how)


def _said(decision: Decision, how: str) -> dict[str, Any]:
    shown = {"reason": decision.reason, "step": decision.step, "start_step": decision.start_step}
    summary = decision.summary()
    return {"decision": shown, "how": how, "summary": summary[:1].upper() + summary[1:] + "."}


def _run_name(file: Path) -> str:
    folder = file.resolve().parent
    return folder.parent.name if re.fullmatch(r"checkpoint-\d+", folder.name) else folder.name


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
