"""Vision features computed once per prompt and used in rollout and training, without losing a gradient.

Whatever requires a gradient decides what may be kept: of a frozen tower its outputs, of a frozen trunk with trained
mergers (the last layer's and the deepstack mergers) their inputs, of a trained trunk nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.vision_utils import get_vision_window_index

from timelens_plugins.families import family_of
from timelens_plugins.shared_prefix.features import VisionFeatures
from timelens_plugins.shared_prefix.injection import InjectedFeatures, accept_features, in_order, takes_features
from timelens_plugins.shared_prefix.locate import mergers_of, vision_language_model, vision_tower
from timelens_plugins.shared_prefix.packing import check_vision_tokens
from timelens_plugins.shared_prefix.tree import GRIDS, PIXELS, Prompt

__all__ = ["encode_vision", "vision_inputs"]


def encode_vision(model: nn.Module, prompt: Prompt) -> Prompt:
    """Run the frozen part of the vision tower on a prompt, once; the returned prompt has features instead of pixels.

    Call it where training will run: same autocast context, parameters whole (under FSDP, inside the trainer's gather
    for generation). A prompt without vision, or with features already, comes back as it is; so does every prompt while
    the trunk of the tower is trained, because nothing may be kept then.
    """
    core = vision_language_model(model)
    pending = [m for m in PIXELS if PIXELS[m] in prompt.vision and m not in prompt.features]
    if not pending or _trained(core)[0]:
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
    whole = not takes_features(core)
    for m in used:
        features = [p.features[m] for p in prompts if m in p.features]
        _check_gradients(core, features)
        injected[m] = InjectedFeatures(mergers_of(core), features, device, whole)
    if whole:
        accept_features(core)
        return inputs | {PIXELS[m]: features for m, features in injected.items()}
    return inputs | {"mm_encoder_outputs": injected}


def _joined(tensors: list[Tensor]) -> Tensor:
    """One prompt's pixels are hundreds of megabytes: not copied when alone."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def _trained(core: Any) -> tuple[list[str], list[str]]:
    """Names of the trained parameters of the tower: (in the trunk, in the mergers)."""
    names = [name for name, parameter in vision_tower(core).named_parameters() if parameter.requires_grad]
    family = family_of(core)
    return [n for n in names if not family.is_merger(n)], [n for n in names if family.is_merger(n)]


def _check_gradients(core: Any, features: Sequence[VisionFeatures]) -> None:
    if not torch.is_grad_enabled():
        return
    trunk, mergers = _trained(core)
    lost = trunk or (mergers if any(not f.needs_merging for f in features) else [])
    if lost:
        raise ValueError(
            f"these vision features were computed when {family_of(core).tower}.{lost[0]} was frozen, and would now "
            "lose its gradient: freeze it, or call encode_vision on the original prompt again"
        )


@torch.no_grad()
def _encode(core: Any, modality: str, pixels: Tensor, grid: Tensor) -> VisionFeatures:
    visual = vision_tower(core)
    device = core.get_input_embeddings().weight.device
    mergers = mergers_of(core)
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
    deepstack = tuple(
        layer if isinstance(layer, Tensor) else torch.cat(list(layer))  # in one piece up to transformers 5.17
        for layer in getattr(output, "deepstack_features", None) or ()
    )
    if not _trained(core)[1]:
        return VisionFeatures(merged, deepstack)
    order = _row_order(visual, grid)
    again = in_order(mergers[0](entered[id(mergers[0])]), order)
    if not bool(merged.isfinite().all()):
        raise RuntimeError(
            f"the output of {type(visual).__name__} is no number: the model has diverged, or its weights are damaged"
        )
    if again.shape != merged.shape or not torch.allclose(again, merged, rtol=1e-2, atol=1e-3):
        raise RuntimeError(
            f"running the merger of {type(visual).__name__} again does not give the tower's output: this version of "
            "transformers does something after the merger that is not known here"
        )
    states = [entered[id(m)] for m in mergers]
    return VisionFeatures(states[0], tuple(states[1:]), order, needs_merging=True)


def _row_order(visual: Any, grid: Tensor) -> Tensor | None:
    """Where window attention reorders the rows of the tower: their way back into prompt order."""
    if not hasattr(visual, "fullatt_block_indexes"):
        return None
    index, _ = get_vision_window_index(
        grid.cpu(),
        spatial_merge_size=visual.spatial_merge_size,
        window_size=visual.window_size,
        patch_size=visual.patch_size,
    )
    return torch.argsort(index)
