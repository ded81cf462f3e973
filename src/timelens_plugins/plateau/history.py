"""Rewards as a trainer logged them, in ``trainer_state.json`` or a live ``log_history``, and the rule on them."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timelens_plugins.plateau.rule import Decision, PlateauRule, PlateauSettings

__all__ = [
    "REWARD_KEY",
    "SAMPLES_KEY",
    "SPREAD_KEYS",
    "STATE_FILE",
    "RewardLog",
    "read_reward_log",
    "read_trainer_state",
    "recorded_settings",
    "saved_states",
    "spread_key_in",
]

logger = logging.getLogger(__name__)

REWARD_KEY = "reward"
SPREAD_KEYS = ("reward_within_group_std", "reward_std")
"""Where the spread is looked for, in this order (:func:`spread_key_in`). The second is TRL's own and is over the whole
batch: it also holds how much prompts differ in difficulty, which does not shrink with training, so it is the poorer of
the two."""

SAMPLES_KEY = "samples"
"""Prompts drawn so far, which the callback adds to each logged entry."""

STATE_FILE = "trainer_state.json"
"""Where transformers keeps what was logged, in each checkpoint."""


@dataclass(frozen=True)
class RewardLog:
    """The rewards of a run, one entry per logged step.

    Attributes:
        steps: optimizer steps, ascending.
        samples: prompts drawn so far.
        rewards: mean reward since the entry before; NaN where a step had none.
        spreads: standard deviation beside it; NaN where not logged.
        spread_key: under which name, None where there is none.
        samples_known: whether samples were logged, rather than derived from a number per step.
    """

    steps: tuple[int, ...]
    samples: tuple[float, ...]
    rewards: tuple[float, ...]
    spreads: tuple[float, ...]
    spread_key: str | None
    samples_known: bool

    def __iter__(self) -> Iterator[tuple[int, float, float, float | None]]:
        """Arguments of :meth:`PlateauRule.update`, in order."""
        for step, samples, reward, spread in zip(self.steps, self.samples, self.rewards, self.spreads, strict=True):
            yield step, samples, reward, None if self.spread_key is None else spread

    def replay(self, settings: PlateauSettings) -> Decision | None:
        """What the rule would have said, at its first stop."""
        rule = PlateauRule(settings)
        return next((d for entry in self if (d := rule.update(*entry))), None)

    @classmethod
    def from_history(
        cls,
        history: Sequence[Mapping[str, Any]],
        *,
        reward_key: str = REWARD_KEY,
        spread_key: str | None = None,
        samples_per_step: float | None = None,
        name: str = "log_history",
    ) -> RewardLog:
        """Read logged entries; those without a reward, such as evaluations, are passed over.

        Args:
            history: entries of a trainer's log, each with ``step``.
            reward_key, spread_key: names; without ``spread_key``, that of :func:`spread_key_in`, in the first entry
                that has one.
            samples_per_step: for logs that do not count samples.
            name: what messages call the log.

        Raises:
            ValueError: no rewards, values that are not numbers, steps out of order, or samples that are not known.
        """
        entries = [(i, entry) for i, entry in enumerate(history, 1) if reward_key in entry]
        if not entries:
            keys = sorted({key for entry in history for key in entry})
            raise ValueError(
                f"{name}: no entry has {reward_key!r}; logged are {', '.join(keys) or 'no values at all'}. Name the "
                "right key, or check that this is a run with rewards"
            )
        if spread_key is None:
            spread_key = next((key for _, entry in entries if (key := spread_key_in(entry))), None)
        known = all(SAMPLES_KEY in entry for _, entry in entries)
        if not known and samples_per_step is None:
            raise ValueError(
                f"{name}: the log does not count samples; say how many prompts each optimizer step drew "
                "(samples_per_step), as patience is counted in them"
            )
        rows: list[tuple[int, float, float, float]] = []
        for number, entry in entries:
            where = f"{name}, entry {number}"
            step = entry.get("step")
            if isinstance(step, bool) or not isinstance(step, int):
                raise ValueError(f"{where}: 'step' must be a whole number, got {step!r}")
            samples = _number(entry, SAMPLES_KEY, where) if known else step * float(samples_per_step or 0)
            row = (step, samples, _number(entry, reward_key, where), _number(entry, spread_key, where))
            if rows and (step <= rows[-1][0] or samples <= rows[-1][1]):
                if row[:2] == rows[-1][:2]:
                    continue  # the last step is logged again at the end of training
                raise ValueError(f"{where}: step {step} with {samples:g} samples after step {rows[-1][0]}")
            rows.append(row)
        steps, drawn, rewards, spreads = zip(*rows, strict=True)
        return cls(steps, drawn, rewards, spreads, spread_key, known)


def spread_key_in(entry: Mapping[str, Any]) -> str | None:
    """The first of :data:`SPREAD_KEYS` under which a logged entry has a number; None where it has none.

    A run watches what its first entry with any has. That is known while the run goes on, so a live run, a resumed one
    and a replay watch the same series.
    """
    return next((key for key in SPREAD_KEYS if _is_finite(entry.get(key))), None)


def read_reward_log(path: str | Path, **options: Any) -> tuple[RewardLog, dict[str, Any]]:
    """The rewards of ``trainer_state.json``, or of the last checkpoint in a run's folder, and that file's content.

    Args:
        path: the file, a checkpoint, or the folder of a run.
        options: of :meth:`RewardLog.from_history`.

    Raises:
        ValueError: not such a file, or a ``spread_key`` that no entry has.
        FileNotFoundError: there is none.
    """
    file, state = read_trainer_state(path)
    log = RewardLog.from_history(state["log_history"], name=str(file), **options)
    if log.spread_key is not None and not any(log.spread_key in entry for entry in state["log_history"]):
        raise ValueError(
            f"{file}: no entry has the spread {log.spread_key!r}; name the right key, or none (spread_key)"
        )
    return log, state


def read_trainer_state(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """``trainer_state.json``, that of a checkpoint, or of the last checkpoint in a run's folder: the file, its content.

    Raises:
        ValueError: not such a file.
        FileNotFoundError: there is none.
    """
    path = Path(path)
    file = _state_file(path) if path.is_dir() else path
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        history = state["log_history"]
        if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
            raise TypeError("log_history is not a list of entries")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file}: not the trainer_state.json of a run ({error!r})") from None
    return file, state


def recorded_settings(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the run's own callback was set to, by the names of its arguments; empty where the run had none."""
    recorded = (state.get("stateful_callbacks") or {}).get("RewardPlateauCallback")
    if isinstance(recorded, list):
        recorded = recorded[0] if recorded else None
    arguments = recorded.get("args") if isinstance(recorded, dict) else None
    return {name: value for name, value in (arguments or {}).items() if value is not None}


def saved_states(run: Path) -> list[tuple[int, Path]]:
    """Step and ``trainer_state.json`` of the checkpoints in a run's folder, ascending."""
    return sorted(
        (int(m[1]), file)
        for path in (run.iterdir() if run.is_dir() else ())
        if (m := re.fullmatch(r"checkpoint-(\d+)", path.name)) and (file := path / STATE_FILE).is_file()
    )


def _state_file(folder: Path) -> Path:
    if (folder / STATE_FILE).is_file():
        return folder / STATE_FILE
    found = saved_states(folder)
    if not found:
        raise FileNotFoundError(f"{folder}: neither {STATE_FILE} nor checkpoints with one")
    return found[-1][1]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(entry: Mapping[str, Any], key: str | None, where: str) -> float:
    value = entry.get(key) if key is not None else None
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: {key!r} must be a number, got {value!r}")
    return float(value) if math.isfinite(value) else math.nan
