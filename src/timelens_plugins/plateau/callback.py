"""Stops a run at its reward plateau and keeps the checkpoint from where the plateau began."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import SaveStrategy

from timelens_plugins.plateau.history import REWARD_KEY, SAMPLES_KEY, RewardLog, saved_states, spread_key_in
from timelens_plugins.plateau.rule import Decision, PlateauRule, PlateauSettings, suggested_patience

__all__ = ["RewardPlateauCallback", "samples_per_step"]

logger = logging.getLogger(__name__)


class RewardPlateauCallback(TrainerCallback, ExportableState):
    """Early stopping for any trainer that logs ``reward``, such as TRL's GRPO and RLOO.

    The test, and why it is safe under noise, is in :mod:`timelens_plugins.plateau.rule`: a one-sided equivalence test
    on the slope of a least-squares line (Student's t), so that a stop needs data that exclude an improvement rather
    than a lack of data that show one.

    At a stop, the first checkpoint from the plateau on is kept as ``best`` in the output folder (hard links, so it
    takes no space while the checkpoint itself exists), and becomes the state's ``best_model_checkpoint``. The decision
    goes to the log, into the last entry of ``log_history`` under ``"plateau"``, and into ``stateful_callbacks``, hence
    into the ``trainer_state.json`` of a last checkpoint that is saved right away.

    What the rule knows is what was logged, and each logged entry is given the number of prompts drawn so far
    (``"samples"``). A resumed run replays its log, so it decides as if it had not stopped, with another batch size,
    too, and without ``restore_callback_states_from_checkpoint``.

    Args:
        patience: see :class:`~timelens_plugins.plateau.rule.PlateauSettings`; default: by
            :func:`~timelens_plugins.plateau.rule.suggested_patience` from the planned steps, fixed when the run begins.
        min_steps, confidence: as there.
        reward_key: name of the mean reward in the log.
        spread_key: of the spread; default: ``reward_within_group_std``, or else TRL's ``reward_std``, which is of the
            whole batch: the one of them that the first logged entry with either has.
        decision: of a run that was stopped; filled in by the callback.
    """

    def __init__(
        self,
        patience: int | None = None,
        min_steps: int = 50,
        confidence: float = 0.995,
        reward_key: str = REWARD_KEY,
        spread_key: str | None = None,
    ) -> None:
        PlateauSettings(1 if patience is None else patience, min_steps, confidence)  # complains now, not hours later
        self.patience, self.min_steps, self.confidence = patience, min_steps, confidence
        self.reward_key, self.spread_key = reward_key, spread_key
        self.decision: dict[str, Any] | None = None
        self._rule: PlateauRule | None = None
        self._step = 0
        self._per_step = 1.0
        self._absences: Counter[str] = Counter()
        self._measured = False

    def state(self) -> dict[str, Any]:
        """For ``trainer_state.json``: the arguments, patience as it was fixed, and the decision."""
        arguments = {
            name: getattr(self, name) for name in ("patience", "min_steps", "confidence", "reward_key", "spread_key")
        }
        return {"args": arguments, "attributes": {"decision": self.decision}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fix what was left open, and catch up with the log of a resumed run."""
        self._per_step = samples_per_step(args)
        if self.patience is None:
            self.patience = _recorded_patience(state) or suggested_patience(state.max_steps * self._per_step)
        self._rule = PlateauRule(PlateauSettings(self.patience, self.min_steps, self.confidence))
        self._step, self.decision = 0, None
        logger.info(
            "plateau rule: patience %d samples (%.1f steps), min_steps %d",
            self.patience,
            self.patience / self._per_step,
            self.min_steps,
        )
        self._warn_of_rotation(args, state)
        if any(self.reward_key in entry for entry in state.log_history):
            log = RewardLog.from_history(
                state.log_history,
                reward_key=self.reward_key,
                spread_key=self.spread_key,
                samples_per_step=self._per_step,
            )
            self.spread_key = log.spread_key
            self._measured = any(self.spread_key in entry for entry in state.log_history)
            for entry in log:
                decision = self._rule.update(*entry)
                if decision is not None and self.decision is None:
                    self.decision = decision.to_dict()
            self._step = log.steps[-1]
        if self.decision is not None:
            logger.warning(
                "this run was stopped already: %s. Remove the early stopping, or raise its patience, to train on",
                Decision.from_dict(self.decision).summary(),
            )
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Take what was logged; stop where the rule says so.

        Raises:
            ValueError: a run of ``min_steps`` logged nothing under ``reward_key``, or under the ``spread_key`` it was
                given.
        """
        if logs is None or self._rule is None or self.decision is not None:
            return
        if self.reward_key not in logs:
            self._check_unrewarded(state, logs)
            return
        if state.global_step <= self._step:
            return
        if self.spread_key is None:
            self.spread_key = spread_key_in(logs)
        self._check_unmeasured(state, logs)
        samples = self._rule.samples + (state.global_step - self._step) * self._per_step
        self._step = state.global_step
        entry: dict[str, Any] = state.log_history[-1] if state.log_history else {}
        entry[SAMPLES_KEY] = samples
        spread = logs.get(self.spread_key) if self.spread_key is not None else None
        decision = self._rule.update(state.global_step, samples, logs[self.reward_key], spread)
        if decision is not None:
            self.decision = decision.to_dict()
            entry["plateau"] = self.decision
            self._stop(decision, args, state, control)

    def _check_unrewarded(self, state: TrainerState, logs: dict[str, Any]) -> None:
        if "loss" in logs and not self._step:
            self._absent("reward_key", repr(self.reward_key), "or use a trainer with rewards", state, logs)

    def _check_unmeasured(self, state: TrainerState, logs: dict[str, Any]) -> None:
        self._measured = self._measured or self.spread_key in logs
        if not self._measured and self.spread_key is not None:
            self._absent("spread_key", f"the spread {self.spread_key!r}", "or leave it out", state, logs)

    def _absent(self, setting: str, watched: str, remedy: str, state: TrainerState, logs: dict[str, Any]) -> None:
        self._absences[setting] += 1
        if state.global_step > self.min_steps and self._absences[setting] > 10:
            raise ValueError(
                f"early stopping watches {watched}, which this trainer does not log; it logs "
                f"{', '.join(sorted(logs))}. Set {setting}, {remedy}"
            )

    def _stop(self, decision: Decision, args: TrainingArguments, state: TrainerState, control: TrainerControl) -> None:
        control.should_training_stop = True
        control.should_save = True
        logger.warning("stopping: %s", decision.summary())
        output = _output(args)
        # What an earlier run left here may be of later steps; one of this step has yet to be written.
        saved = (file.parent for step, file in saved_states(output) if decision.start_step <= step < state.global_step)
        chosen = next(saved, None)
        if chosen is None:
            logger.warning("no checkpoint was saved since the plateau began; the last one, saved now, is the best")
            chosen = output / f"checkpoint-{state.global_step}"
            self._link_later = True
        elif state.is_world_process_zero:
            _link_tree(chosen, output / "best")
            start = f"the nearest saved one from step {decision.start_step} on, where the plateau began"
            logger.warning("kept as %s: %s, %s", output / "best", chosen, start)
        if args.metric_for_best_model is None:
            state.best_model_checkpoint = str(chosen)
            state.best_global_step = int(chosen.name.rpartition("-")[2])

    _link_later = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The last checkpoint is the best one where no other was saved since the plateau began."""
        if self._link_later and state.is_world_process_zero:
            output = _output(args)
            _link_tree(output / f"checkpoint-{state.global_step}", output / "best")
        self._link_later = False

    def _warn_of_rotation(self, args: TrainingArguments, state: TrainerState) -> None:
        every = state.save_steps  # a share of the run, as the arguments may have it, is steps here
        if not args.save_total_limit or self.patience is None or args.save_strategy != SaveStrategy.STEPS or every <= 0:
            return
        needed = 6 * self.patience / self._per_step / every
        if args.save_total_limit < needed:
            logger.warning(
                "save_total_limit=%d keeps %d steps, and a plateau is known about %d steps after it began: raise it to "
                "%d, or the checkpoint from its start will be gone and a later one kept as best",
                args.save_total_limit,
                args.save_total_limit * every,
                round(needed * every),
                int(needed) + 1,
            )


def samples_per_step(args: TrainingArguments) -> float:
    """Prompts drawn for one optimizer step, on all processes; with several updates on each, the share of one."""
    rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    generations = getattr(args, "num_generations", None) or 1
    iterations = getattr(args, "num_iterations", None) or 1
    return float(rows / generations / iterations)


def _output(args: TrainingArguments) -> Path:
    return Path(args.output_dir or ".")


def _recorded_patience(state: TrainerState) -> int | None:
    callbacks: Any = state.stateful_callbacks or {}
    recorded = callbacks.get(RewardPlateauCallback.__name__)
    if isinstance(recorded, list):
        recorded = recorded[0]
    return recorded["args"]["patience"] if isinstance(recorded, dict) else None


def _link_tree(source: Path, target: Path) -> None:
    """``target`` becomes a copy of ``source`` by hard links, by real copies where the file system has no links."""
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, copy_function=_link)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
