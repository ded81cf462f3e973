"""A generation batch's rewards, looked at once: faults, what is logged, and what online difficulty learns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback

from timelens_plugins.grpo import statistics
from timelens_plugins.grpo.checked_rewards import RewardError
from timelens_plugins.grpo.groups import Group, by_video
from timelens_plugins.grpo.online import OnlineDraws
from timelens_plugins.rewards import read_completions

__all__ = ["RewardLog", "Speed"]


class RewardLog:
    """Called on all processes with the rewards of all.

    Args:
        trainer: whose rewards these are.
        online: learns from those of training; None for no online difficulty.

    Attributes:
        prompts: of training, since :class:`Speed` set it to 0.
    """

    def __init__(self, trainer: Any, online: OnlineDraws | None) -> None:
        self._trainer, self._online = trainer, online
        self.prompts = 0

    def completions(self, ids: Sequence[Sequence[int]]) -> list[list[dict[str, str]]]:
        """Completions as rewards read them, in TRL's form: the whole answer, also where the prompt holds its beginning.

        TRL's own lack a ``<think>`` that the chat template wrote: a thought that breaks off would read as an answer.
        """
        texts = self._trainer.processing_class.answer_texts(ids)
        return [[{"role": "assistant", "content": text}] for text in texts]

    def look(
        self,
        rewards: Tensor,
        inputs: Sequence[dict[str, Any]],
        completions: Sequence[Any],
        completion_tokens: int,
        groups: Sequence[Group],
    ) -> dict[str, float]:
        """Metrics of a generation batch; columns go to the trainer's table of completions.

        Args:
            rewards: of all processes by function, shape ``(b, functions)``; those of skipped groups become NaN.
            inputs, completions: of this process, B rows.
            completion_tokens: of this process.
            groups: of this process's rows, in order.

        Raises:
            RewardError: a reward model gave what is no number.
        """
        trainer, accelerator = self._trainer, self._trainer.accelerator
        self._check_reward_models(rewards, inputs)
        generations = len(inputs) // len(groups)
        queries = [row["query"] for row in inputs] if "query" in inputs[0] else None
        answers = read_completions(completions, queries)
        trainer._log_completion_extra("spans", [statistics.format_spans(a.spans) for a in answers])
        trainer._log_completion_extra("status", [str(a.status) for a in answers])
        trainer._log_completion_extra("target", [statistics.format_spans(row.get("spans") or []) for row in inputs])
        device = rewards.device
        kept = torch.tensor([g.kept for g in groups for _ in range(generations)], device=device)
        failures = torch.tensor([statistics.failure(a) for a in answers], device=device)
        kept, failures = accelerator.gather(kept), accelerator.gather(failures)
        rewards[~kept] = torch.nan
        weights = trainer.reward_weights.to(device)
        totals = (rewards * weights).nansum(dim=1)
        totals[rewards.isnan().all(dim=1)] = torch.nan  # as TRL counts what no reward function could score
        metrics: dict[str, float] = {}
        if trainer.model.training:
            self.prompts += len(kept) // generations
            if self._online is not None:
                # All processes learn from all rewards, so that they go on drawing the same prompts.
                ids = gather_object([row["id"] for row in inputs])
                metrics |= self._online.update(ids, rewards.double().cpu().numpy(), weights.double().cpu().numpy())
        metrics |= statistics.group_statistics(totals, failures, kept, generations)
        tokens = torch.tensor(statistics.sharing(groups, completion_tokens, generations), device=device)
        plain, saved = accelerator.gather(tokens).view(-1, 2).sum(0).tolist()
        if trainer.args.shares_videos:
            read = [group for group in groups if group.kept]
            counts = torch.tensor([len(read), len(by_video(read))], device=device)
            prompts, videos = accelerator.gather(counts).view(-1, 2).sum(0).tolist()
            metrics["queries_per_video"] = prompts / max(videos, 1)
        if trainer.args.share_prefix:
            metrics |= {"sharing/saved_tokens": float(saved), "sharing/saved_share": saved / plain}
        if trainer.args.on_bad_video == "skip":
            metrics["videos/skipped"] = float(len(set(gather_object(list(trainer.prompts.clips.skipped)))))
        else:
            metrics.pop("videos/skipped_share", None)
        return metrics

    def _check_reward_models(self, rewards: Tensor, inputs: Sequence[dict[str, Any]]) -> None:
        """Functions are checked where they are called (``checked_rewards``); reward models only here."""
        functions, names = self._trainer.reward_funcs, self._trainer.reward_func_names
        models = torch.tensor([isinstance(f, nn.Module) for f in functions], device=rewards.device)
        faults = (~rewards.isfinite() & models).nonzero()
        if len(faults):  # the same on every process
            row, column = faults[0].tolist()
            rows = gather_object([str(entry.get("id", "a row without id")) for entry in inputs])
            raise RewardError(f"reward model {names[column]} gave {float(rewards[row, column])} for {rows[row]}")


class Speed(TrainerCallback):
    """``prompts_per_second`` of training since the last log, decoding and waiting included."""

    def __init__(self, log: RewardLog, metrics: dict[str, list[float]]) -> None:
        self._log, self._metrics = log, metrics
        self._since = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_log and self._log.prompts:
            now = time.perf_counter()
            self._metrics["prompts_per_second"].append(self._log.prompts / (now - self._since))
            self._log.prompts, self._since = 0, now

    on_epoch_end = on_step_end
