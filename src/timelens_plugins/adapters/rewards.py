"""Rewards in the calling conventions of other trainers: the same parser and the same figures as our own trainer.

============  ===========================================================  ====================================
trainer       what it calls                                                here
============  ===========================================================  ====================================
ms-swift      an ``ORM``: ``reward(completions, **columns) -> list``       :func:`swift_orms`
verl          ``compute_score(data_source, solution_str, ground_truth,     :func:`compute_score`
              extra_info) -> {"score": …}``
EasyR1        ``f({"response": …, "ground_truth": …}) -> {"overall": …}``  :func:`easyr1_score`
TimeLens      ``f(prompts, completions, anno, **columns) -> list``         :func:`tiou_reward`
============  ===========================================================  ====================================

The target is a ``solution`` or ``ground_truth`` as :mod:`~timelens_plugins.adapters.truth` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from timelens_plugins.adapters.truth import read_truth
from timelens_plugins.rewards import REWARDS, Completion

__all__ = ["compute_score", "easyr1_score", "swift_orms", "tiou_reward"]

DEFAULT = {"temporal_iou": 1.0}


def swift_orms() -> dict[str, type]:
    """Reward classes of ms-swift by name, ``timelens_temporal_iou`` and so on, to be put into its ``orms``.

    A file for ``--external_plugins``::

        from swift.rewards import orms
        from timelens_plugins.adapters.rewards import swift_orms

        orms.update(swift_orms())

    Rows need a column ``solution``.
    """
    return {f"timelens_{name}": _swift_orm(name) for name in REWARDS}


def _swift_orm(name: str) -> type:
    def __init__(self: Any, args: Any = None, **options: Any) -> None:
        self.args = args

    def __call__(self: Any, completions: Sequence[Completion], solution: Sequence[Any], **columns: Any) -> list[float]:
        return _rewards(name, completions, solution)

    class_name = "TimeLens" + "".join(word.capitalize() for word in name.split("_"))
    # ms-swift logs a reward under the name of its class.
    return type(class_name, (), {"__init__": __init__, "__call__": __call__, "__doc__": REWARDS[name].__doc__})


def compute_score(
    data_source: str | None = None,
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    rewards: Mapping[str, float] = DEFAULT,
    **router: Any,
) -> dict[str, float]:
    """The ``compute_score`` of verl: ``score``, and each reward by its name.

    Settings of verl: ``reward.custom_reward_function.path=pkg://timelens_plugins.adapters.rewards``, ``name:
    compute_score``, ``reward_kwargs: {rewards: {temporal_iou: 1.0, format: 0.5}}``.

    Args:
        data_source, extra_info: not looked at.
        solution_str: what the model wrote.
        ground_truth: spans in seconds, and the query where it is known.
        rewards: weight of each reward by name; ``score`` is their weighted sum.
        router: where a reward model would be asked, which verl passes along.

    Raises:
        ValueError: an unknown reward, a weight that is no number, a ground truth without spans, another argument.
    """
    if unknown := sorted(router.keys() - {"reward_router_address", "reward_model_tokenizer"}):
        raise ValueError(f"compute_score has no setting {', '.join(unknown)}; it has rewards: {{name: weight}}")
    found = _each(rewards, solution_str, ground_truth)
    return {"score": _weighted(rewards, found), **found}


def easyr1_score(
    reward_input: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, rewards: Mapping[str, float] = DEFAULT
) -> dict[str, float] | list[dict[str, float]]:
    """A reward function of EasyR1, for ``reward_type`` ``sequential`` and ``batch``: ``overall``, and each by its name.

    Args:
        reward_input: ``response`` and ``ground_truth``, or a list of these.
        rewards: weight of each reward by name.

    Raises:
        ValueError: as :func:`compute_score`.
    """
    if not isinstance(reward_input, Mapping):
        return [_easyr1(one, rewards) for one in reward_input]
    return _easyr1(reward_input, rewards)


def _easyr1(one: Mapping[str, Any], rewards: Mapping[str, float]) -> dict[str, float]:
    found = _each(rewards, one["response"], one["ground_truth"])
    return {"overall": _weighted(rewards, found), **found}


def tiou_reward(
    prompts: Any = None,
    completions: Sequence[Completion] = (),
    anno: Sequence[Mapping[str, Any]] | None = None,
    **columns: Any,
) -> list[float]:
    """The temporal IoU, as TimeLens's training calls its rewards: rows of ``anno`` have ``span`` and ``query``.

    Raises:
        ValueError: no ``anno``, or a row without spans.
    """
    if anno is None:
        raise ValueError("tiou_reward needs anno: a row with span and query for each completion")
    return _rewards("temporal_iou", completions, anno)


def _rewards(name: str, completions: Sequence[Completion], targets: Sequence[Any]) -> list[float]:
    if len(completions) != len(targets):
        raise ValueError(f"{len(completions)} completions and {len(targets)} ground truths")
    truths = [read_truth(target) for target in targets]
    reward: Callable[..., list[float]] = REWARDS[name]
    queries = [truth.query for truth in truths]
    # Rewards take a query as unknown only for all rows at once.
    if any(query is None for query in queries):
        return [
            reward([c], spans=[t.spans], **({} if t.query is None else {"query": [t.query]}))[0]
            for c, t in zip(completions, truths, strict=True)
        ]
    return reward(completions, spans=[truth.spans for truth in truths], query=queries)


def _each(rewards: Mapping[str, float], text: str, target: Any) -> dict[str, float]:
    if unknown := sorted(rewards.keys() - REWARDS.keys()):
        raise ValueError(f"unknown rewards {', '.join(unknown)}; known are {', '.join(REWARDS)}")
    for name, weight in rewards.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ValueError(f"the weight of {name} must be a number, got {weight!r}")
    if not rewards:
        raise ValueError(f"no rewards; known are {', '.join(REWARDS)}")
    return {name: _rewards(name, [text], [target])[0] for name in rewards}


def _weighted(rewards: Mapping[str, float], found: Mapping[str, float]) -> float:
    return math.fsum(weight * found[name] for name, weight in rewards.items())
