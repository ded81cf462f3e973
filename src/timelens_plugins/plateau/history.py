"""Rewards as a trainer logged them, in ``trainer_state.json`` or a live ``log_history``, and the rule on them."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timelens_plugins.plateau.rule import Decision, PlateauRule, PlateauSettings, suggested_patience
from timelens_plugins.results.json_files import read_json

__all__ = [
    "REWARD_KEY",
    "SAMPLES_KEY",
    "SPREAD_KEYS",
    "STATE_FILE",
    "Replay",
    "RewardLog",
    "SamplesUnknown",
    "read_reward_log",
    "read_trainer_state",
    "recorded_decision",
    "recorded_settings",
    "replay_run",
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

RUN_STATE_FILE = "timelens_state.json"
"""Where this package's GRPO trainer keeps how far it is in its data, in each checkpoint."""

RULE_SETTINGS = ("patience", "min_steps", "confidence")
WATCHED = ("reward_key", "spread_key")


class SamplesUnknown(ValueError):
    """The log does not count samples, and nothing else says how many prompts a step drew."""


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

        What was logged at step 0, before any prompt was drawn for an update, is no part of the training.

        Raises:
            ValueError: no rewards, values that are not numbers, steps out of order.
            SamplesUnknown: samples that are not known.
        """
        entries = [(i, entry) for i, entry in enumerate(history, 1) if reward_key in entry and entry.get("step") != 0]
        if not entries:
            keys = sorted({key for entry in history for key in entry})
            raise ValueError(
                f"{name}: no entry of a step has {reward_key!r}; logged are {', '.join(keys) or 'no values at all'}. "
                "Name the right key, or check that this is a run with rewards"
            )
        if spread_key is None:
            spread_key = next((key for _, entry in entries if (key := spread_key_in(entry))), None)
        known = all(SAMPLES_KEY in entry for _, entry in entries)
        if not known and samples_per_step is None:
            raise SamplesUnknown(
                f"{name}: the log does not count samples; say how many prompts each optimizer step drew "
                "(samples_per_step), as patience is counted in them"
            )
        rows: list[tuple[int, float, float, float]] = []
        for number, entry in entries:
            where = f"{name}, entry {number}"
            step = entry.get("step")
            if isinstance(step, bool) or not isinstance(step, int) or step < 0:
                raise ValueError(f"{where}: 'step' must be a whole number from 0 on, got {step!r:.80}")
            samples = _number(entry, SAMPLES_KEY, where) if known else step * float(samples_per_step or 0)
            if not math.isfinite(samples):
                raise ValueError(f"{where}: {SAMPLES_KEY!r} must be a number, got {entry[SAMPLES_KEY]!r}")
            row = (step, samples, _number(entry, reward_key, where), _number(entry, spread_key, where))
            if rows and (step <= rows[-1][0] or samples <= rows[-1][1]):
                if row[:2] == rows[-1][:2]:
                    continue  # the last step is logged again at the end of training
                raise ValueError(f"{where}: step {step} with {samples:g} samples after step {rows[-1][0]}")
            rows.append(row)
        steps, drawn, rewards, spreads = zip(*rows, strict=True)
        if all(map(math.isnan, rewards)):
            raise ValueError(
                f"{name}: none of the {len(rows)} values of {reward_key!r} is a finite number, so there is nothing to "
                "watch: look at the run's reward functions, or name another key"
            )
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
        options: of :meth:`RewardLog.from_history`; ``samples_per_step`` is taken from the checkpoint where this
            package's trainer has left it there.

    Raises:
        ValueError: not such a file, a ``spread_key`` that no entry has, or ``samples_per_step`` of a log that counts.
        FileNotFoundError: there is none.
    """
    file, state = read_trainer_state(path)
    given = options.pop("samples_per_step", None)
    try:
        log = RewardLog.from_history(state["log_history"], name=str(file), **options)
    except SamplesUnknown:
        drawn = _samples_per_step(file, state) if given is None else given
        if drawn is None:
            raise
        log = RewardLog.from_history(state["log_history"], name=str(file), samples_per_step=drawn, **options)
    else:
        if given is not None:
            raise ValueError(f"{file}: counts samples itself; leave samples_per_step out, it has no effect")
    if log.spread_key is not None and not any(log.spread_key in entry for entry in state["log_history"]):
        raise ValueError(
            f"{file}: no entry has the spread {log.spread_key!r}; name the right key, or none (spread_key)"
        )
    return log, state


@dataclass(frozen=True)
class Replay:
    """The rule on a finished run: its rewards, the settings (some recorded, some given), and the first stop."""

    log: RewardLog
    reward_key: str
    settings: PlateauSettings
    decision: Decision | None


