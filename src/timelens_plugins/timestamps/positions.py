"""Puts the text after a video where Qwen2.5-VL was trained to find it: at rotary positions after all of the video.

A Qwen2.5-VL video spans as many temporal positions as it lasts (two a second). Up to transformers 5.2 the text after
it went on behind the highest of them. Later releases go on behind its height and width only, so that the question
stands amid the video's positions, and generated tokens behind it again. Images, and every layout of Qwen3-VL, are the
same either way.
"""

from __future__ import annotations

import functools
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["place_text_after_video", "restore_text_positions"]

_RESTORED = "_timelens_restored"


def restore_text_positions(model: nn.Module) -> nn.Module:
    """Make ``model`` place text after a video; changes nothing where it does already. Returns the model.

    Wraps the ``get_rope_index`` of the vision-language module inside ``model``, whatever wraps that (PEFT, DDP).
    Training, log-probabilities and generation all ask it for positions.

    Raises:
        ValueError: there is no such module.
    """
    for module in model.modules():
        if hasattr(module, "get_rope_index") and hasattr(module, "language_model"):
            if not hasattr(module.get_rope_index, _RESTORED):
                module.get_rope_index = _placing(module.get_rope_index)
            return model
    raise ValueError(f"{type(model).__name__} has no get_rope_index: not a Qwen-VL style model")


def _placing(upstream: Any) -> Any:
    @functools.wraps(upstream)
    def get_rope_index(
        input_ids: Tensor, mm_token_type_ids: Tensor, *args: Any, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        positions, deltas = upstream(input_ids, mm_token_type_ids, *args, attention_mask=attention_mask, **kwargs)
        deltas = deltas.clone()
        for row, kinds in enumerate(mm_token_type_ids):
            kept = slice(None) if attention_mask is None else attention_mask[row].bool()
            placed = place_text_after_video(positions[:, row, kept], kinds[kept])
            positions[:, row, kept] = placed
            deltas[row] = placed.max() + 1 - placed.shape[1]
        return positions, deltas

    setattr(get_rope_index, _RESTORED, True)
    return get_rope_index


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
