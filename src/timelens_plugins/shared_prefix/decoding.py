"""Decoding many rows that share their prompts: one key/value buffer for each prompt, in which a row sees its own part.

A buffer starts as the cache of one tree of a packed row (prompt and queries, each stored once) and grows by one slot
per row and step. The rows of a tree attend in one call, under a mask that grows with it, and no row pays for the length
of another tree. Nothing is copied per row: the memory of G completions is that of one prompt, and decoding reads the
prompt's keys once per step, not G times. Layers of linear attention have no buffer: there, each row starts from a copy
of the state that its query ended with.

Shapes: R rows, L tokens of the packed rows, r query heads per key/value head, d head size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, LinearAttentionLayer

from timelens_plugins.shared_prefix.plan import SharedPrefixPlan
from timelens_plugins.shared_prefix.recurrence import leaf_columns

__all__ = ["SharedCache", "active_cache", "packed_cache"]

# Steps for which slots are made at a time.
_STEPS = 32

_ACTIVE: ContextVar[SharedCache | None] = ContextVar("shared_cache", default=None)


def active_cache() -> SharedCache | None:
    """The cache that attention must use now; set while :meth:`SharedCache.decoding` is entered."""
    return _ACTIVE.get()


class _Buffer:
    """Keys and values of one tree in one layer, ``(1, H_kv, capacity, d)``, of which ``used`` slots are filled."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.packed = self.used = keys.shape[2]

    def append(self, keys: Tensor, values: Tensor) -> None:
        """One token of each row, ``(R, H_kv, d)``."""
        rows = keys.shape[0]
        if self.used + rows > self.keys.shape[2]:
            self.keys, self.values = (_grown(x, rows * _STEPS) for x in (self.keys, self.values))
        new = slice(self.used, self.used + rows)
        self.keys[0, :, new] = keys.transpose(0, 1)
        self.values[0, :, new] = values.transpose(0, 1)
        self.used += rows

    def filled(self) -> tuple[Tensor, Tensor]:
        """All slots so far."""
        return self.keys[:, :, : self.used], self.values[:, :, : self.used]


