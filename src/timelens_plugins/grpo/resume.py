"""What a checkpoint needs besides what transformers saves, for a run that continues as if it had not stopped.

transformers restores weights, optimizer, schedule, random numbers and the place in the data. TRL keeps completions
for several steps (``steps_per_generation``, ``num_iterations``) and counts micro-steps, and saves neither. Beside
them lie here::

    checkpoint-N/rollouts-<process>.safetensors    completions that are not used up, and the prompts they belong to
    checkpoint-N/difficulty.json                   online difficulty, where it is used (see grpo/online.py)
    checkpoint-N/timelens_state.json               the count; written last, so a checkpoint with it is complete
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from timelens_plugins.grpo.groups import GROUPS, Group
from timelens_plugins.training.checkpoints import STATE_FILE, read_state

__all__ = ["RunState", "SavedGroup", "load_rollouts", "rollouts_file", "save_rollouts"]

_FORMAT = 1


@dataclass
class RunState:
    """Where a run is.

    Attributes:
        generation: generation batches begun so far.
        used: micro-steps that were taken of the last one; 0 where it is used up.
        layout: settings on which the kept completions depend, by their names in the config.
        skipped: videos that could not be read, and why.
        metrics: values that wait for the next log, by name. With ``logging_steps`` above 1, the first log after a
            resume then covers all steps since the one before, as it would have; its loss alone is since the resume.
        data, model: what the run was started from, see :class:`~timelens_plugins.training.origin.Origin`.
    """

    generation: int
    used: int
    layout: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    data: str = ""
    model: str = ""

    def content(self) -> dict[str, Any]:
        """Of the state file."""
        return {"format": _FORMAT, **asdict(self)}

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Read the state file.

        Raises:
            ValueError: it is missing or not ours.
        """
        content = read_state(folder)
        try:
            if content.pop("format") != _FORMAT:
                raise ValueError("another format")
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / STATE_FILE}: not a state this version can read ({error})") from error

    def check_layout(self, layout: Mapping[str, int], folder: Path) -> None:
        """Refuse other settings in the middle of a generation batch, whose completions would not fit.

        Raises:
            ValueError: naming each setting.
        """
        changed = [f"{k}={self.layout.get(k)} (now {v})" for k, v in layout.items() if self.layout.get(k) != v]
        if self.used and changed:
            raise ValueError(
                f"{folder} was saved in the middle of a generation batch made with {', '.join(changed)}: "
                "resume with the same settings"
            )


@dataclass(frozen=True)
class SavedGroup:
    """The dataset row's prompt, from which the group is made again, and why its video could not be read, if so."""

    prompt: list[Any]
    error: str | None


def rollouts_file(folder: Path, process: int) -> Path:
    """Where a process keeps its completions."""
    return folder / f"rollouts-{process}.safetensors"


def save_rollouts(path: Path, slices: Sequence[Mapping[str, Any]]) -> None:
    """Write the slices of a generation batch: tensors, and of its groups what is needed to make them again."""
    tensors: dict[str, Tensor] = {}
    groups: list[list[dict[str, Any]]] = []
    for i, part in enumerate(slices):
        tensors |= {f"{i}.{k}": v.detach().cpu().clone().contiguous() for k, v in part.items() if isinstance(v, Tensor)}
        members: Sequence[Group] = part[GROUPS]
        groups.append([{"prompt": group.row["prompt"], "error": group.error} for group in members])
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"groups": json.dumps(groups)})


def load_rollouts(path: Path) -> tuple[list[dict[str, Tensor]], list[list[SavedGroup]]]:
    """The slices' tensors, and their groups.

    Raises:
        ValueError: the file is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: resume with the number of processes that saved it")
    with safe_open(path, framework="pt") as file:
        groups = [[SavedGroup(**group) for group in part] for part in json.loads(file.metadata()["groups"])]
        slices: list[dict[str, Tensor]] = [{} for _ in groups]
        for key in file.keys():  # noqa: SIM118  (not a dict)
            index, name = key.split(".", 1)
            slices[int(index)][name] = file.get_tensor(key)
    return slices, groups
