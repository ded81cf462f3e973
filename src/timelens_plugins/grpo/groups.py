"""A prompt with its completions, which groups are of one video, and training batches in units instead of rows.

Shapes: N groups, G completions each, B = N * G rows, in order of their groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from timelens_plugins.clips import LoadedClip
from timelens_plugins.shared_prefix import KeptPrefix, Prompt, share_prompt

__all__ = [
    "GROUPS",
    "Group",
    "by_row",
    "by_unit",
    "by_video",
    "groups_of",
    "split_groups",
    "with_groups",
    "with_trunks",
]

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
        clip: the frames, until the completions are there; None for a stand-in.
        trunk: what its prompt shares with those of other groups, which have the same object; None where it is computed
            by itself.
        prefix: what was kept of its prefill to be trained on, and may be used up; that of all groups with its trunk.
    """

    row: Mapping[str, Any]
    prompt: Prompt
    times: tuple[float, ...] | None = None
    error: str | None = None
    clip: LoadedClip | None = None
    trunk: Prompt | None = None
    prefix: KeptPrefix | None = None

    @property
    def query(self) -> Tensor:
        """What follows the trunk, token ids of shape ``(n,)``."""
        return self.prompt.input_ids[0 if self.trunk is None else len(self.trunk) :]

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


def with_trunks(groups: Sequence[Group]) -> list[Group]:
    """The groups; those of one loaded clip, whose prompts have its vision tensors, with what their prompts share."""
    of_clip: dict[tuple[int, ...], list[int]] = {}
    for i, group in enumerate(groups):
        of_clip.setdefault(tuple(map(id, group.prompt.vision.values())), []).append(i)
    found = list(groups)
    for members in of_clip.values():
        if len(members) > 1:
            trunk, _ = share_prompt([groups[i].prompt for i in members])
            for i in members:
                found[i] = replace(groups[i], trunk=trunk)
    return found


def by_video(groups: Sequence[Group]) -> list[list[int]]:
    """Indices of the groups with one trunk, in order of their first ones; a group without is by itself."""
    together: dict[int, list[int]] = {}
    for i, group in enumerate(groups):
        together.setdefault(id(group if group.trunk is None else group.trunk), []).append(i)
    return list(together.values())


def by_unit(batch: Mapping[str, Any], groups: Sequence[Group], units: int) -> dict[str, Any]:
    """Tensors ``(B, …)`` as ``(units, B / units, …)``, with the groups of each unit under :data:`GROUPS`.

    What shuffles and splits the first dimension then keeps units whole: groups, or several of them.
    """
    rows = {
        key: value.unflatten(0, (units, -1)) if isinstance(value, Tensor) and value.ndim else value
        for key, value in batch.items()
    }
    return with_groups(rows, groups)


def with_groups(batch: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """A batch of units with the groups of each under :data:`GROUPS`."""
    units = next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim)
    size = len(groups) // units
    return dict(batch) | {GROUPS: [groups[i : i + size] for i in range(0, len(groups), size)]}


def groups_of(batch: Mapping[str, Any]) -> list[Group]:
    """The groups of a batch of units."""
    return [group for unit in batch[GROUPS] for group in unit]


def by_row(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`by_unit`, with the groups one by one."""
    rows = {
        key: value.flatten(0, 1) if isinstance(value, Tensor) and value.ndim else value for key, value in batch.items()
    }
    return rows | {GROUPS: groups_of(batch)}
