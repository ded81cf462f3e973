"""Reward functions whose values are looked at: a number that is not finite is a fault of its function, and is named.

TRL reads None as "no reward" and turns it into NaN, so a NaN that a function computes would count as that, and an
infinite reward makes every advantage of its group NaN or infinite without a word.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

__all__ = ["RewardError", "checked", "original"]


class RewardError(ValueError):
    """A reward function gave something that is no reward."""


def checked(function: Any) -> Any:
    """The reward function, whose values are checked; reward models and their names stay as they are.

    Raises:
        RewardError: at the first call that gives another value than None or a finite number; names function and row.
    """
    if isinstance(function, str | nn.Module):
        return function
    name = _name(function)
    if _is_async(function):

        async def later(*args: Any, **columns: Any) -> Any:
            return _look_at(await function(*args, **columns), name, columns)

        return _named_like(later, function)

    def now(*args: Any, **columns: Any) -> Any:
        return _look_at(function(*args, **columns), name, columns)

    return _named_like(now, function)


def original(function: Any) -> Any:
    """The function behind :func:`checked` and ``functools.partial``."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return function


def _named_like(wrapper: Any, function: Callable[..., Any]) -> Any:
    wrapper.__name__ = wrapper.__qualname__ = _name(function)
    wrapper.__wrapped__ = function
    return wrapper


def _name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _is_async(function: Any) -> bool:
    """Whether calling it gives a coroutine; an object says so on its ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)


def _look_at(rewards: Sequence[Any], name: str, columns: Mapping[str, Any]) -> Sequence[Any]:
    for i, value in enumerate(rewards):
        if value is not None and not _finite(value):
            raise RewardError(
                f"reward function {name} gave {value!r} for {_row(i, columns)}: a reward is a finite number, or None "
                "where the function has none"
            )
    return rewards


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _row(i: int, columns: Mapping[str, Any]) -> str:
    def column(name: str) -> Any:
        values = columns.get(name)
        return values[i] if isinstance(values, Sequence) and i < len(values) else None

    row = column("id") or column("query") or f"row {i} of the batch"
    return f"{row} (completion {column('completions')!r})"
