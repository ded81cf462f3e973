"""Decoding many rows that share their prompt: one key/value buffer, in which each row sees its own part.

The buffer starts as the cache of one packed row (prompt and queries, each stored once) and grows by one slot per row
and step. All rows attend in one call, under a mask that grows with it. Nothing is copied per row: the memory of G
completions is that of one prompt, and decoding reads the prompt's keys once per step, not G times.

Shapes: R rows, L tokens of the packed row, r query heads per key/value head, d head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

__all__ = ["SharedCache", "active_cache"]

# Steps for which slots are made at a time.
_STEPS = 32

_ACTIVE: ContextVar[SharedCache | None] = ContextVar("shared_cache", default=None)


def active_cache() -> SharedCache | None:
    """The cache that attention must use now; set while :meth:`SharedCache.decoding` is entered."""
    return _ACTIVE.get()


class _Layer(CacheLayerMixin):
    """Keys and values of one layer, ``(1, H_kv, capacity, d)``, of which ``used`` slots are filled."""

    def __init__(self, owner: SharedCache, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.owner, self.keys, self.values = owner, keys, values
        self.used = keys.shape[2]
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: a layer is made from a filled cache."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store one token per row, ``(R, H_kv, 1, d)``; returns all filled slots, ``(1, H_kv, used, d)``."""
        rows, _, tokens, _ = key_states.shape
        if tokens != 1 or rows != self.owner.rows:
            raise ValueError(f"a shared cache takes one token of {self.owner.rows} rows, got {tokens} of {rows}")
        assert self.keys is not None
        assert self.values is not None
        if self.used + rows > self.keys.shape[2]:
            self.keys, self.values = (_grown(x, rows * _STEPS) for x in (self.keys, self.values))
        new = slice(self.used, self.used + rows)
        self.keys[0, :, new] = key_states[:, :, 0].transpose(0, 1)
        self.values[0, :, new] = value_states[:, :, 0].transpose(0, 1)
        self.used += rows
        self.owner.stored += 1
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]

    def get_seq_length(self) -> int:
        """Tokens of each row so far."""
        return self.owner.length + (self.used - self.owner.packed) // max(self.owner.rows, 1)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """What an ordinary cache of these rows would say."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name in earlier releases


def _grown(states: Tensor, slots: int) -> Tensor:
    grown = states.new_empty(1, states.shape[1], -(-(states.shape[2] + slots) // 16) * 16, states.shape[3])
    grown[:, :, : states.shape[2]] = states
    return grown


class SharedCache(Cache):
    """Cache of R rows over the filled cache of one packed row, for transformers' ``generate``.

    Args:
        prefilled: the cache after one forward over the packed row; given up layer by layer.
    """

    def __init__(self, prefilled: Cache) -> None:
        filled: list[Any] = prefilled.layers
        self.packed: int = prefilled.get_seq_length()
        self.rows, self.length, self.stored, self.attended = 0, 0, 0, 0
        self._visible = torch.empty(0)
        self._mask: Tensor | None = None
        layers: list[Any] = []
        for layer in filled:
            layers.append(_Layer(self, layer.keys, layer.values))
            layer.reset()
        super().__init__(layers=layers)

    @contextlib.contextmanager
    def decoding(self, visible: Tensor, length: int) -> Iterator[None]:
        """Decode rows that see the tokens ``visible`` (R, L) of the packed row, and what each row adds itself.

        Args:
            length: tokens ``generate`` must take as done in every row.

        Raises:
            RuntimeError: attention did not go through the wrapped interface.
        """
        self.rows, self.length = visible.shape[0], length
        self._visible, self._mask = visible, None
        for layer in self._own_layers():
            layer.used = self.packed
        token = _ACTIVE.set(self)
        try:
            yield
        finally:
            _ACTIVE.reset(token)
        if self.attended != self.stored:
            raise RuntimeError(
                f"attention used the shared cache {self.attended} times for {self.stored} updates: something replaced "
                "attention that goes through transformers' AttentionInterface (a fused kernel, a patched layer)"
            )

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """One new token per row, query ``(R, H, 1, d)``, over the filled slots of a layer -> ``(R, 1, H, d)``.

        Rows and the query heads of a key/value head become the queries of one attention call.
        """
        rows, heads, tokens, width = query.shape
        if tokens != 1 or rows != self.rows or key.shape[0] != 1:
            raise ValueError(f"a shared cache decodes one token of {self.rows} rows, got {tokens} of {rows}")
        groups = key.shape[1]
        repeats = heads // groups
        folded = query[:, :, 0].reshape(rows, groups, repeats, width).permute(1, 2, 0, 3).reshape(1, groups, -1, width)
        if torch.is_autocast_enabled(query.device.type):
            dtype = torch.get_autocast_dtype(query.device.type)
        else:
            folded, key, dtype = folded.to(value.dtype), key.to(value.dtype), value.dtype
        mask = self._mask_of(key.shape[2], repeats, dtype, query.device)
        out = F.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
        self.attended += 1
        return out.reshape(groups, repeats, rows, -1).permute(2, 0, 1, 3).reshape(rows, 1, heads, -1)

    def _mask_of(self, used: int, repeats: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Additive mask ``(1, 1, r * R, used)``: a view of one that serves all layers and many steps."""
        if self._mask is None or self._mask.shape[1] < used or self._mask.dtype != dtype:
            capacity = -(-(used + self.rows * _STEPS) // 16) * 16
            slots = torch.arange(capacity - self.packed, device=device) % self.rows
            own = slots == torch.arange(self.rows, device=device)[:, None]
            seen = torch.cat([self._visible.to(device), own], dim=1).repeat(repeats, 1)
            self._mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
        return self._mask[None, None, :, :used]

    def _own_layers(self) -> list[_Layer]:
        layers: list[Any] = self.layers
        return layers
