"""Trees -> one row of tokens with positions, an attention plan, and where each scored token is predicted.

The nodes follow each other depth first. A token is predicted at the token before it on its path, so the first tokens
of all children are predicted at the same place, the last token of their parent: nothing is repeated, and the last token
of a leaf needs no place in the row, unless what the layers do with it counts as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from timelens_plugins.shared_prefix.kept import KeptPrefix
from timelens_plugins.shared_prefix.plan import Node, SharedPrefixPlan
from timelens_plugins.shared_prefix.tree import GRIDS, Branch, Prompt, PromptTree

__all__ = ["PackedRow", "pack", "prompt_positions"]


@dataclasses.dataclass(frozen=True, eq=False)
class PackedRow:
    """One row of L tokens for the model's forward, and the S scored tokens it predicts.

    Attributes:
        input_ids: shape ``(1, L)``.
        position_ids: temporal, height and width positions, shape ``(3, 1, L)``.
        plan: who attends to whom.
        predictors: row index whose hidden state predicts each scored token, shape ``(S,)``.
        targets: ids of the scored tokens, shape ``(S,)``.
        lengths: scored tokens of every scored branch, in the order of ``PromptTree.scored_branches``.
        copies: rows of the plain batch, one for each path, that hold each token, shape ``(L,)``.
    """

    input_ids: Tensor
    position_ids: Tensor
    plan: SharedPrefixPlan
    predictors: Tensor
    targets: Tensor
    lengths: tuple[int, ...]
    copies: Tensor

    def after(self, prefix: KeptPrefix) -> PackedRow:
        """The part of the row behind a kept prefix, which holds all scored tokens."""
        start = prefix.length
        return PackedRow(
            self.input_ids[:, start:],
            self.position_ids[:, :, start:],
            self.plan.after(prefix),
            self.predictors - start,
            self.targets,
            self.lengths,
            self.copies[start:],
        )


# The model walks through a prompt token by token: computed once per prompt, forgotten with it.
_POSITIONS: WeakKeyDictionary[Prompt, dict[type, tuple[Tensor, int]]] = WeakKeyDictionary()


def prompt_positions(core: Any, prompt: Prompt) -> tuple[Tensor, int]:
    """Positions ``(3, P)`` of a prompt by the model's own ``get_rope_index``, and that of the next text token.

    The next position is read off by letting the model place one more text token: models differ in where text goes on
    after a video.
    """
    known = _POSITIONS.setdefault(prompt, {})
    if type(core) not in known:
        ids = torch.cat([prompt.input_ids, prompt.input_ids[-1:]])[None]
        kinds = torch.cat([prompt.mm_token_type_ids, prompt.mm_token_type_ids.new_zeros(1)])[None]
        grids = {k: v.cpu() for k, v in prompt.vision.items() if k in GRIDS.values() or k == "second_per_grid_ts"}
        positions = core.get_rope_index(input_ids=ids.cpu(), mm_token_type_ids=kinds.cpu(), **grids)[0][:, 0]
        known[type(core)] = positions[:, :-1], int(positions[0, -1])
    return known[type(core)]


def split_positions(core: Any, prompt: Prompt, prefix: Prompt) -> None:
    """Take over the positions of a prompt for all of it but its last token, which has to be text."""
    positions, _ = prompt_positions(core, prompt)
    known = _POSITIONS.setdefault(prefix, {})
    known[type(core)] = positions[:, :-1], int(positions[0, -1])


def pack(core: Any, trees: Sequence[PromptTree], device: torch.device, *, leaf_ends: bool = False) -> PackedRow:
    """Pack ``trees`` for the vision-language model ``core``.

    Args:
        leaf_ends: keep the last token of each leaf, which predicts nothing.

    Raises:
        ValueError: no scored token, vision tokens in a branch, or vision tokens that do not fit the grids.
    """
    if not trees:
        raise ValueError("no trees to pack")
    row = _Row(core, leaf_ends)
    for index, tree in enumerate(trees):
        check_vision_tokens(core, tree.prompt)
        row.add_tree(index, tree)
    if not row.targets:
        raise ValueError("no branch is scored: nothing to compute")
    return PackedRow(
        input_ids=torch.cat(row.ids)[None].to(device),
        position_ids=torch.cat(row.positions, dim=1)[:, None].to(device),
        plan=SharedPrefixPlan(row.trees),
        predictors=torch.cat(row.predictors).to(device),
        targets=torch.cat(row.targets).to(device),
        lengths=tuple(t.numel() for t in row.targets),
        copies=torch.cat(row.copies).to(device),
    )


class _Row:
    def __init__(self, core: Any, leaf_ends: bool) -> None:
        self.core, self.leaf_ends = core, leaf_ends
        self.vision_tokens = torch.tensor([core.config.image_token_id, core.config.video_token_id])
        self.ids: list[Tensor] = []
        self.positions: list[Tensor] = []
        self.predictors: list[Tensor] = []
        self.targets: list[Tensor] = []
        self.copies: list[Tensor] = []
        self.trees: list[list[Node]] = []
        self.length = 0

    def add_tree(self, index: int, tree: PromptTree) -> None:
        positions, following = prompt_positions(self.core, tree.prompt)
        nodes: list[Node] = []
        self.trees.append(nodes)
        paths = sum(map(_paths, tree.branches))
        self._append(nodes, tree.prompt.input_ids.cpu(), positions, parent=-1, paths=paths)
        for branch in tree.branches:
            self._add_branch(index, nodes, branch, parent=0, position=following)

    def _add_branch(self, index: int, nodes: list[Node], branch: Branch, parent: int, position: int) -> None:
        tokens = branch.tokens.cpu()
        if bool(torch.isin(tokens, self.vision_tokens).any()):
            raise ValueError(
                f"a branch of tree {index} holds image or video tokens, which only prompts may: keep a model from "
                "sampling them with suppress_tokens=[image_token_id, video_token_id] in its generation config"
            )
        start = self.length
        own = tokens if branch.children or self.leaf_ends else tokens[:-1]
        positions = torch.arange(position, position + own.numel()).expand(3, -1)
        self._append(nodes, own, positions, parent, paths=_paths(branch))
        if branch.scored:
            before = _last_token(nodes, parent)
            self.predictors.append(torch.cat([torch.tensor([before]), torch.arange(start, start + tokens.numel() - 1)]))
            self.targets.append(tokens)
        here = len(nodes) - 1
        for child in branch.children:
            self._add_branch(index, nodes, child, here, position + tokens.numel())

    def _append(self, nodes: list[Node], tokens: Tensor, positions: Tensor, parent: int, paths: int) -> None:
        nodes.append(Node(self.length, self.length + tokens.numel(), parent))
        self.ids.append(tokens)
        self.positions.append(positions)
        self.copies.append(torch.full_like(tokens, paths))
        self.length += tokens.numel()


def _paths(branch: Branch) -> int:
    """Leaves at or below a branch."""
    return sum(map(_paths, branch.children)) or 1


def _last_token(nodes: list[Node], index: int) -> int:
    """Row index of the last token of a node that has children."""
    return nodes[index].stop - 1


def check_vision_tokens(core: Any, prompt: Prompt) -> None:
    """Compare the prompt's vision tokens with its grids, before the model fails somewhere inside."""
    merge = core.config.vision_config.spatial_merge_size**2
    for modality, kind, token in (
        ("image", 1, core.config.image_token_id),
        ("video", 2, core.config.video_token_id),
    ):
        here = prompt.mm_token_type_ids == kind
        if not torch.equal(here, prompt.input_ids == token):
            raise ValueError(f"mm_token_type_ids and the {modality} tokens (id {token}) of a prompt disagree")
        if bool(here.any()):
            expected = int(prompt.vision[GRIDS[modality]].prod(-1).sum()) // merge
            if expected != int(here.sum()):
                raise ValueError(
                    f"a prompt has {int(here.sum())} {modality} tokens, but {GRIDS[modality]} means {expected}"
                )
