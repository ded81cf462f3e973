"""Hands vision features to a model's forward in the place of pixels.

transformers has an argument for that, ``mm_encoder_outputs``, from 5.18 on. Before, a forward turns pixels into
features by ``get_image_features`` and ``get_video_features`` of the model; there, these two let features through.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from timelens_plugins.shared_prefix.features import VisionFeatures

__all__ = ["InjectedFeatures", "accept_features", "in_order", "takes_features"]

_ACCEPTING = "_timelens_accepts_features"


class InjectedFeatures:
    """Stands in for the tower's output: the model's forward reads these two attributes, once each.

    Trained mergers run when they are read, that is inside the model's forward, where wrappers expect it. A plain class
    on purpose: wrappers rebuild dictionaries and tuples on the way in.
    """

    def __init__(
        self, mergers: Sequence[nn.Module], features: Sequence[VisionFeatures], device: torch.device, whole: bool
    ) -> None:
        self._mergers, self._features, self._device, self._whole = mergers, features, device, whole

    @property
    def pooler_output(self) -> list[Tensor]:
        return self._merge(self._mergers[0], [f.merged for f in self._features])

    @property
    def deepstack_features(self) -> list[list[Tensor]] | list[Tensor]:
        """For each layer the features of each prompt; where the forward takes features as pixels, in one piece."""
        layers = [
            self._merge(merger, [f.deepstack[layer] for f in self._features])
            for layer, merger in enumerate(self._mergers[1:])
        ]
        return [torch.cat(layer) for layer in layers] if self._whole else layers

    def to_tuple(self) -> tuple[()]:
        """Nothing: asked for where the model's output, which carries this along, is read as a tuple."""
        return ()

    def _merge(self, merger: Any, states: list[Tensor]) -> list[Tensor]:
        """Of each prompt, by one call for all: the processes that share a merger gather it together at each call, and
        may have different numbers of prompts."""
        states = [one.to(self._device) for one in states]
        if not self._features[0].needs_merging:
            return states
        merged = merger(states[0] if len(states) == 1 else torch.cat(states))
        each = sum(map(len, states)) // len(merged)  # patches of a token
        parts = merged.split([len(one) // each for one in states])
        return [in_order(part, f.order) for part, f in zip(parts, self._features, strict=True)]


def in_order(merged: Tensor, order: Tensor | None) -> Tensor:
    """Rows ``(n, hidden)`` that window attention reordered, in prompt order."""
    return merged if order is None else merged[order.to(merged.device)]


def takes_features(core: nn.Module) -> bool:
    """Whether the forward of this vision-language model has an argument for them."""
    return "mm_encoder_outputs" in inspect.signature(type(core).forward).parameters


def accept_features(core: Any) -> None:
    """Let a forward without that argument take :class:`InjectedFeatures` as pixels; again changes nothing."""
    for name in ("get_image_features", "get_video_features"):
        upstream = getattr(core, name)
        if not hasattr(upstream, _ACCEPTING):
            setattr(core, name, _accepting(upstream))


def _accepting(upstream: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(upstream)
    def get_features(pixels: Any, *args: Any, **kwargs: Any) -> Any:
        return pixels if isinstance(pixels, InjectedFeatures) else upstream(pixels, *args, **kwargs)

    setattr(get_features, _ACCEPTING, True)
    return get_features
