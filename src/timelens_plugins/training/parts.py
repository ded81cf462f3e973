"""Which parts of a vision-language model are trained, and at which rate: the tower, its merger, the language model.

The merger is what turns vision states into tokens of the language model; some families have deepstack mergers besides.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from timelens_plugins.families import family_of
from timelens_plugins.shared_prefix.locate import mergers_of, vision_language_model, vision_tower
from timelens_plugins.training.sharding import whole_shape

__all__ = [
    "TrainedParts",
    "Vision",
    "adapter_modules_to_save",
    "create_optimizer",
    "parameter_groups",
    "refuse_adapter",
    "set_trainable",
]

logger = logging.getLogger(__name__)

Vision = Literal["frozen", "merger", "full"]
"""What of the vision tower is trained: nothing, its merger or mergers (the recipe), or all of it."""


@dataclass(frozen=True)
class TrainedParts:
    """Numbers of parameters, trained and frozen, by part (``vision``, ``merger``, ``language``)."""

    trained: dict[str, int]
    frozen: dict[str, int]

    def __str__(self) -> str:
        parts = [
            f"{part}: {self.trained[part]:,} trained, {self.frozen[part]:,} frozen"
            for part in ("vision", "merger", "language")
        ]
        return "; ".join(parts)


def refuse_adapter(model: Any) -> None:
    """Refuse a model that was loaded from the folder of an adapter, such as an earlier stage of training may leave.

    transformers puts the adapter on its base for answering, so it is not trained; a new one takes its place; and the
    reference model of a KL term is loaded without it.

    Args:
        model: before anything is put on it; a path passes.

    Raises:
        ValueError: with the remedy.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ValueError(
            "the model to train is an adapter on its base, which training would lose or leave as it is: merge the two "
            "into a checkpoint (docs/training.md, Adapters), and train that"
        )


def set_trainable(model: nn.Module, vision: Vision = "merger") -> TrainedParts:
    """Freeze or train the parts of the vision tower; logs and returns the counts.

    The language model is left as it is: trained as loaded, or as LoRA adapters set it. In a PEFT model only what PEFT
    saves can be trained: ``"merger"`` needs the mergers in ``LoraConfig(modules_to_save=…)``, see
    :func:`adapter_modules_to_save`; ``"full"`` leaves the tower as PEFT set it.

    Raises:
        ValueError: an unknown ``vision``; a PEFT model that would not save what is trained.
    """
    if vision not in get_args(Vision):
        raise ValueError(f"vision must be one of {', '.join(get_args(Vision))}, got {vision!r}")
    core = vision_language_model(model)
    peft = hasattr(model, "peft_config")
    family = family_of(core)
    for name, parameter in vision_tower(core).named_parameters():
        merger = family.is_merger(name)
        wanted = vision == "full" or (vision == "merger" and merger)
        if not peft:
            parameter.requires_grad_(wanted)
        elif not wanted:
            parameter.requires_grad_(False)
    report = _count(model)
    if peft and vision == "merger" and not report.trained["merger"]:
        raise ValueError(
            "this PEFT model has frozen mergers and would not save trained ones: make it with "
            f"LoraConfig(modules_to_save={adapter_modules_to_save(model)}), or choose vision='frozen'"
        )
    if peft and vision == "full" and not report.trained["vision"]:
        raise ValueError(
            "vision='full', but no adapter of this PEFT model sits in the vision tower: add target_modules"
        )
    logger.info("trained parts: %s", report)
    return report


def adapter_modules_to_save(model: nn.Module) -> list[str]:
    """Names of the mergers for ``LoraConfig(modules_to_save=…)``, to train and save them whole beside LoRA adapters."""
    core = vision_language_model(model)
    names = {id(module): name for name, module in vision_tower(core).named_modules()}
    return [names[id(merger)] for merger in mergers_of(core)]


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    merger_learning_rate: float | None = None,
    weight_decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Optimizer groups that hold every trained parameter exactly once.

    Vectors (norm weights and biases) get no weight decay. Empty groups are left out.

    Args:
        model: wrapped or not.
        learning_rate: of everything but the mergers.
        merger_learning_rate: of the mergers; None for ``learning_rate``.
        weight_decay: of matrices.

    Raises:
        ValueError: nothing is trained, or a rate for mergers that are frozen.
    """
    mergers = _merger_parameters(model)
    rates = {False: learning_rate, True: learning_rate if merger_learning_rate is None else merger_learning_rate}
    groups: list[dict[str, Any]] = []
    for is_merger in (False, True):
        for decays in (True, False):
            chosen = [
                p
                for p in model.parameters()
                if p.requires_grad and (id(p) in mergers) == is_merger and (len(whole_shape(p)) >= 2) == decays
            ]
            if chosen:
                decay = weight_decay if decays else 0.0
                groups.append({"params": chosen, "lr": rates[is_merger], "weight_decay": decay})
    if not groups:
        raise ValueError("no parameter of the model is trained")
    if merger_learning_rate is not None and not any(p.requires_grad for p in model.parameters() if id(p) in mergers):
        raise ValueError(
            f"merger_learning_rate={merger_learning_rate}, but the merger is frozen: train it (vision='merger')"
        )
    return groups


def create_optimizer(trainer: Any, model: nn.Module | None, merger_learning_rate: float | None) -> Any:
    """The body of a ``transformers.Trainer.create_optimizer`` with these groups, for any plain optimizer.

    Args:
        trainer: its ``args`` say optimizer, rates and decay; gets ``optimizer``.
        model: what the parent's method was given.
        merger_learning_rate: None for ``args.learning_rate``.

    Raises:
        ValueError: an optimizer that makes its own groups (GaLore, LOMO and the like).
    """
    if trainer.optimizer is not None:
        return trainer.optimizer
    args = trainer.args
    target = trainer.model if model is None else model
    cls, options = trainer.optimizer_cls_and_kwargs or trainer.get_optimizer_cls_and_kwargs(args, target)
    if not isinstance(cls, type) or {"params", "model", "optimizer_dict"} & options.keys():
        raise ValueError(f"optim={args.optim} makes its own parameter groups, which would lose the merger's rate")
    groups = parameter_groups(target, args.learning_rate, merger_learning_rate, args.weight_decay)
    trainer.optimizer = cls(groups, **options)
    return trainer.optimizer


def _merger_parameters(model: nn.Module) -> set[int]:
    return {id(p) for merger in mergers_of(vision_language_model(model)) for p in merger.parameters()}


def _count(model: nn.Module) -> TrainedParts:
    mergers = _merger_parameters(model)
    tower = {id(p) for p in vision_tower(vision_language_model(model)).parameters()} - mergers
    parts = {"vision": tower, "merger": mergers}

    def count(parameters: Iterable[nn.Parameter]) -> dict[str, int]:
        counts = dict.fromkeys(("vision", "merger", "language"), 0)
        for p in parameters:
            part = next((part for part, members in parts.items() if id(p) in members), "language")
            counts[part] += math.prod(whole_shape(p))
        return counts

    return TrainedParts(
        trained=count(p for p in model.parameters() if p.requires_grad),
        frozen=count(p for p in model.parameters() if not p.requires_grad),
    )
