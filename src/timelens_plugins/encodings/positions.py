"""Puts the text after a video where Qwen2.5-VL was trained to find it: at rotary positions after all of the video.

A Qwen2.5-VL video spans as many temporal positions as it lasts (two a second). Up to transformers 5.2 the text after
it went on behind the highest of them. Later releases go on behind its height and width only, so that the question
stands amid the video's positions, and generated tokens behind it again. Up to 5.17 they also cut the seconds between
two frame pairs to whole ones: at more than 2 fps all frames then stand at one position. Images, and every layout of
Qwen3-VL, are the same either way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["place_text_after_video", "restore_text_positions"]

_RESTORED = "_timelens_restored"
_VIDEO = 2  # in mm_token_type_ids


def restore_text_positions(model: nn.Module) -> nn.Module:
    """Make ``model`` place a video's frames by their times, and text after it; changes nothing where it does already.

    Returns the model.

    Wraps the ``get_rope_index`` of the vision-language module inside ``model``, whatever wraps that (PEFT, DDP).
    Training, log-probabilities and generation all ask it for positions.

    Raises:
        ValueError: there is no such module.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "get_rope_index") and hasattr(module, "language_model"):
            if not hasattr(module.get_rope_index, _RESTORED):
                module.get_rope_index = _placing(module.get_rope_index, module.config.vision_config)
            return model
    raise ValueError(f"{type(model).__name__} has no get_rope_index: not a Qwen-VL style model")


def _placing(upstream: Any, vision: Any) -> Any:
    signature = inspect.signature(upstream)

    @functools.wraps(upstream)
    def get_rope_index(
        input_ids: Tensor, mm_token_type_ids: Tensor, *args: Any, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        positions, deltas = upstream(input_ids, mm_token_type_ids, *args, attention_mask=attention_mask, **kwargs)
        deltas = deltas.clone()
        given = signature.bind_partial(input_ids, mm_token_type_ids, *args, **kwargs).arguments
        seconds, grids = given.get("second_per_grid_ts"), given.get("video_grid_thw")
        timed = iter(()) if seconds is None or grids is None else zip(seconds, grids.tolist(), strict=True)
        for row, kinds in enumerate(mm_token_type_ids):
            kept = slice(None) if attention_mask is None else attention_mask[row].bool()
            placed = positions[:, row, kept]
            if seconds is not None:
                placed = _place_frames(placed, kinds[kept], timed, vision.tokens_per_second)
            placed = place_text_after_video(placed, kinds[kept])
            positions[:, row, kept] = placed
            deltas[row] = placed.max() + 1 - placed.shape[1]
        return positions, deltas

    setattr(get_rope_index, _RESTORED, True)
    return get_rope_index


def _place_frames(positions: Tensor, kinds: Tensor, timed: Iterator[tuple[Any, list[int]]], per_second: int) -> Tensor:
    """Temporal positions of one prompt, shape ``(3, P)``, by the seconds of each frame pair of its videos."""
    placed, start = positions.clone(), 0
    for kind, run in groupby(kinds.tolist()):
        end = start + len(list(run))
        if kind == _VIDEO:
            between, (pairs, _, _) = next(timed)
            times = (torch.arange(pairs, device=placed.device) * (per_second * between)).long()
            placed[0, start:end] = placed[0, start] + times.repeat_interleave((end - start) // pairs)
        start = end
    return placed


def place_text_after_video(positions: Tensor, kinds: Tensor) -> Tensor:
    """Rotary positions where every run of tokens starts behind the highest position before it.

    Args:
        positions: temporal, height and width positions of one un-padded prompt, shape ``(3, P)``.
        kinds: 0 text, 1 image, 2 video for each token, shape ``(P,)``.

    Returns:
        Positions of the same shape; the same values wherever they satisfied this already.
    """
    placed, following, start = positions.clone(), 0, 0
    for _, run in groupby(kinds.tolist()):
        end = start + len(list(run))
        placed[:, start:end] += following - positions[:, start:end].min()
        following = int(placed[:, start:end].max()) + 1
        start = end
    return torch.as_tensor(placed)
