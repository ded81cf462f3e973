"""Finding the parts of a vision-language model under any wrapper (PEFT, DDP, FSDP2, accelerate)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from timelens_plugins.families import FAMILIES, family_of

__all__ = ["device_of", "language_head", "layer_counts", "mergers_of", "vision_language_model", "vision_tower"]


def vision_language_model(model: nn.Module) -> Any:
    """What owns the vision tower and the text model inside ``model``."""
    towers = {family.tower for family in FAMILIES.values()}
    for module in model.modules():
        if "language_model" in module._modules and towers & module._modules.keys():
            return module
    raise ValueError(
        f"{type(model).__name__} holds no vision-language model with a vision tower ({', '.join(sorted(towers))}) and "
        f"a `language_model`; models of these families have them: {', '.join(FAMILIES)}"
    )


def vision_tower(core: Any) -> Any:
    """The vision tower of a vision-language model."""
    return getattr(core, family_of(core).tower)


def mergers_of(core: Any) -> list[nn.Module]:
    """The modules that turn the tower's states into tokens of the language model: the last layer's first."""
    tower = vision_tower(core)
    found: list[nn.Module] = []
    for name in family_of(core).mergers:
        module = getattr(tower, name, None)
        if module is not None:
            found += list(module) if isinstance(module, nn.ModuleList) else [module]
    return found


def language_head(model: nn.Module) -> nn.Module:
    """The output projection ``lm_head`` of the causal language model inside ``model``."""
    core = vision_language_model(model)
    for module in model.modules():
        if getattr(module, "model", None) is core and isinstance(head := getattr(module, "lm_head", None), nn.Module):
            return head
    raise ValueError(f"{type(model).__name__} has no `lm_head`: pass the model with its language head")


def layer_counts(core: Any) -> tuple[int, int]:
    """How many layers of the text model mix tokens by attention, and how many by a recurrence."""
    config = core.config.get_text_config()
    recurrent = list(getattr(config, "layer_types", None) or ()).count("linear_attention")
    return config.num_hidden_layers - recurrent, recurrent


def device_of(core: Any) -> torch.device:
    """Where token ids must be for this model."""
    device: torch.device = core.get_input_embeddings().weight.device
    return device
