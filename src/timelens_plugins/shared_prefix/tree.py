"""What shares what: a prompt, the branches that continue it, and the branches that continue those.

A :class:`Prompt` is everything shared (token ids and vision tensors); a :class:`Branch` is text that continues its
parent; a :class:`PromptTree` is one prompt with its branches. Only data and its validation live here: no model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from timelens_plugins.shared_prefix.features import VisionFeatures

__all__ = ["Branch", "Prompt", "PromptTree", "Tokens", "share_prompt"]

Tokens: TypeAlias = Tensor | Sequence[int]

PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}
GRIDS = {"image": "image_grid_thw", "video": "video_grid_thw"}
_VISION_KEYS = frozenset({*PIXELS.values(), *GRIDS.values(), "second_per_grid_ts"})
_DROPPED_KEYS = frozenset({"attention_mask"})


def _as_tokens(tokens: Tokens, what: str) -> Tensor:
    ids = torch.as_tensor(tokens)
    if ids.ndim != 1 or (ids.numel() and (ids.is_floating_point() or ids.dtype == torch.bool)):
        raise ValueError(f"{what} must be one-dimensional integers, got shape {tuple(ids.shape)} of {ids.dtype}")
    if ids.numel() == 0:
        raise ValueError(f"{what} has no tokens: leave it out, or keep at least its end-of-sequence token")
    return ids.long()


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """The prefix that all branches share, un-padded.

    Attributes:
        input_ids: token ids, shape ``(P,)``.
        mm_token_type_ids: 0 text, 1 image, 2 video, shape ``(P,)``, as the processor returns it.
        vision: the processor's vision tensors of this prompt: ``pixel_values_videos``, ``video_grid_thw``,
            ``second_per_grid_ts``, ``pixel_values``, ``image_grid_thw``. Pixels may be missing where ``features`` are.
        features: what :func:`encode_vision` computed once, by modality (``"image"``, ``"video"``).
    """

    input_ids: Tensor
    mm_token_type_ids: Tensor
    vision: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    features: Mapping[str, VisionFeatures] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_ids", _as_tokens(self.input_ids, "a prompt"))
        object.__setattr__(self, "mm_token_type_ids", _as_tokens(self.mm_token_type_ids, "mm_token_type_ids"))
        if self.input_ids.shape != self.mm_token_type_ids.shape:
            raise ValueError(
                f"input_ids has {self.input_ids.numel()} tokens, mm_token_type_ids {self.mm_token_type_ids.numel()}"
            )
        if unknown := set(self.vision) - _VISION_KEYS:
            raise ValueError(f"unknown vision inputs {sorted(unknown)}; known: {sorted(_VISION_KEYS)}")
        for modality, kind in (("image", 1), ("video", 2)):
            tokens = bool((self.mm_token_type_ids == kind).any())
            if tokens != (GRIDS[modality] in self.vision):
                has, lacks = ("tokens", GRIDS[modality]) if tokens else (GRIDS[modality], "tokens")
                raise ValueError(f"the prompt has {modality} {has} but no {lacks}: give both or neither")
            if tokens and PIXELS[modality] not in self.vision and modality not in self.features:
                raise ValueError(f"the prompt has {modality} tokens but neither {PIXELS[modality]} nor features")

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, Any]) -> Prompt:
        """The prompt of a processor's output for **one** un-padded text, tensors of shape ``(1, P)``."""
        ids = torch.as_tensor(inputs["input_ids"])
        if ids.ndim != 2 or ids.shape[0] != 1:
            raise ValueError(f"expected one prompt of shape (1, P), got input_ids of shape {tuple(ids.shape)}")
        mask = inputs.get("attention_mask")
        if mask is not None and not bool(torch.as_tensor(mask).all()):
            raise ValueError("the prompt is padded: call the processor on one text at a time, without padding")
        if "mm_token_type_ids" not in inputs:
            raise ValueError("mm_token_type_ids is missing: call the processor with return_mm_token_type_ids=True")
        rest = {k: v for k, v in inputs.items() if k not in _DROPPED_KEYS | {"input_ids", "mm_token_type_ids"}}
        return cls(
            input_ids=ids[0],
            mm_token_type_ids=torch.as_tensor(inputs["mm_token_type_ids"])[0],
            vision={k: torch.as_tensor(v) for k, v in rest.items() if v is not None},
        )

    def __len__(self) -> int:
        return int(self.input_ids.numel())

    def __deepcopy__(self, memo: dict[int, Any]) -> Prompt:
        """Immutable, and often gigabytes: copies are the same object, so siblings still know that they share."""
        return self


