"""Vision features computed once per prompt and used in rollout and training, without losing a gradient.

Whatever requires a gradient decides what may be kept: of a frozen tower its outputs, of a frozen trunk with trained
mergers (the merger and Qwen3-VL's deepstack mergers) their inputs, of a trained trunk nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from timelens_plugins.shared_prefix.features import VisionFeatures
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.packing import check_vision_tokens
from timelens_plugins.shared_prefix.tree import GRIDS, PIXELS, Prompt

__all__ = ["encode_vision", "vision_inputs"]

_MERGERS = ("merger.", "deepstack_merger_list.")


def encode_vision(model: nn.Module, prompt: Prompt) -> Prompt:
    """Run the frozen part of the vision tower on a prompt, once; the returned prompt has features instead of pixels.

    Call it where training will run: same autocast context, parameters whole (under FSDP, inside the trainer's gather
    for generation). A prompt without vision, or with features already, comes back as it is; so does every prompt while
    the trunk of the tower is trained, because nothing may be kept then.
    """
    core = vision_language_model(model)
    pending = [m for m in PIXELS if PIXELS[m] in prompt.vision and m not in prompt.features]
    if not pending or _trained(core.visual)[0]:
        return prompt
    check_vision_tokens(core, prompt)
    features = dict(prompt.features)
    for modality in pending:
        features[modality] = _encode(core, modality, prompt.vision[PIXELS[modality]], prompt.vision[GRIDS[modality]])
    rest = {k: v for k, v in prompt.vision.items() if k not in PIXELS.values()}
    return dataclasses.replace(prompt, vision=rest, features=features)


def vision_inputs(core: Any, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The vision arguments of a forward over ``prompts`` in row order: pixels and grids, or features to inject.

    Raises:
        ValueError: some prompts have features and others pixels, or the features would lose a gradient that
            parameters of the tower need.
    """
    device = core.get_input_embeddings().weight.device
    used = [m for m in PIXELS if any(GRIDS[m] in p.vision for p in prompts)]
    cached = {m in p.features for m in used for p in prompts if GRIDS[m] in p.vision}
    if not used:
        return {}
    if len(cached) > 1:
        raise ValueError("some prompts have vision features and others pixels: encode_vision all of them or none")
    inputs: dict[str, Any] = {
        GRIDS[m]: _joined([p.vision[GRIDS[m]] for p in prompts if GRIDS[m] in p.vision]).to(device) for m in used
    }
    if cached == {False}:
        for m in used:
            inputs[PIXELS[m]] = _joined([p.vision[PIXELS[m]] for p in prompts if PIXELS[m] in p.vision]).to(device)
        return inputs
    injected = {}
    for m in used:
        features = [p.features[m] for p in prompts if m in p.features]
        _check_gradients(core.visual, features)
        injected[m] = _InjectedFeatures(core.visual, features, device)
    return inputs | {"mm_encoder_outputs": injected}


def _joined(tensors: list[Tensor]) -> Tensor:
    """One prompt's pixels are hundreds of megabytes: not copied when alone."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


class _InjectedFeatures:
    """Stands in for the tower's output: the model's forward reads these two attributes, once each.

    Trained mergers run when they are read, that is inside the model's forward, where wrappers expect it. A plain class
    on purpose: wrappers rebuild dictionaries and tuples on the way in.
    """

    def __init__(self, visual: nn.Module, features: Sequence[VisionFeatures], device: torch.device) -> None:
        self._visual, self._features, self._device = visual, features, device

    @property
    def pooler_output(self) -> list[Tensor]:
        return [self._merge(self._visual.merger, f.merged, f) for f in self._features]

    @property
    def deepstack_features(self) -> list[list[Tensor]]:
        mergers = getattr(self._visual, "deepstack_merger_list", ())
        return [
            [self._merge(merger, f.deepstack[layer], f) for f in self._features] for layer, merger in enumerate(mergers)
        ]

    def _merge(self, merger: Any, states: Tensor, features: VisionFeatures) -> Tensor:
        states = states.to(self._device)
        if not features.needs_merging:
            return states
        return _in_order(merger(states), features.order)


def _in_order(merged: Tensor, order: Tensor | None) -> Tensor:
    return merged if order is None else merged[order.to(merged.device)]


def _trained(visual: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the trained parameters of the tower: (in the trunk, in the mergers)."""
    names = [name for name, parameter in visual.named_parameters() if parameter.requires_grad]
    return [n for n in names if not n.startswith(_MERGERS)], [n for n in names if n.startswith(_MERGERS)]


def _check_gradients(visual: nn.Module, features: Sequence[VisionFeatures]) -> None:
    if not torch.is_grad_enabled():
        return
    trunk, mergers = _trained(visual)
    lost = trunk or (mergers if any(not f.needs_merging for f in features) else [])
    if lost:
        raise ValueError(
            f"these vision features were computed when visual.{lost[0]} was frozen, and would now lose its gradient: "
            "freeze it, or call encode_vision on the original prompt again"
        )


@torch.no_grad()
def _encode(core: Any, modality: str, pixels: Tensor, grid: Tensor) -> VisionFeatures:
    visual = core.visual
    device = core.get_input_embeddings().weight.device
    mergers = [visual.merger, *getattr(visual, "deepstack_merger_list", ())]
    entered: dict[int, Tensor] = {}

    def remember(module: nn.Module, args: tuple[Any, ...]) -> None:
        entered[id(module)] = args[0].detach()

    hooks = [m.register_forward_pre_hook(remember) for m in mergers]
    compute = core.get_image_features if modality == "image" else core.get_video_features
    try:
        output = compute(pixels.to(device), grid.to(device), return_dict=True)
    finally:
        for hook in hooks:
            hook.remove()
    merged = torch.cat(list(output.pooler_output))
    deepstack = tuple(torch.cat(list(layer)) for layer in getattr(output, "deepstack_features", None) or ())
    if not _trained(visual)[1]:
        return VisionFeatures(merged, deepstack)
    order = _row_order(visual, grid)
    again = _in_order(mergers[0](entered[id(mergers[0])]), order)
    if again.shape != merged.shape or not torch.allclose(again, merged, rtol=1e-2, atol=1e-3):
        raise RuntimeError(
            f"running the merger of {type(visual).__name__} again does not give the tower's output: this version of "
            "transformers does something after the merger that is not known here"
        )
    states = [entered[id(m)] for m in mergers]
    return VisionFeatures(states[0], tuple(states[1:]), order, needs_merging=True)


def _row_order(visual: Any, grid: Tensor) -> Tensor | None:
    """Where window attention reorders the rows (Qwen2.5-VL): their way back into prompt order."""
    if not hasattr(visual, "fullatt_block_indexes"):
        return None
    index, _ = get_vision_window_index(
        grid.cpu(),
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return torch.argsort(index)
