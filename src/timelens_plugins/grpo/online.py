"""Online difficulty in the training loop: what its rewards teach, which prompts come next, and both in checkpoints."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.atomic import write_whole
from timelens_plugins.difficulty import OnlineDifficulty
from timelens_plugins.difficulty.sampler import DifficultySampler
from timelens_plugins.grpo.checked_rewards import original
from timelens_plugins.rewards import temporal_iou_reward

__all__ = ["DIFFICULTY_FILE", "OnlineDraws"]

DIFFICULTY_FILE = "difficulty.json"
"""In a checkpoint: the estimates, and the prompts that were drawn ahead."""

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]


class OnlineDraws:
    """An :class:`~timelens_plugins.difficulty.OnlineDifficulty` and the sampler that draws by it.

    Difficulty is the IoU of answers: where :func:`~timelens_plugins.rewards.temporal_iou_reward` is one of the reward
    functions, at whatever weight, its values are what is learned from. Else it is the weighted sum of the rewards,
    scaled by the estimates' ``reward_range``.

    Args:
        difficulty: the estimates, of the rows of the data set in their order.
        dataset: these rows, with a column ``id``.
        reward_funcs: of the trainer.
        prompts: of a generation batch, on all processes.
        seed: of the draws.
        videos, queries_per_video, part: as of :class:`~timelens_plugins.difficulty.sampler.DifficultySampler`.

    Raises:
        ValueError: estimates of another data set, or a ``reward_range`` that would have no effect.
    """

    def __init__(
        self,
        difficulty: OnlineDifficulty,
        dataset: Any,
        reward_funcs: Sequence[Any],
        *,
        prompts: int,
        seed: int,
        videos: Sequence[Hashable] | None = None,
        queries_per_video: int = 1,
        part: int | None = None,
    ) -> None:
        if "id" not in dataset.column_names:
            raise ValueError("online difficulty needs a column 'id' that names each row's moment")
        if tuple(dataset["id"]) != difficulty.ids:
            raise ValueError(
                f"difficulty was made for {len(difficulty.ids)} moments, train_dataset has {len(dataset)}, and they "
                "must be the same in the same order: OnlineDifficulty(train_dataset['id'])"
            )
        self.difficulty = difficulty
        self._rows = {name: i for i, name in enumerate(difficulty.ids)}
        self.column = next((i for i, function in enumerate(reward_funcs) if _is_temporal_iou(function)), None)
        if self.column is not None and difficulty.reward_range != (0.0, 1.0):
            raise ValueError(
                f"reward_range={difficulty.reward_range} has no effect: temporal_iou is one of the rewards, and its "
                "values are the difficulty. Leave reward_range out"
            )
        if self.column is None and difficulty.has_prior:
            logger.warning(
                "online difficulty starts from estimates, which are IoUs, and goes on with the rewards, scaled by "
                "reward_range: unless these are IoUs, too, the two are not comparable. Add temporal_iou_reward to the "
                "reward functions, with a weight of 0 where it is not to be trained for"
            )
        self.sampler = DifficultySampler(
            difficulty.weights,
            len(difficulty.ids),
            prompts=prompts,
            seed=seed,
            videos=videos,
            queries_per_video=queries_per_video,
            part=part,
        )

    def order(self, epoch: int) -> Iterator[int]:
        """An epoch's rows, a generation batch at a time: a ``PromptOrder``."""
        return self.sampler.order(epoch)

    def update(self, moment_ids: Sequence[str], rewards: Array, weights: Array) -> dict[str, float]:
        """Learn from a generation batch.

        Args:
            moment_ids: of all processes' completions, shape ``(b,)``.
            rewards: theirs by reward function, shape ``(b, functions)``; NaN where one could not be scored.
            weights: of the functions, shape ``(functions,)``.

        Returns:
            For the log: the IoU that was expected of these prompts, the mean estimate over all, and how many prompts
            equally likely would be as hard to guess as the next one (the exponential of the weights' entropy).
        """
        before = self.difficulty.difficulty().mean
        drawn = [self._rows[name] for name in dict.fromkeys(moment_ids)]
        if self.column is not None:
            values = rewards[:, self.column]
        else:
            values = np.where(np.isnan(rewards).all(1), np.nan, np.nansum(rewards * weights, axis=1))
        self.difficulty.update(moment_ids, values)
        return {
            "difficulty/expected": float(before[drawn].mean()),
            "difficulty/mean": float(self.difficulty.difficulty().mean.mean()),
            "difficulty/effective_prompts": _effective(self.difficulty.weights()),
        }

    def save(self, folder: Path) -> None:
        """Write the state into a checkpoint, whole or not at all."""
        state = {"difficulty": self.difficulty.state_dict(), "sampler": self.sampler.state_dict()}
        write_whole(folder / DIFFICULTY_FILE, json.dumps(state))

    def load(self, folder: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it has no such state, or one of another data set or other settings.
        """
        path = folder / DIFFICULTY_FILE
        if not path.is_file():
            raise ValueError(
                f"{folder} has no {DIFFICULTY_FILE}: it was saved by a run without online difficulty. Resume without "
                "it, or start over in another output_dir"
            )
        try:
            state = json.loads(path.read_text())
            self.difficulty.load_state_dict(state["difficulty"])
            self.sampler.load_state_dict(state["sampler"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error


def _is_temporal_iou(function: Any) -> bool:
    return original(function) is temporal_iou_reward


def _effective(weights: Array) -> float:
    total = float(weights.sum())
    if not total > 0:
        return float(len(weights))
    shares = weights[weights > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))
