"""The plain road: every completion with its own copy of prompt and video, by the model's own ``generate``.

What other trainers and evaluations compute. No attention wrapper and no shared cache, so any attention implementation
will do; the same answers at several times the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from timelens_plugins.shared_prefix import Prompt

__all__ = ["generate_plain", "plain_log_probs", "repeated_vision"]


@torch.no_grad()
def generate_plain(
    model: Any, prompt: Prompt, config: GenerationConfig, completions: int = 1, max_rows: int | None = None
) -> list[Tensor]:
    """Complete a prompt; token ids of shape ``(n,)`` each, end-of-sequence token included.

    Args:
        model: unwrapped and whole; its mode is left as it was.
        prompt: with its pixels.
        config: length, stopping (the model's own tokens where it names none), sampling.
        completions: of the prompt.
        max_rows: completions decoded at the same time; None for all.
    """
    device = model.get_input_embeddings().weight.device
    rows = max_rows or completions
    done: list[Tensor] = []
    training = model.training
    model.eval()
    try:
        while len(done) < completions:
            done += _batch(model, prompt, config, min(rows, completions - len(done)), device)
    finally:
        model.train(training)
    return done


@torch.no_grad()
def plain_log_probs(model: Any, prompt: Prompt, completion: Tensor) -> Tensor:
    """Log-probs of a completion's tokens, shape ``(n,)``, fp32, by a forward over prompt and completion.

    Args:
        model: unwrapped and whole, in evaluation mode.
        prompt: with its pixels.
        completion: token ids, shape ``(n,)``.
    """
    device = model.get_input_embeddings().weight.device
    answer = completion.to(device)
    ids = torch.cat([prompt.input_ids.to(device), answer])[None]
    kinds = torch.cat([prompt.mm_token_type_ids.to(device), torch.zeros_like(answer)])[None]
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=kinds,
        use_cache=False,
        logits_to_keep=len(answer) + 1,
        **repeated_vision([prompt], 1, device),
    ).logits[0, :-1]
    scores: Tensor = logits.float().log_softmax(-1).gather(1, answer[:, None])[:, 0].cpu()
    return scores


def _batch(model: Any, prompt: Prompt, config: GenerationConfig, rows: int, device: torch.device) -> list[Tensor]:
    ids = prompt.input_ids.to(device).expand(rows, -1)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=prompt.mm_token_type_ids.to(device).expand(rows, -1),
        generation_config=config,
        synced_gpus=False,  # parameters are whole: no process waits for another's longest answer
        **repeated_vision([prompt], rows, device),
    )[:, len(prompt) :]
    eos = model.generation_config.eos_token_id if config.eos_token_id is None else config.eos_token_id
    if eos is None:
        raise ValueError("neither generation_config nor the model names an eos_token_id")
    ends = torch.isin(output, torch.as_tensor(eos, device=device))
    lengths = torch.where(ends.any(-1), ends.int().argmax(-1) + 1, output.shape[1])
    return [row[:n] for row, n in zip(output, lengths.tolist(), strict=True)]


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
