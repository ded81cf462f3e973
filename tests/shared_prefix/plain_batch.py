"""The plain computation to compare with: every path of a tree as its own row of an ordinary batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, ProcessorMixin
from transformers.video_utils import VideoMetadata

from timelens_plugins.shared_prefix import Branch, Prompt, PromptTree

CHAT = "<|im_start|>user\n{vision}{text}<|im_end|>\n<|im_start|>assistant\n"


def video_prompt(
    processor: ProcessorMixin, text: str = "when does it happen?", frames: int = 6, seed: int = 0
) -> Prompt:
    """A prompt with a random video through the family's own processor."""
    video = np.random.default_rng(seed).integers(0, 255, (frames, 56 if seed % 2 else 64, 96, 3), dtype=np.uint8)
    metadata = VideoMetadata(
        total_num_frames=frames, fps=2.0, frames_indices=list(range(frames)), duration=frames / 2, width=96, height=64
    )
    chat = CHAT.format(vision="<|vision_start|><|video_pad|><|vision_end|>", text=text)
    return Prompt.from_inputs(
        processor(
            text=[chat],
            videos=[video],
            video_metadata=[metadata],
            do_sample_frames=False,
            return_tensors="pt",
        )
    )


def image_prompt(processor: ProcessorMixin, images: int = 3, text: str = "when?", seed: int = 0) -> Prompt:
    """Frames as images with a stamp each, the layout of models that interleave raw timestamps."""
    rng = np.random.default_rng(seed)
    frames = [rng.integers(0, 255, (64 + 32 * (i % 2), 64, 3), dtype=np.uint8) for i in range(images)]
    vision = "".join(f"{i}.0s: <|vision_start|><|image_pad|><|vision_end|>" for i in range(images))
    return Prompt.from_inputs(
        processor(text=[CHAT.format(vision=vision, text=text)], images=frames, return_tensors="pt")
    )


def random_tokens(n: int, seed: int) -> Tensor:
    return torch.randint(20, 260, (n,), generator=torch.Generator().manual_seed(seed))


def group(prompt: Prompt, lengths: Sequence[int] = (7, 1, 4, 5), seed: int = 0) -> PromptTree:
    return PromptTree.group(prompt, [random_tokens(n, seed + i) for i, n in enumerate(lengths)])


def deep_tree(prompt: Prompt, seed: int = 0) -> PromptTree:
    """Depth 3 below the prompt, uneven, with scored inner branches and branches of one token."""
    t = lambda n, k: random_tokens(n, 100 * seed + k)  # noqa: E731
    return PromptTree(
        prompt,
        [
            Branch(t(5, 1), [Branch(t(4, 2)), Branch(t(1, 3)), Branch(t(6, 4))], scored=False),
            Branch(
                t(3, 5),
                [
                    Branch(t(2, 6), [Branch(t(3, 7), scored=False, children=[Branch(t(2, 8)), Branch(t(5, 9))])]),
                    Branch(t(4, 10)),
                ],
                scored=False,
            ),
            Branch(t(6, 11)),
            Branch(t(1, 12), [Branch(t(1, 13)), Branch(t(1, 14))]),
        ],
    )


def leaf_paths(tree: PromptTree) -> list[list[Branch]]:
    paths: list[list[Branch]] = []

    def visit(branch: Branch, path: list[Branch]) -> None:
        if not branch.children:
            paths.append([*path, branch])
        for child in branch.children:
            visit(child, [*path, branch])

    for branch in tree.branches:
        visit(branch, [])
    return paths


def repeated_inputs(prompt: Prompt, rows: int) -> dict[str, Tensor]:
    """The processor's tensors of ``rows`` copies of a prompt."""
    ids = {"input_ids": prompt.input_ids, "mm_token_type_ids": prompt.mm_token_type_ids}
    repeated = {k: v[None].repeat(rows, 1) for k, v in ids.items()}
    return repeated | {k: torch.cat([v] * rows) for k, v in prompt.vision.items()}


def plain_scores(model: nn.Module, tree: PromptTree, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies of the scored tokens by an ordinary right-padded batch of all leaf paths."""
    paths = leaf_paths(tree)
    suffixes = [torch.cat([b.tokens for b in path]) for path in paths]
    width = max(s.numel() for s in suffixes)
    inputs = repeated_inputs(tree.prompt, len(paths))
    pad = torch.zeros(len(paths), width, dtype=torch.long)
    mask = torch.zeros_like(pad)
    for i, suffix in enumerate(suffixes):
        pad[i, : suffix.numel()] = suffix
        mask[i, : suffix.numel()] = 1
    prompt_length = len(tree.prompt)
    inputs["attention_mask"] = torch.cat([torch.ones_like(inputs["input_ids"]), mask], dim=1)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], pad], dim=1)
    inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(pad)], dim=1)
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in inputs.items()}
    logits = model(**inputs, use_cache=False).logits[:, prompt_length - 1 : -1]
    log_softmax = torch.log_softmax(logits / temperature, dim=-1)
    found: dict[int, tuple[Tensor, Tensor]] = {}
    for i, path in enumerate(paths):
        at = 0
        for branch in path:
            rows = log_softmax[i, at : at + branch.tokens.numel()]
            picked = rows.gather(-1, branch.tokens[:, None].to(device))[:, 0]
            found.setdefault(id(branch), (picked, -(rows.exp() * rows).sum(-1)))
            at += branch.tokens.numel()
    scored = [found[id(b)] for b in tree.scored_branches()]
    return torch.cat([s[0] for s in scored]), torch.cat([s[1] for s in scored])


def gradients(model: nn.Module, compute: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Values of ``compute()`` and the gradient of a fixed random combination of them, for every parameter."""
    model.zero_grad()
    values = compute()
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (values * weights.to(values.dtype)).sum().backward()
    return values.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def worst_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest relative difference of any parameter's gradient; the same parameters must have one."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    floor = (
        max(float(g.abs().max()) for g in expected.values()) * 1e-3
    )  # a bias whose gradient is zero but for rounding
    return max(
        float((found[n] - expected[n]).abs().max()) / max(float(expected[n].abs().max()), floor) for n in expected
    )


def double(model: PreTrainedModel | Any) -> Any:
    """In double precision; experts, if any, by matrix products that exist in it."""
    model.set_experts_implementation("eager")
    return model.double()
