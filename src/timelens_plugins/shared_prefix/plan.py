"""Who attends to whom in a packed row: plain causal runs, and masked blocks for the branches.

A row holds the nodes of its trees depth first. A token attends to all tokens of its node's ancestors and, causally, to
its own node. The path root -> first child -> first child ... is contiguous, so it is ordinary causal attention without
a mask. The other nodes are cut into blocks of consecutive nodes; only a block has a mask, of size
(block, ancestors + block), never (row, row).

Shapes: L tokens of the row, n tokens of a block, K keys of a block, r query heads per key/value head.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from timelens_plugins.shared_prefix.kept import KeptPrefix

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


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """Consecutive nodes whose queries ``start..stop`` attend to the tokens in ``keys`` (row ranges) under a mask.

    Attributes:
        keys: ends with the block's own tokens.
        owner: which of the N nodes involved each key belongs to, N for none; shape ``(K,)``.
        ancestors: whether node j is above node i, shape ``(N, N + 1)``; the last column is False.
    """

    start: int
    stop: int
    keys: tuple[tuple[int, int], ...]
    owner: Tensor
    ancestors: Tensor
    _masks: dict[tuple[torch.dtype, torch.device, int], Tensor] = dataclasses.field(default_factory=dict, repr=False)

    def visible(self, device: torch.device) -> Tensor:
        """Which keys each query attends to, bool, shape ``(n, K)``."""
        n = self.stop - self.start
        owner = self.owner.to(device)
        own = owner[-n:]
        seen = self.ancestors.to(device)[own][:, owner]
        seen[:, -n:] |= (own[:, None] == own).tril()
        return seen

    def mask(self, dtype: torch.dtype, device: torch.device, repeats: int) -> Tensor:
        """Additive mask, shape ``(r * n, K)``; built once and shared by all layers and recomputations.

        Its rows are padded to a multiple of 16 elements in memory: fused kernels copy a mask that is not aligned, once
        per layer.
        """
        key = (dtype, device, repeats)
        if key not in self._masks:
            seen = self.visible(device)
            n, keys = seen.shape
            padded = torch.full((repeats, n, -(-keys // 16) * 16), float("-inf"), dtype=dtype, device=device)
            padded[:, :, :keys].masked_fill_(seen, 0.0)
            self._masks[key] = padded.flatten(0, 1)[:, :keys]
        return self._masks[key]


@dataclasses.dataclass(frozen=True, eq=False)
class TreePlan:
    """One tree of the row: tokens ``start..causal_stop`` are plain causal, the rest is in ``blocks``."""

    start: int
    causal_stop: int
    blocks: tuple[Block, ...]


class SharedPrefixPlan:
    """Who follows whom in one packed row; travels as the ``shared_prefix`` argument of the model's forward.

    Attributes:
        length: tokens of the row.
        trees: the attention of each tree, in row order; trees do not see each other.
        nodes: of all trees, in row order; parents are indices into this tuple.
        leaves: indices of the nodes without children.
        keeping: what the layers add the prefix to; None where none is kept.
        prefix: a kept prefix that this row continues; ``length`` and ``nodes`` then begin behind it, ``trees`` do not.
        layer: which linear-attention layer is at work.
        attentions, convolutions, recurrences: how often attention and the two functions of linear-attention layers
            followed this plan so far; tells whether the model's layers obeyed it.
    """

    def __init__(self, trees: Sequence[Sequence[Node]]) -> None:
        self.trees = tuple(_plan_tree(nodes) for nodes in trees)
        self.length = trees[-1][-1].stop
        nodes: list[Node] = []
        for tree in trees:
            first = len(nodes)
            nodes += [n if n.parent < 0 else dataclasses.replace(n, parent=n.parent + first) for n in tree]
        self.nodes = tuple(nodes)
        parents = {n.parent for n in nodes}
        self.leaves = tuple(i for i in range(len(nodes)) if i not in parents)
        self.keeping: KeptPrefix | None = None
        self.prefix: KeptPrefix | None = None
        self.layer = 0
        self.attentions = self.convolutions = self.recurrences = 0

    def after(self, prefix: KeptPrefix) -> SharedPrefixPlan:
        """The plan of the row behind a prefix, which is a part of its root.

        Raises:
            ValueError: several trees, or a prefix that is no part of the root.
        """
        if len(self.trees) != 1 or prefix.length > self.nodes[0].stop:
            raise ValueError(f"a prefix of {prefix.length} tokens is continued by one tree that begins with it")
        [tree], start = self.trees, prefix.length
        rest = copy.copy(self)
        # The causal run goes on behind the prefix: two nodes, of which the second sees all of the first.
        run = tree.causal_stop - start
        owner = torch.tensor([0] * start + [1] * run)
        first = Block(
            start, tree.causal_stop, ((0, tree.causal_stop),), owner, torch.tensor([[0, 0, 0], [1, 0, 0]]).bool()
        )
        rest.trees = (TreePlan(start, start, (first, *tree.blocks) if run else tree.blocks),)
        rest.nodes = tuple(Node(max(n.start - start, 0), n.stop - start, n.parent) for n in self.nodes)
        rest.length, rest.prefix = self.length - start, prefix
        return rest

    def batches(self, chunk: int) -> list[tuple[int, ...]]:
        """Nodes that can run together: of one depth and of equally many chunks, parents first; empty ones left out."""
        depths: list[int] = []
        together: dict[tuple[int, int], list[int]] = {}
        for i, node in enumerate(self.nodes):
            depths.append(0 if node.parent < 0 else depths[node.parent] + 1)
            if node.stop > node.start:
                together.setdefault((depths[i], -(-(node.stop - node.start) // chunk)), []).append(i)
        return [tuple(together[key]) for key in sorted(together)]

    def check(self, attention_layers: int, recurrent_layers: int) -> None:
        """Raise unless each of the model's layers followed this plan in the forward just done."""
        for what, calls, layers in (
            ("attention", self.attentions, attention_layers),
            ("linear-attention", min(self.convolutions, self.recurrences), recurrent_layers),
        ):
            if calls != layers:
                raise RuntimeError(
                    f"{calls} of {layers} {what} layers followed the shared prefix: something replaced what they "
                    "compute with (a fused kernel, a patched layer); turn it off"
                )


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

    involved = [*outside, *range(first, last)]
    owner = torch.full((stop - keys[0][0],), len(involved))
    ancestors = torch.zeros(len(involved), len(involved) + 1, dtype=torch.bool)
    for local, i in enumerate(involved):
        owner[nodes[i].start - keys[0][0] : nodes[i].stop - keys[0][0]] = local
        if i in paths:
            ancestors[local, [involved.index(a) for a in paths[i]]] = True
    owner = torch.cat([owner[a - keys[0][0] : b - keys[0][0]] for a, b in keys])
    return Block(start, stop, tuple(keys), owner, ancestors)


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