@dataclasses.dataclass(frozen=True, eq=False)
class Branch:
    """Text that continues the prompt or another branch.

    Attributes:
        tokens: token ids, shape ``(n,)``, n >= 1. Vision tokens are refused when the tree is packed.
        children: branches that continue this one.
        scored: whether these tokens get log-probabilities: completions and answers do, queries do not.
    """

    tokens: Tensor
    children: Sequence[Branch] = ()
    scored: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _as_tokens(self.tokens, "a branch"))
        object.__setattr__(self, "children", tuple(self.children))


@dataclasses.dataclass(frozen=True, eq=False)
class PromptTree:
    """One prompt and its branches; see :meth:`group` and :meth:`of_queries` for the two usual shapes."""

    prompt: Prompt
    branches: Sequence[Branch]

    def __post_init__(self) -> None:
        object.__setattr__(self, "branches", tuple(self.branches))
        if not self.branches:
            raise ValueError("a tree needs at least one branch")

    @classmethod
    def group(cls, prompt: Prompt, completions: Iterable[Tokens]) -> PromptTree:
        """One prompt and its completions, all scored: a GRPO group."""
        return cls(prompt, [Branch(torch.as_tensor(c)) for c in completions])

    @classmethod
    def of_queries(cls, prompt: Prompt, queries: Iterable[tuple[Tokens, Iterable[Tokens]]]) -> PromptTree:
        """One video, several ``(query, answers)``: queries are context, answers are scored (SFT packing, tree GRPO)."""
        return cls(
            prompt,
            [
                Branch(torch.as_tensor(query), [Branch(torch.as_tensor(a)) for a in answers], scored=False)
                for query, answers in queries
            ],
        )

    def scored_branches(self) -> list[Branch]:
        """The branches that get log-probabilities, depth first: the order of every result."""
        found: list[Branch] = []

        def visit(branch: Branch) -> None:
            if branch.scored:
                found.append(branch)
            for child in branch.children:
                visit(child)

        for branch in self.branches:
            visit(branch)
        return found


def share_prompt(prompts: Sequence[Prompt]) -> tuple[Prompt, list[Tensor]]:
    """Several full prompts of one video -> the part they share, and what each adds to it.

    The shared part is the longest common run of tokens that leaves every prompt at least one token of its own; it must
    hold all vision tokens. Tokenisation is never redone, so joining the parts gives back exactly the prompts.

    Returns:
        ``(shared prompt, [own tokens of each prompt])``, ready for :meth:`PromptTree.of_queries`.

    Raises:
        ValueError: the vision inputs differ, or vision tokens come after the point where the prompts part.
    """
    if not prompts:
        raise ValueError("no prompts to share")
    first = prompts[0]
    for i, other in enumerate(prompts[1:], start=1):
        if set(other.vision) != set(first.vision) or not all(
            v is other.vision[k] or torch.equal(v, other.vision[k]) for k, v in first.vision.items()
        ):
            raise ValueError(f"prompt {i} has other vision inputs than prompt 0: only prompts of one video can share")
    limit = min(len(p) for p in prompts) - 1
    common = limit
    for other in prompts[1:]:
        differs = (first.input_ids[:common] != other.input_ids[:common]).nonzero()
        if differs.numel():
            common = int(differs[0])
    for i, prompt in enumerate(prompts):
        if bool(prompt.mm_token_type_ids[common:].any()):
            raise ValueError(f"prompt {i} has vision tokens after token {common}, where the prompts part")
    if common == 0:
        raise ValueError("the prompts have no token in common")
    shared = dataclasses.replace(
        first, input_ids=first.input_ids[:common], mm_token_type_ids=first.mm_token_type_ids[:common]
    )
    return shared, [p.input_ids[common:] for p in prompts]
