"""What answers are rewarded for: rewards by name, or one's own as ``module:function``, and what goes with them."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from timelens_plugins.recipe.drawing import Drawing, OnlineDraws
from timelens_plugins.rewards import REWARD_RANGES, REWARDS
from timelens_plugins.training.dataset import COLUMNS

__all__ = ["RewardArguments", "own_reward", "reward_range", "warn_of_unearnable"]

logger = logging.getLogger(__name__)

_GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "times", *COLUMNS)
"""What is passed by name: TRL's own, the times that ``snap_spans`` adds, and the columns of the data set."""


@dataclass
class RewardArguments:
    """For TRL's ``TrlParser``; what cannot be imported or called is an error before a model is loaded."""

    rewards: list[str] = field(
        default_factory=lambda: ["temporal_iou"],
        metadata={
            "help": f"Their weighted sum counts (reward_weights). Known: {', '.join(REWARDS)}; or your own as "
            "module:function, importable from the configuration's folder or PYTHONPATH."
        },
    )

    def __post_init__(self) -> None:
        self.functions()

    def functions(self) -> list[Callable[..., Any]]:
        """The reward functions, in order.

        Raises:
            ValueError: an unknown name, or one's own function that cannot be imported or called as TRL calls it.
        """
        if unknown := sorted(name for name in self.rewards if ":" not in name and name not in REWARDS):
            raise ValueError(
                f"unknown rewards {', '.join(unknown)}; known: {', '.join(REWARDS)}, and your own as module:function"
            )
        if not self.rewards:
            raise ValueError("rewards is empty: without a reward there is nothing to train for")
        return [own_reward(name) if ":" in name else REWARDS[name] for name in self.rewards]


def own_reward(path: str) -> Callable[..., Any]:
    """Import ``module:function``, and see that it takes what TRL passes.

    Raises:
        ValueError: with the remedy.
    """
    module, _, name = path.partition(":")
    try:
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"reward {path}: cannot be imported ({type(error).__name__}: {error}). Write module:function of a module "
            "in the folder of the configuration, in the working folder or on PYTHONPATH"
        ) from error
    except Exception as error:  # what a user's module does when it is imported is not ours to list
        raise ValueError(f"reward {path}: importing its module failed ({type(error).__name__}: {error})") from error
    if not callable(function):
        raise ValueError(f"reward {path} is a {type(function).__name__}, not a function")
    try:
        inspect.signature(function).bind(**dict.fromkeys(_GIVEN))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"reward {path} cannot be called as rewards are ({error}): define it as (completions, **columns) -> "
            f"list[float | None], with what it reads by name: {', '.join(COLUMNS)}"
        ) from None
    return function


def reward_range(
    rewards: Sequence[str], weights: Sequence[float] | None = None, arguments: Drawing | None = None
) -> tuple[float, float]:
    """Bounds of what online difficulty learns from: the temporal IoU where it is a reward, else their weighted sum.

    Args:
        rewards: names in :data:`~timelens_plugins.rewards.REWARDS`, or paths of one's own.
        weights: of the rewards; None for 1 each.
        arguments: that the rewards have to fit.

    Raises:
        ValueError: another number of weights; online difficulty that starts from a file, which has IoUs, and would go
            on with rewards on another scale, or with rewards whose bounds are not known.
    """
    if weights is not None and len(weights) != len(rewards):
        raise ValueError(
            f"reward_weights has {len(weights)} numbers, and there are {len(rewards)} rewards "
            f"({', '.join(rewards)}): give one for each, in their order"
        )
    if "temporal_iou" in rewards:
        return 0.0, 1.0
    remedy = (
        "add temporal_iou to the rewards, with a weight of 0 in reward_weights where it is not to be trained for, or "
        "leave difficulty_file out"
    )
    if isinstance(arguments, OnlineDraws) and arguments.difficulty_file is not None:
        raise ValueError(
            f"difficulty: online with difficulty_file starts from IoUs, and would learn from {' + '.join(rewards)}, "
            f"which is on another scale: {remedy}"
        )
    own = [name for name in rewards if name not in REWARD_RANGES]
    if own and isinstance(arguments, OnlineDraws):
        raise ValueError(
            f"difficulty: online scales what it learns by its bounds, and those of {', '.join(own)} are not known: add "
            "temporal_iou to the rewards, with a weight of 0 in reward_weights where it is not to be trained for"
        )
    bounds = [
        sorted(weight * end for end in REWARD_RANGES.get(name, (0.0, 1.0)))
        for name, weight in zip(rewards, weights or [1.0] * len(rewards), strict=True)
    ]
    return sum(low for low, _ in bounds), sum(high for _, high in bounds)


def warn_of_unearnable(rewards: Sequence[str], prompt: str) -> None:
    """Say so where a reward asks for a form of answer that the prompt does not ask for."""
    if "format" in rewards and not ("<think>" in prompt and "<answer>" in prompt):
        logger.warning(
            "reward format pays for <think>…</think><answer>…</answer>, which the prompt does not ask for: hardly any "
            "answer will earn it. Set prompt: thinking, or leave the reward out"
        )