def replay_run(path: str | Path, *, samples_per_step: float | None = None, **given: Any) -> Replay:
    """What the rule says of a finished run.

    Args:
        path: as of :func:`read_reward_log`.
        samples_per_step: for logs that do not count samples, and checkpoints that do not say it.
        given: settings of the rule, ``reward_key`` and ``spread_key``, instead of those that the run recorded; without
            a patience, that of :func:`~timelens_plugins.plateau.suggested_patience`.

    Raises:
        ValueError: not such a file, or settings that are none.
        SamplesUnknown: the samples are not known.
        FileNotFoundError: there is none.
    """
    file, state = read_trainer_state(path)
    recorded = recorded_settings(state, str(file))
    values = recorded | {setting: value for setting, value in given.items() if value is not None}
    keys = {"reward_key": values.get("reward_key", REWARD_KEY), "spread_key": values.get("spread_key")}
    log, state = read_reward_log(path, samples_per_step=samples_per_step, **keys)
    settings = {name: values[name] for name in RULE_SETTINGS if name in values}
    if "patience" not in settings:
        planned: Any = state.get("max_steps")
        steps = max(planned if _is_finite(planned) else 0, log.steps[-1])
        settings["patience"] = suggested_patience(steps * log.samples[-1] / log.steps[-1])
    chosen = PlateauSettings(**settings)
    return Replay(log, keys["reward_key"], chosen, log.replay(chosen))


def _samples_per_step(file: Path, state: Mapping[str, Any]) -> float | None:
    """Prompts an optimizer step drew on average, where this package's trainer saved the checkpoint; None elsewhere.

    ``generation`` batches of prompts are used up, each by ``steps_per_generation * num_iterations`` micro-steps, and of
    the next one ``used`` micro-steps were taken.
    """
    beside, steps = file.with_name(RUN_STATE_FILE), state.get("global_step")
    if not beside.is_file() or not isinstance(steps, int) or steps < 1:
        return None
    try:
        saved = read_json(beside)
        if "layout" not in saved:  # of supervised fine-tuning
            return None
        layout = {name: int(value) for name, value in saved["layout"].items()}
        each = layout["steps_per_generation"] * layout["num_iterations"]
        taken = saved["generation"] * each + saved["used"]
        rows = layout["processes"] * layout["per_device_train_batch_size"] * layout["steps_per_generation"]
        return float(rows / layout["num_generations"] * taken / each / steps)
    except (TypeError, KeyError, AttributeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{beside}: not the state of a run ({error!r:.200})") from None


def read_trainer_state(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """``trainer_state.json``, that of a checkpoint, or of the last checkpoint in a run's folder: the file, its content.

    Raises:
        ValueError: not such a file.
        FileNotFoundError: there is none.
    """
    path = Path(path)
    file = _state_file(path) if path.is_dir() else path
    state = read_json(file)
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise ValueError(f"{file}: not the trainer_state.json of a run: it has no list 'log_history'")
    for number, entry in enumerate(history, 1):
        if not isinstance(entry, dict):
            raise ValueError(f"{file}, entry {number}: expected an object of logged values, got {entry!r:.80}")
        for name, value in entry.items():
            if isinstance(value, int) and abs(value) > 2**63:
                raise ValueError(f"{file}, entry {number}: {name!r} is a whole number of {len(str(value))} digits")
    return file, state


def _of_callback(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the run's own callback has recorded; empty where the run had none."""
    recorded = state.get("stateful_callbacks")
    for step in ("RewardPlateauCallback", name):
        recorded = recorded.get(step) if isinstance(recorded, dict) else None
        if isinstance(recorded, list):
            recorded = recorded[0] if recorded else None
    return recorded if isinstance(recorded, dict) else {}


def recorded_settings(state: Mapping[str, Any], name: str = STATE_FILE) -> dict[str, Any]:
    """What the run's own callback was set to, by the names of its arguments; empty where the run had none.

    Raises:
        ValueError: it is not what this package records; ``name`` is what messages call the file.
    """
    recorded = {k: v for k, v in _of_callback(state, "args").items() if v is not None}
    for setting, value in recorded.items():
        if (setting in RULE_SETTINGS and not _is_finite(value)) or (setting in WATCHED and not isinstance(value, str)):
            raise ValueError(f"{name}: the recorded setting {setting!r} of the plateau is {value!r:.80}")
    return recorded


def recorded_decision(state: Mapping[str, Any], name: str = STATE_FILE) -> Decision | None:
    """The decision that the run recorded.

    Raises:
        ValueError: as :func:`recorded_settings`.
    """
    logged = (entry["plateau"] for entry in state["log_history"] if entry.get("plateau"))
    recorded = next(logged, None) or _of_callback(state, "attributes").get("decision")
    if not recorded:
        return None
    try:
        decision = Decision.from_dict(recorded)
        decision.summary()  # fails where a figure is none
    except (TypeError, AttributeError, ValueError) as error:
        said = f"{name}: the recorded plateau is not one of this package's ({error}): {recorded!r:.200}"
        raise ValueError(said) from None
    return decision


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
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _number(entry: Mapping[str, Any], key: str | None, where: str) -> float:
    value = entry.get(key) if key is not None else None
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}: {key!r} must be a number, got {value!r}")
    return float(value) if math.isfinite(value) else math.nan
