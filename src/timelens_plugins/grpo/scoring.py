"""Log-probs and entropies of the completions of several groups, by the shared prefix or by the plain repeated batch.

Shapes: B rows (N groups of G), C tokens of the longest completion, P of the longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from timelens_plugins.grpo.groups import Group
from timelens_plugins.shared_prefix import Prompt, PromptTree, log_probs

__all__ = ["plain_scores", "repeated_vision", "shared_scores"]


def shared_scores(
    model: nn.Module, groups: Sequence[Group], completion_ids: Tensor, lengths: Sequence[int], temperature: float
) -> tuple[Tensor, Tensor]:
    """One forward over one packed row, whatever the number of groups.

    Args:
        completion_ids: shape ``(B, C)``, padded on the right.
        lengths: tokens of each of the B completions, at least 1.

    Returns:
        Log-probs and entropies, shape ``(B, C)`` each, zero after a completion's end.
    """
    size = len(lengths) // len(groups)
    completions = [ids[:n] for ids, n in zip(completion_ids, lengths, strict=True)]
    trees = [PromptTree.group(group.prompt, completions[i * size : (i + 1) * size]) for i, group in enumerate(groups)]
    scores = log_probs(model, trees, temperature=temperature, entropy=True)
    log_p, entropies = scores.padded(completion_ids.shape[1])
    assert entropies is not None
    return log_p, entropies


def plain_scores(
    model: nn.Module,
    groups: Sequence[Group],
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_tokens: int,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """One forward over all rows, each with its own copy of the prompt and the video.

    Args:
        input_ids, attention_mask: shape ``(B, P + C)``, prompts padded on the left, completions on the right.
        completion_tokens: C.

    Returns:
        Log-probs and entropies, shape ``(B, C)`` each; what stands after a completion's end has no meaning.
    """
    size = input_ids.shape[0] // len(groups)
    width = input_ids.shape[1] - completion_tokens
    kinds = torch.zeros_like(input_ids)
    for i, group in enumerate(groups):
        kinds[i * size : (i + 1) * size, width - len(group.prompt) : width] = group.prompt.mm_token_type_ids.to(kinds)
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        mm_token_type_ids=kinds,
        logits_to_keep=completion_tokens + 1,
        use_cache=False,
        **repeated_vision([g.prompt for g in groups], size, input_ids.device),
    ).logits[:, :-1]
    log_softmax = torch.log_softmax(logits.float() / temperature, dim=-1)
    targets = input_ids[:, width:, None]
    entropies = -(log_softmax.exp() * log_softmax).sum(-1)
    return log_softmax.gather(-1, targets)[..., 0], entropies


def repeated_vision(prompts: Sequence[Prompt], copies: int, device: torch.device) -> dict[str, Tensor]:
    """The vision inputs of ``copies`` rows of each prompt, in order.

    Raises:
        ValueError: a prompt whose pixels were given up for features.
    """
    names = dict.fromkeys(name for prompt in prompts for name in prompt.vision)
    if any(prompt.features for prompt in prompts):
        raise ValueError("the plain path needs pixels, but a prompt has only vision features")
    return {
        name: torch.cat([p.vision[name] for p in prompts if name in p.vision for _ in range(copies)]).to(device)
        for name in names
    }
