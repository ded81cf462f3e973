"""Exact shortcuts through the vision tower: frames in one batch, patches by a matrix product. Opt-in.

Both compute what the tower computes, up to rounding. Off flash attention, transformers' vision attention walks
through frames (or windows) in a Python loop; here frames of equal length are one batch. The patch embedding is a Conv3d
whose kernel equals its stride and its input, which is a plain matrix product, and much slower as a convolution on some
GPUs in bf16.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from timelens_plugins.shared_prefix.attention import wrap
from timelens_plugins.shared_prefix.locate import vision_language_model

__all__ = ["VisionAcceleration", "accelerate_vision"]


class VisionAcceleration:
    """What :func:`accelerate_vision` changed; :meth:`remove` undoes it."""

    def __init__(self, hooks: list[RemovableHandle], projection: nn.Module, original: type[nn.Module]) -> None:
        self._hooks, self._projection, self._original = hooks, projection, original

    def remove(self) -> None:
        """Put the tower back as it was."""
        for hook in self._hooks:
            hook.remove()
        self._projection.__class__ = self._original


class _PatchProjection(nn.Conv3d):
    """A Conv3d on inputs of exactly the kernel's size: (N, C, T, H, W) -> (N, out, 1, 1, 1) as a matrix product."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the parent's name)
        if tuple(input.shape[2:]) != tuple(self.kernel_size):
            return super().forward(input)
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def accelerate_vision(model: nn.Module) -> VisionAcceleration:
    """Batch the frames of the vision tower's attention, and embed patches by a matrix product.

    Parameters, their names and gradients stay as they are. Call it before sharding the model.

    Raises:
        ValueError: the patch embedding is not the plain convolution it should be, or attention is eager.
    """
    visual = vision_language_model(model).visual
    projection = visual.patch_embed.proj
    if type(projection) is not nn.Conv3d or tuple(projection.kernel_size) != tuple(projection.stride):
        raise ValueError(
            f"the patch embedding is a {type(projection).__name__}, not a Conv3d whose kernel is its stride "
            "(accelerated twice, or an adapter sits on it)"
        )
    implementation = visual.config._attn_implementation
    hooks: list[RemovableHandle] = []
    if implementation == "sdpa":
        wrap(implementation)
        batcher = _FrameBatcher()
        hooks = [block.attn.register_forward_pre_hook(batcher, with_kwargs=True) for block in visual.blocks]
    elif "flash" not in str(implementation):
        raise ValueError(
            f"vision attention {implementation!r} cannot be batched: use sdpa (flash attention needs none)"
        )
    projection.__class__ = _PatchProjection
    return VisionAcceleration(hooks, projection, nn.Conv3d)


class _FrameBatcher:
    """Forward pre-hook of a vision attention module: one segment for upstream's loop, the real ones for the wrapper."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, tuple[int, ...], Tensor] | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bounds: Tensor = kwargs["cu_seqlens"]
        if (
            self._last is None or self._last[0] is not bounds
        ):  # all layers get the same tensor; reading it waits for a GPU
            lengths = tuple(int(n) for n in (bounds[1:] - bounds[:-1]).tolist())
            self._last = (bounds, lengths, torch.stack([bounds[0], bounds[-1]]))
        _, lengths, whole = self._last
        return args, kwargs | {"cu_seqlens": whole, "frame_lengths": lengths}
