"""Who attends to whom in a packed row: plain causal runs, and masked blocks for the branches.

A row holds the nodes of its trees depth first. A token attends to all tokens of its node's ancestors and, causally, to
its own node. The path root -> first child -> first child ... is contiguous, so it is ordinary causal attention without
a mask. The other nodes are cut into blocks of consecutive nodes; only a block has a mask, of size
(block, ancestors + block), never (row, row).

Shapes: L tokens of the row, n tokens of a block, K keys of a block, r query heads per key/value head.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Block", "Node", "SharedPrefixPlan", "TreePlan"]

# Queries of one block. Larger blocks waste attention between siblings and need larger masks; smaller ones need more
# kernel launches and copies of the prefix keys. Answers of grounding fit one block.
_BLOCK_TOKENS = 512


@dataclasses.dataclass(frozen=True)
class Node:
    """Tokens ``start..stop`` of the row that continue node ``parent`` (an index; -1 for a root). May be empty."""

    start: int
    stop: int
    parent: int


@dataclasses.dataclass(eq=False)
class Block:
    """Consecutive nodes whose queries ``start..stop`` attend to the tokens in ``keys`` (row ranges) under a mask."""

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]
    visible: Tensor  # (n, K) bool, on the CPU
    _masks: dict[tuple[torch.dtype, torch.device, int], Tensor] = dataclasses.field(default_factory=dict, repr=False)

    def mask(self, dtype: torch.dtype, device: torch.device, repeats: int) -> Tensor:
        """Additive mask, shape ``(r * n, K)``; built once and shared by all layers and recomputations.

        Its rows are padded to a multiple of 16 elements in memory: fused kernels copy a mask that is not aligned, once
        per layer.
        """
        key = (dtype, device, repeats)
        if key not in self._masks:
            n, keys = self.visible.shape
            padded = torch.full((repeats * n, -(-keys // 16) * 16), float("-inf"), dtype=dtype, device=device)
            mask = padded[:, :keys]
            mask.masked_fill_(self.visible.to(device).repeat(repeats, 1), 0.0)
            self._masks[key] = mask
        return self._masks[key]


@dataclasses.dataclass(frozen=True, eq=False)
class TreePlan:
    """One tree of the row: tokens ``start..causal_stop`` are plain causal, the rest is in ``blocks``."""

    start: int
    causal_stop: int
    blocks: tuple[Block, ...]


class SharedPrefixPlan:
    """The attention of one packed row; travels as the ``shared_prefix`` argument of the model's forward.

    Attributes:
        length: tokens of the row.
        trees: one plan per tree, in row order; trees do not see each other.
        calls: how often attention followed this plan so far; tells whether the model's layers obeyed it.
    """

    def __init__(self, trees: Sequence[Sequence[Node]]) -> None:
        self.trees = tuple(_plan_tree(nodes) for nodes in trees)
        self.length = trees[-1][-1].stop
        self.calls = 0


def _plan_tree(nodes: Sequence[Node]) -> TreePlan:
    chain = 1
    while chain < len(nodes) and nodes[chain].parent == chain - 1:
        chain += 1
    blocks: list[Block] = []
    first = chain
    while first < len(nodes):
        last = first + 1
        while last < len(nodes) and nodes[last].stop - nodes[first].start <= _BLOCK_TOKENS:
            last += 1
        if nodes[last - 1].stop > nodes[first].start:
            blocks.append(_plan_block(nodes, first, last))
        first = last
    return TreePlan(nodes[0].start, nodes[chain - 1].stop, tuple(blocks))


def _plan_block(nodes: Sequence[Node], first: int, last: int) -> Block:
    start, stop = nodes[first].start, nodes[last - 1].stop
    paths = {i: _path(nodes, i) for i in range(first, last)}
    outside = sorted({a for path in paths.values() for a in path if a < first})
    keys = _merge([*((nodes[a].start, nodes[a].stop) for a in outside), (start, stop)])
    needed = sum(b - a for a, b in keys)
    if stop - keys[0][0] <= needed * 5 // 4:
        keys = [(keys[0][0], stop)]  # a few foreign tokens, masked out, cost less than a copy of the prefix keys

    position = torch.cat([torch.arange(a, b) for a, b in keys])  # (K,) row index of every key
    owner = torch.full_like(position, -1)
    for i in {*outside, *range(first, last)}:
        owner[(position >= nodes[i].start) & (position < nodes[i].stop)] = i
    visible = torch.zeros(stop - start, position.numel(), dtype=torch.bool)
    for i, path in paths.items():
        rows = slice(nodes[i].start - start, nodes[i].stop - start)
        query = torch.arange(nodes[i].start, nodes[i].stop)
        own = (owner == i) & (position <= query[:, None])
        visible[rows] = own | torch.isin(owner, torch.tensor(path))
    return Block(start, stop, tuple(keys), visible)


def _path(nodes: Sequence[Node], index: int) -> list[int]:
    path = []
    while (index := nodes[index].parent) >= 0:
        path.append(index)
    return path


def _merge(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(r for r in ranges if r[0] < r[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged
