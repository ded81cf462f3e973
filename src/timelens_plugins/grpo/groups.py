"""A prompt with its completions, and training batches in groups instead of rows.

Shapes: N groups, G completions each, B = N * G rows, in order of their groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from timelens_plugins.shared_prefix import Prompt

__all__ = ["GROUPS", "Group", "by_group", "by_row", "split_groups"]

GROUPS = "video_groups"
"""Key of a training batch under which its groups travel."""


@dataclass(frozen=True, eq=False)
class Group:
    """What G rows of a batch have in common.

    Attributes:
        row: the row of the data set: ``prompt`` and the other columns.
        prompt: ids and vision, or a stand-in of black frames where the video could not be read.
        times: seconds: the times the model is told; None for a stand-in.
        error: why the video could not be read; such a group has no weight in the loss.
    """

    row: Mapping[str, Any]
    prompt: Prompt
    times: tuple[float, ...] | None = None
    error: str | None = None

    @property
    def kept(self) -> bool:
        """Whether the group counts."""
        return self.error is None


def split_groups(rows: Sequence[Mapping[str, Any]], size: int) -> list[Sequence[Mapping[str, Any]]]:
    """Rows as they come from the sampler -> groups of ``size`` equal rows.

    Raises:
        ValueError: rows that are not whole groups.
    """
    groups = [rows[i : i + size] for i in range(0, len(rows), size)]
    for group in groups:
        if len(group) != size or any(row["prompt"] != group[0]["prompt"] for row in group):
            raise ValueError(f"a batch of {len(rows)} rows does not consist of groups of {size} equal prompts")
    return groups


def by_group(batch: Mapping[str, Any], groups: int) -> dict[str, Any]:
    """Tensors ``(B, …)`` as ``(N, G, …)``: what shuffles and splits the first dimension then keeps groups whole."""
    return {
        key: value.unflatten(0, (groups, -1)) if isinstance(value, Tensor) and value.ndim else value
        for key, value in batch.items()
    }


def by_row(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`by_group`."""
    return {
        key: value.flatten(0, 1) if isinstance(value, Tensor) and value.ndim else value for key, value in batch.items()
    }
