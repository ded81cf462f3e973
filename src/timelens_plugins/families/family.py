"""One record per model family: everything that is special about it and no processor or config states.

Markers and pads of a prompt come from the processor, patch sizes from its video processor, token ids from the
tokenizer. A new family is made known by :func:`register_family`; besides its record it needs a processor class, a
subclass of ``InterleavedTimestampsMixin`` with the record's name.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FAMILIES", "Family", "family_of", "find_family", "model_types", "register_family", "shares_prefix"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Family:
    """What is special about a model family.

    Attributes:
        name: of the family.
        model_types: of the configs that belong to it.
        processor: name of the processor class that gives it time encodings.
        stock_processors: names of the processor classes of transformers that its checkpoints state.
        tower: attribute of the vision-language model that holds the vision tower.
        mergers: attributes of the tower that turn its states into tokens of the language model: modules, or lists of
            them. Those that a model does not have are passed over. Where prompts are shared, the first is the one of
            the last layer, and the others feed earlier layers of the language model (deepstack).
        restores_positions: its rotary positions differ in the installed transformers from those it was trained with,
            and are put back, see ``encodings.positions``.
        sharing: ``"shared"`` where a prompt can be computed once for all its continuations; ``"plain"`` where every
            continuation takes its own copy.
    """

    name: str
    model_types: tuple[str, ...]
    processor: str
    stock_processors: tuple[str, ...]
    tower: str = "visual"
    mergers: tuple[str, ...] = ("merger",)
    restores_positions: bool = False
    sharing: Literal["shared", "plain"] = "shared"

    def is_merger(self, parameter: str) -> bool:
        """Whether a parameter of the tower, by its name there, belongs to a merger."""
        return parameter.partition(".")[0] in self.mergers


FAMILIES: dict[str, Family] = {}
"""Name -> record, of all that are known."""


def register_family(family: Family) -> Family:
    """Make a family known by its model types.

    Raises:
        ValueError: its name or a model type is taken.
    """
    if taken := sorted({family.name} & FAMILIES.keys() | set(family.model_types) & set(model_types())):
        raise ValueError(f"there is a model family for {', '.join(taken)} already")
    FAMILIES[family.name] = family
    return family


def model_types() -> tuple[str, ...]:
    """The ``model_type`` of every config that belongs to a family."""
    return tuple(name for family in FAMILIES.values() for name in family.model_types)


def find_family(model_type: str) -> Family:
    """The family of a config's ``model_type``; ``ValueError`` listing the known ones for an unknown one."""
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    raise ValueError(f"unknown model family {model_type!r}; known: {', '.join(model_types())}")


def family_of(model: Any) -> Family:
    """The family of a model, or of a vision-language module inside one, by its config."""
    return find_family(model.config.model_type)


def shares_prefix(model: Any, wanted: bool) -> bool:
    """Whether prompts of this model are computed once for all their continuations: where wanted and possible.

    Warns where it is wanted and not possible.
    """
    family = family_of(model)
    if wanted and family.sharing == "plain":
        logger.warning("models of the family %s cannot share prompts: share_prefix=False", family.name)
        return False
    return wanted


register_family(
    Family(
        "qwen3_vl",
        model_types=("qwen3_vl", "qwen3_vl_moe"),
        processor="TimeLensQwen3VLProcessor",
        stock_processors=("Qwen3VLProcessor",),
        mergers=("merger", "deepstack_merger_list"),
    )
)
register_family(
    Family(
        "qwen2_5_vl",
        model_types=("qwen2_5_vl",),
        processor="TimeLensQwen2_5_VLProcessor",
        stock_processors=("Qwen2_5_VLProcessor",),
        restores_positions=True,
    )
)
# Also Qwen3.6 and Qwen3.8, whose checkpoints state the same model type. Prompts are those of Qwen3-VL.
register_family(
    Family(
        "qwen3_5",
        model_types=("qwen3_5", "qwen3_5_moe"),
        processor="TimeLensQwen3VLProcessor",
        stock_processors=("Qwen3VLProcessor",),
    )
)
# `glm4v` is the model type of GLM-4.1V, too, which has another processor. A convolution before the merger brings the
# tower's states to the width of the language model.
register_family(
    Family(
        "glm46v",
        model_types=("glm46v", "glm4v"),
        processor="TimeLensGlm46VProcessor",
        stock_processors=("Glm46VProcessor",),
        mergers=("merger", "downsample"),
        sharing="plain",
    )
)