def _grown(states: Tensor, slots: int) -> Tensor:
    grown = states.new_empty(1, states.shape[1], -(-(states.shape[2] + slots) // 16) * 16, states.shape[3])
    grown[:, :, : states.shape[2]] = states
    return grown


class _Layer(CacheLayerMixin):
    """One layer of full attention: a buffer for each tree."""

    def __init__(self, owner: SharedCache, buffers: list[_Buffer]) -> None:
        super().__init__()
        self.owner, self.buffers, self.steps = owner, buffers, 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: a layer is made from a filled cache."""

    def begin(self) -> None:
        """Forget what was decoded."""
        self.steps = 0
        for buffer in self.buffers:
            buffer.used = buffer.packed

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store one token per row, ``(R, H_kv, 1, d)``; returned as they came: attention asks the cache."""
        rows, _, tokens, _ = key_states.shape
        if tokens != 1 or rows != self.owner.rows:
            raise ValueError(f"a shared cache takes one token of {self.owner.rows} rows, got {tokens} of {rows}")
        for group in self.owner.groups:
            self.buffers[group.tree].append(key_states[group.rows, :, 0], value_states[group.rows, :, 0])
        self.steps += 1
        self.owner.stored += 1
        self.owner.updated = self
        return key_states, value_states

    def get_seq_length(self) -> int:
        """Tokens of each row so far."""
        return self.owner.length + self.steps

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """What an ordinary cache of these rows would say."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    get_max_cache_shape = get_max_length  # its name in earlier releases


class _States(LinearAttentionLayer):
    """One layer of linear attention: filled by a packed row, then the states of each row that is decoded.

    Attributes:
        columns, ends: last inputs of the convolution and recurrent state of each leaf of the plan, shapes
            ``(leaves, C, K)`` and ``(leaves, H, d_k, d_v)``.
    """

    def __init__(self, plan: SharedPrefixPlan) -> None:
        super().__init__()
        self.plan = plan
        self.columns, self.ends = torch.empty(0), torch.empty(0)

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: Any
    ) -> Tensor:
        """The columns of a packed row, ``(1, C, L)``, are kept leaf by leaf; those of rows as by the parent."""
        if self.has_previous_state[state_idx]:
            return super().update_conv_state(conv_states, state_idx, conv_kernel_size=conv_kernel_size, **kwargs)
        assert conv_kernel_size is not None
        self.columns = leaf_columns(conv_states, self.plan, conv_kernel_size)
        return conv_states

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: Any) -> Tensor:
        """The states of all leaves, or as by the parent."""
        if self.has_previous_state[state_idx]:
            return super().update_recurrent_state(recurrent_states, state_idx, **kwargs)
        self.ends = recurrent_states
        return recurrent_states

    def begin(self, leaves: Tensor) -> None:
        """Decode rows that continue ``leaves``, shape ``(R,)``."""
        self.conv_states[0], self.recurrent_states[0] = self.columns[leaves], self.ends[leaves]
        self.conv_kernel_size[0] = self.columns.shape[-1]
        for known in (self.is_conv_states_initialized, self.is_recurrent_states_initialized, self.has_previous_state):
            known[0] = True


def packed_cache(config: PretrainedConfig, plan: SharedPrefixPlan) -> DynamicCache:
    """An empty cache for one forward over a packed row, from which a :class:`SharedCache` can be made."""
    cache = DynamicCache(config=config)
    layers: list[Any] = cache.layers
    layers[:] = [_States(plan) if isinstance(layer, LinearAttentionLayer) else layer for layer in layers]
    return cache


@dataclasses.dataclass
class _Group:
    """The rows of a batch that continue one tree."""

    tree: int
    rows: slice
    visible: Tensor  # which tokens of the tree each row sees, (rows, tokens)
    mask: Tensor | None = None

    def mask_of(self, used: int, repeats: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Additive mask ``(1, 1, r * R, used)``: a view of one that serves all layers and many steps."""
        rows, packed = self.visible.shape
        if self.mask is None or self.mask.shape[1] < used or self.mask.dtype != dtype:
            capacity = -(-(used + rows * _STEPS) // 16) * 16
            slots = torch.arange(capacity - packed, device=device) % rows
            own = slots == torch.arange(rows, device=device)[:, None]
            seen = torch.cat([self.visible.to(device), own], dim=1).repeat(repeats, 1)
            self.mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
        return self.mask[None, None, :, :used]


class SharedCache(Cache):
    """Cache of R rows over the filled caches of packed rows, for transformers' ``generate``.

    Args:
        prefilled: each a :func:`packed_cache` after one forward over a packed row, and that row's plan; the caches are
            given up layer by layer. Tokens and leaves are counted through all of them.

    Attributes:
        packed: tokens of all packed rows.
    """

    def __init__(self, prefilled: Sequence[tuple[Cache, SharedPrefixPlan]]) -> None:
        self.rows, self.length, self.stored, self.attended = 0, 0, 0, 0
        self.groups: list[_Group] = []
        self.updated: _Layer | None = None
        self._trees: list[slice] = []
        self._tree_of_leaf: list[int] = []
        self.packed = 0
        for _, plan in prefilled:
            starts = [tree.start for tree in plan.trees]
            first = len(self._trees)
            ranges = zip(starts, [*starts[1:], plan.length], strict=True)
            self._trees += [slice(self.packed + start, self.packed + stop) for start, stop in ranges]
            tree_of: list[int] = []
            for node in plan.nodes:
                tree_of.append(max(tree_of, default=first - 1) + 1 if node.parent < 0 else tree_of[node.parent])
            self._tree_of_leaf += [tree_of[i] for i in plan.leaves]
            self.packed += plan.length
        every: list[list[Any]] = [cache.layers for cache, _ in prefilled]
        plans = [plan for _, plan in prefilled]
        super().__init__(layers=[self._joined(same, plans) for same in zip(*every, strict=True)])

    def _joined(self, layers: tuple[Any, ...], plans: Sequence[SharedPrefixPlan]) -> Any:
        """The same layer of all caches."""
        if isinstance(layers[0], _States):
            first: _States = layers[0]
            first.columns = torch.cat([layer.columns for layer in layers])
            first.ends = torch.cat([layer.ends for layer in layers])
            return first
        buffers = []
        for layer, plan in zip(layers, plans, strict=True):
            starts = [tree.start for tree in plan.trees]
            for start, stop in zip(starts, [*starts[1:], plan.length], strict=True):
                buffers.append(_Buffer(layer.keys[:, :, start:stop], layer.values[:, :, start:stop]))
            layer.keys = layer.values = None  # not reset(): up to transformers 5.17 it writes zeros into them
        return _Layer(self, buffers)

    @contextlib.contextmanager
    def decoding(self, visible: Tensor, length: int, leaves: Tensor) -> Iterator[None]:
        """Decode rows that see the tokens ``visible`` (R, L) of the packed rows, and what each row adds itself.

        Args:
            length: tokens ``generate`` must take as done in every row.
            leaves: which leaf of the packed rows each row continues, shape ``(R,)``; rows of a tree follow each other.

        Raises:
            ValueError: rows that see tokens of another tree than their leaf's.
            RuntimeError: attention did not go through the wrapped interface.
        """
        self.rows, self.length = visible.shape[0], length
        self.groups = self._grouped(visible, leaves)
        for layer in self.layers:
            if isinstance(layer, _States):
                layer.begin(leaves)
            elif isinstance(layer, _Layer):
                layer.begin()
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

    def _grouped(self, visible: Tensor, leaves: Tensor) -> list[_Group]:
        groups, start = [], 0
        for tree, rows in itertools.groupby(self._tree_of_leaf[leaf] for leaf in leaves.tolist()):
            stop = start + len(list(rows))
            groups.append(_Group(tree, slice(start, stop), visible[start:stop, self._trees[tree]]))
            start = stop
        if len({group.tree for group in groups}) != len(groups) or sum(int(g.visible.sum()) for g in groups) != int(
            visible.sum()
        ):
            raise ValueError("rows of one tree must follow each other and see tokens of their own tree only")
        return groups

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """One new token per row, query ``(R, H, 1, d)``, over the slots of the layer updated last -> ``(R, 1, H, d)``.

        ``key`` and ``value``, ``(R, H_kv, 1, d)``, are in their buffers already. The rows of a tree and the query heads
        of a key/value head become the queries of one attention call.
        """
        rows, heads, tokens, width = query.shape
        layer, self.updated = self.updated, None
        if layer is None or tokens != 1 or rows != self.rows or key.shape[0] != rows:
            raise ValueError(f"a shared cache decodes one token of {self.rows} rows, got {tokens} of {rows}")
        groups = key.shape[1]
        repeats = heads // groups
        parts = []
        for group in self.groups:
            keys, values = layer.buffers[group.tree].filled()
            own = query[group.rows, :, 0]
            n = own.shape[0]
            folded = own.reshape(n, groups, repeats, width).permute(1, 2, 0, 3).reshape(1, groups, -1, width)
            if torch.is_autocast_enabled(query.device.type):
                dtype = torch.get_autocast_dtype(query.device.type)
            else:
                folded, keys, dtype = folded.to(values.dtype), keys.to(values.dtype), values.dtype
            mask = group.mask_of(keys.shape[2], repeats, dtype, query.device)
            out = F.scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scaling)
            parts.append(out.reshape(groups, repeats, n, -1).permute(2, 0, 1, 3).reshape(n, 1, heads, -1))
        self.attended += 1
        return parts[0] if len(parts) == 1 else torch.cat(parts)
