"""Finding the parts of a vision-language model under any wrapper (PEFT, DDP, FSDP2, accelerate)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["device_of", "language_head", "vision_language_model"]


def vision_language_model(model: nn.Module) -> Any:
    """The ``Qwen*VLModel`` inside ``model``: what owns the vision tower, the text model and ``get_rope_index``."""
    for module in model.modules():
        if hasattr(module, "get_rope_index") and hasattr(module, "language_model") and hasattr(module, "visual"):
            return module
    raise ValueError(
        f"{type(model).__name__} holds no vision-language model with a `visual` tower, a `language_model` and "
        "`get_rope_index`; Qwen2.5-VL and Qwen3-VL have them"
    )


def language_head(model: nn.Module) -> nn.Module:
    """The output projection ``lm_head`` of the causal language model inside ``model``."""
    core = vision_language_model(model)
    for module in model.modules():
        if getattr(module, "model", None) is core and isinstance(head := getattr(module, "lm_head", None), nn.Module):
            return head
    raise ValueError(f"{type(model).__name__} has no `lm_head`: pass the model with its language head")


def device_of(core: Any) -> torch.device:
    """Where token ids must be for this model."""
    device: torch.device = core.get_input_embeddings().weight.device
    return device
