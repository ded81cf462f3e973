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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from timelens_plugins.grpo.groups import Group, groups_of, with_groups, with_trunks
from timelens_plugins.grpo.online import DIFFICULTY_FILE
from timelens_plugins.grpo.rollout import encoder, whole_model
from timelens_plugins.training.checkpoints import ANOTHER_METHOD, STATE_FILE, read_state
from timelens_plugins.training.origin import Origin

__all__ = ["RunState", "SavedGroup", "load", "restored", "save"]

_FORMAT = 1
_KEPT_COLUMNS = ("prompt", "video", "video_start", "video_end")  # what the clip of a row is told by


@dataclass
class RunState:
    """Where a run is.

    Attributes:
        generation: generation batches that are used up.
        used: micro-steps that were taken of the next one; 0 where it was not begun.
        layout: settings on which the kept completions depend, by their names in the config.
        skipped: videos that could not be read, and why.
        metrics: values that wait for the next log, by name. With ``logging_steps`` above 1, the first log after a
            resume then covers all steps since the one before, as it would have; its loss alone is since the resume.
        origin: what the run was started from.
    """

    generation: int
    used: int
    layout: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)

    def content(self) -> dict[str, Any]:
        """Of the state file."""
        own = asdict(self)
        origin = own.pop("origin")
        return {"format": _FORMAT, **own, **origin}

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Read the state file.

        Raises:
            ValueError: it is missing or not ours.
        """
        content = read_state(folder)
        if "generation" not in content:
            raise ValueError(f"{folder} was saved by another trainer than this one of GRPO: {ANOTHER_METHOD}")
        try:
            if content.pop("format") != _FORMAT:
                raise ValueError("another format")
            origin = Origin.saved(content)
            return cls(**{k: v for k, v in content.items() if k not in asdict(origin)}, origin=origin)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{folder / STATE_FILE}: not a state this version can read ({error})") from error

    def check_layout(self, layout: Mapping[str, int], folder: Path) -> None:
        """Refuse other settings in the middle of a generation batch, whose completions would not fit.

        Raises:
            ValueError: naming each setting.
        """
        saved = {name: self.layout.get(name, False) for name in layout}  # checkpoints from before vLLM have not all
        changed = [f"{k}={saved[k]} (now {v})" for k, v in layout.items() if saved[k] != v]
        if self.used and changed:
            raise ValueError(
                f"{folder} was saved in the middle of a generation batch made with {', '.join(changed)}: "
                "resume with the same settings"
            )


@dataclass(frozen=True)
class SavedGroup:
    """Of the dataset row what the group is made from again, and why its video could not be read, if so."""

    row: dict[str, Any]
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
        groups.append(
            [
                {"row": {key: group.row[key] for key in _KEPT_COLUMNS if key in group.row}, "error": group.error}
                for group in groups_of(part)
            ]
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"groups": json.dumps(groups)})


def load_rollouts(path: Path) -> tuple[list[dict[str, Tensor]], list[list[SavedGroup]]]:
    """The slices' tensors, and their groups.

    Raises:
        ValueError: the file is missing, or an earlier version's.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing: resume with the number of processes that saved it")
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["groups"])
        if any(group.keys() != {"row", "error"} for part in content for group in part):
            raise ValueError(f"{path} was saved by another version of this package: resume with that, or start over")
        groups = [[SavedGroup(**group) for group in part] for part in content]
        slices: list[dict[str, Tensor]] = [{} for _ in groups]
        for key in file.keys():  # noqa: SIM118  (not a dict)
            index, name = key.split(".", 1)
            slices[int(index)][name] = file.get_tensor(key)
    return slices, groups


# ---------------------------------------------------------------------- of a trainer


def save(trainer: Any, folder: Path) -> dict[str, Any]:
    """Save what a process keeps for itself, and give the content of the state file.

    Args:
        trainer: a :class:`~timelens_plugins.grpo.trainer.TimeLensGRPOTrainer`.
        folder: of the checkpoint.
    """
    every = trainer.args.steps_per_generation * trainer.num_iterations
    state = RunState(
        trainer._step // every,
        trainer._step % every,
        _layout(trainer),
        {video: why for part in gather_object([trainer.prompts.clips.skipped]) for video, why in part.items()},
        {name: [float(v) for v in values] for name, values in trainer._metrics["train"].items()},
        trainer._origin,
    )
    if state.used:
        save_rollouts(rollouts_file(folder, trainer.accelerator.process_index), trainer._buffered_inputs)
    if trainer._online is not None and trainer.args.should_save:
        trainer._online.save(folder)
    return state.content()


def load(trainer: Any, folder: Path) -> Path | None:
    """Put a trainer where a checkpoint was; the file of completions that are still to be used, if there are any.

    Raises:
        ValueError: a checkpoint of other settings, or of a run with (or without) online difficulty.
    """
    state = RunState.load(folder)
    state.check_layout(_layout(trainer), folder)
    trainer._origin.compare(state.origin, folder)
    trainer._step = state.generation * trainer.args.steps_per_generation * trainer.num_iterations + state.used
    trainer.prompts.clips.skipped.update(state.skipped)
    for name, values in state.metrics.items():
        trainer._metrics["train"][name] = list(values)
    if trainer._online is not None:
        trainer._online.load(folder)
    elif (folder / DIFFICULTY_FILE).is_file():
        raise ValueError(f"{folder} was saved by a run with online difficulty: resume with it, or start over elsewhere")
    return rollouts_file(folder, trainer.accelerator.process_index) if state.used else None


def restored(trainer: Any, path: Path) -> list[dict[str, Any]]:
    """The slices of a generation batch as they were in memory, with their clips read and encoded again.

    Raises:
        ValueError: a video that could be read then and cannot be now, or the other way round.
    """
    slices, saved = load_rollouts(path)
    trainer.prompts.expect([group.row for part in saved for group in part])
    device = trainer.accelerator.device
    groups: list[Group] = []
    with whole_model(trainer.model_wrapped, trainer.accelerator) as model, trainer.accelerator.autocast():
        encode = encoder(model, trainer.args.share_prefix)
        for kept in (group for part in saved for group in part):
            group = trainer.prompts.group(kept.row)
            if (group.error is None) != (kept.error is None):
                raise ValueError(f"{path}: a video was {'un' if kept.error else ''}readable when this was saved")
            groups.append(replace(group, prompt=encode(group.prompt), clip=None))
    if trainer.args.shares_videos:
        groups = with_trunks(groups)
    rest = iter(groups)
    return [
        with_groups({k: v.to(device) for k, v in tensors.items()}, [next(rest) for _ in part])
        for tensors, part in zip(slices, saved, strict=True)
    ]


def _layout(trainer: Any) -> dict[str, int]:
    names = ("per_device_train_batch_size", "steps_per_generation", "num_iterations", "num_generations", "use_vllm")
    corrected = trainer.args.use_vllm and trainer.args.vllm_importance_sampling_correction
    return {
        "processes": trainer.accelerator.num_processes,
        **{name: getattr(trainer.args, name) for name in names},
        "vllm_importance_sampling_correction": corrected,
    }
