"""Log-probs of answers: by the shared prefix, or by the plain batch of whole conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from timelens_plugins.shared_prefix import PromptTree, log_probs
from timelens_plugins.shared_prefix.locate import device_of, vision_language_model

__all__ = ["answer_log_probs"]


def answer_log_probs(model: nn.Module, trees: Sequence[PromptTree], share_prefix: bool) -> Tensor:
    """Log-prob of every token of every answer, shape ``(S,)``: tree after tree, answer after answer.

    One forward either way; values and gradients are the same.
    """
    if share_prefix:
        return log_probs(model, list(trees)).log_probs
    return _plain_log_probs(model, trees)


def _plain_log_probs(model: nn.Module, trees: Sequence[PromptTree]) -> Tensor:
    """One row for each answer with its own copy of prompt and video, padded on the left so that all end together."""
    device = device_of(vision_language_model(model))
    rows = [
        (tree.prompt, query.tokens, query.children[0].tokens) for tree in trees for query in tree.branches
    ]  # fmt: skip
    length = max(len(prompt) + query.numel() + answer.numel() for prompt, query, answer in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    kinds, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for i, (prompt, query, answer) in enumerate(rows):
        own = torch.cat([prompt.input_ids, query, answer])
        ids[i, -own.numel() :], mask[i, -own.numel() :] = own, 1
        kinds[i, -own.numel() :][: len(prompt)] = prompt.mm_token_type_ids
    vision: dict[str, Any] = {
        name: torch.cat([prompt.vision[name] for prompt, _, _ in rows]).to(device) for name in rows[0][0].vision
    }
    longest = max(answer.numel() for _, _, answer in rows)
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        mm_token_type_ids=kinds.to(device),
        logits_to_keep=longest + 1,
        use_cache=False,
        **vision,
    ).logits[:, :-1]
    log_softmax = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    picked = log_softmax.gather(-1, ids[:, -longest:, None].to(device))[..., 0]
    return torch.cat([picked[i, longest - answer.numel() :] for i, (_, _, answer) in enumerate(rows)])
