"""Exact shortcuts through the vision tower: frames in one batch, patches by a matrix product. Opt-in, where they pay.

Both compute what the tower computes, up to rounding. Off flash attention, transformers' vision attention walks
through frames (or windows) in a Python loop; here frames of equal length are one batch. The patch embedding is a Conv3d
whose kernel equals its stride and its input, which is a plain matrix product, and much slower as a convolution on some
GPUs in bf16.
"""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from timelens_plugins.shared_prefix.attention import wrap
from timelens_plugins.shared_prefix.locate import vision_language_model, vision_tower

__all__ = ["VisionAcceleration", "accelerate_vision", "batch_frames", "project_patches"]

logger = logging.getLogger(__name__)

_TRIED = (8, 8, 8)
"""Frame pairs, rows and columns of patches of the trial."""

_PAIRS = 5
"""Forwards with and without a shortcut, in turns."""

_ROUNDING = 1000.0
"""Of the largest output, in units of the dtype's rounding: what a tower of 32 layers may differ by."""


Shortcut = Callable[[Any], Callable[[], None]]
"""Changes a tower, and returns what undoes it."""


class VisionAcceleration:
    """What :func:`accelerate_vision` changed; :meth:`remove` undoes it.

    Attributes:
        gains: of each shortcut that was measured, how many times as fast the tower's forward is with it.
    """

    def __init__(self, undo: Sequence[Callable[[], None]], gains: Mapping[str, float]) -> None:
        self._undo, self.gains = undo, gains

    def remove(self) -> None:
        """Put the tower back as it was."""
        for undo in self._undo:
            undo()


def accelerate_vision(model: nn.Module, *, measure: bool = True) -> VisionAcceleration:
    """Batch the frames of the vision tower's attention, and embed patches by a matrix product, where it pays.

    Parameters, their names and gradients stay as they are. Call it before sharding the model.

    Args:
        model: whose tower is meant, on the device and in the dtype that it will compute in.
        measure: try each shortcut on a few frames first, and keep it where the forward is faster by it; the log says
            which. Without, both are kept.

    Raises:
        ValueError: the patch embedding is not the plain convolution it should be, or attention is eager.
        RuntimeError: a shortcut gives another output than the tower without it, beyond rounding.
    """
    visual = vision_tower(vision_language_model(model))
    shortcuts: dict[str, Shortcut] = {"patches": project_patches, "frames": batch_frames}
    gains: dict[str, float] = {}
    if measure:
        gains = {name: _gain(visual, name, shortcut) for name, shortcut in shortcuts.items()}
        logger.info("vision shortcuts: %s", ", ".join(f"{name} {gain:.2f}x" for name, gain in gains.items()))
    kept = [shortcut(visual) for name, shortcut in shortcuts.items() if gains.get(name, 1.0) >= 1.0]
    return VisionAcceleration(kept, gains)


def _gain(visual: Any, name: str, shortcut: Shortcut) -> float:
    """How many times as fast a tower's forward is with a shortcut: the median of pairs, after one that warms up."""
    projection = visual.patch_embed.proj
    grid = torch.tensor([_TRIED], device=projection.weight.device)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(math.prod(_TRIED), projection.weight[0].numel(), generator=generator).to(projection.weight)
    gains = []
    for _ in range(_PAIRS + 1):
        plain, expected = _timed(visual, pixels, grid)
        undo = shortcut(visual)
        try:
            seconds, found = _timed(visual, pixels, grid)
        finally:
            undo()
        gains.append(plain / seconds)
    tolerance = _ROUNDING * torch.finfo(expected.dtype).eps * float(expected.abs().max())
    if (difference := float((found - expected).abs().max())) > tolerance:
        raise RuntimeError(
            f"the tower's output with the shortcut for {name} differs by {difference:.1e}, more than rounding "
            "explains; do not accelerate this model, and report it with the versions of timelens doctor"
        )
    return statistics.median(gains[1:])


@torch.no_grad()
def _timed(visual: Any, pixels: Tensor, grid: Tensor) -> tuple[float, Tensor]:
    """Seconds of a forward, and what it gives."""
    begin = time.perf_counter()
    output = visual(pixels, grid_thw=grid)
    merged: Tensor = output.pooler_output if hasattr(output, "pooler_output") else output[0]
    if merged.is_cuda:
        torch.cuda.synchronize(merged.device)
    return time.perf_counter() - begin, merged


def project_patches(visual: Any) -> Callable[[], None]:
    """Embed the patches of a tower by a matrix product; returns what undoes it.

    Raises:
        ValueError: the patch embedding is not the plain convolution it should be.
    """
    projection = visual.patch_embed.proj
    if type(projection) is not nn.Conv3d or tuple(projection.kernel_size) != tuple(projection.stride):
        raise ValueError(
            f"the patch embedding is a {type(projection).__name__}, not a Conv3d whose kernel is its stride "
            "(accelerated twice, or an adapter sits on it)"
        )

    def undo() -> None:
        projection.__class__ = nn.Conv3d

    projection.__class__ = _PatchProjection
    return undo


def batch_frames(visual: Any) -> Callable[[], None]:
    """Compute the attention of a tower's frames in one batch; returns what undoes it. Flash attention does so itself.

    Raises:
        ValueError: attention is eager.
    """
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

    def undo() -> None:
        for hook in hooks:
            hook.remove()

    return undo


class _PatchProjection(nn.Conv3d):
    """A Conv3d on inputs of exactly the kernel's size: (N, C, T, H, W) -> (N, out, 1, 1, 1) as a matrix product."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the parent's name)
        if tuple(input.shape[2:]) != tuple(self.kernel_size):
            return super().forward(input)
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


class _FrameBatcher:
    """Forward pre-hook of a vision attention module: one segment for upstream's loop, the real ones for the wrapper.

    Where the tower has another attention by now, it gets what it would get without.
    """

    def __init__(self) -> None:
        self._last: tuple[Tensor, tuple[int, ...], Tensor] | None = None

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bounds: Tensor = kwargs["cu_seqlens"]
        config: Any = module.config
        if config._attn_implementation != "sdpa" or "frame_lengths" in kwargs:  # batched twice is batched
            return args, kwargs
        if (
            self._last is None or self._last[0] is not bounds
        ):  # all layers get the same tensor; reading it waits for a GPU
            lengths = tuple(int(n) for n in (bounds[1:] - bounds[:-1]).tolist())
            self._last = (bounds, lengths, torch.stack([bounds[0], bounds[-1]]))
        _, lengths, whole = self._last
        return args, kwargs | {"cu_seqlens": whole, "frame_lengths": lengths}
