"""Vision attention over many frames at once.

Off flash attention, transformers calls attention once per frame (or window) in a Python loop. Segments of equal length
are one batch; a video has one length, window attention at most four.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["attend_by_length"]


def attend_by_length(
    base: Callable[..., tuple[Tensor, Tensor | None]],
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    **kwargs: Any,
) -> Tensor:
    """Attention within each of the consecutive segments of ``lengths`` tokens.

    Args:
        base: attention function on ``(B, H, l, d)``, returning ``(B, l, H, d)`` first.
        query, key, value: shape ``(1, H, sum(lengths), d)``.

    Returns:
        Shape ``(1, sum(lengths), H, d)``.
    """
    if len(set(lengths)) == 1:
        batched = [_split(x[0], len(lengths)) for x in (query, key, value)]
        return base(module, *batched, None, **kwargs)[0].flatten(0, 1)[None]
    all_lengths = torch.tensor(lengths)
    starts = all_lengths.cumsum(0) - all_lengths
    rows, parts = [], []
    for length in sorted(set(lengths)):
        segment_starts = starts[all_lengths == length]
        index = (segment_starts[:, None] + torch.arange(length)).flatten().to(query.device)
        batched = [_split(x[0, :, index], len(segment_starts)) for x in (query, key, value)]
        parts.append(base(module, *batched, None, **kwargs)[0].flatten(0, 1))
        rows.append(index)
    return torch.cat(parts)[torch.argsort(torch.cat(rows))][None]


def _split(states: Tensor, segments: int) -> Tensor:
    """(H, segments * l, d) -> (segments, H, l, d)."""
    heads, tokens, width = states.shape
    return states.reshape(heads, segments, tokens // segments, width).transpose(0, 1)
