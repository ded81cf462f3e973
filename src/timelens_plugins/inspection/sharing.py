"""Whether a prompt that is computed once for its answers gives the log-probabilities of the plain model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from timelens_plugins.families import family_of
from timelens_plugins.inspection.findings import Finding
from timelens_plugins.shared_prefix import Prompt, PromptTree, install, log_probs
from timelens_plugins.shared_prefix.logprobs import rounding_tolerance

__all__ = ["check_sharing"]

_ANSWERS = ("The event happens in 1.0 - 2.5 seconds.", "It is not in this video")


def check_sharing(tokenizer: Any, model: Any, inputs: Mapping[str, Any], area: str) -> Iterator[Finding]:
    """Scores two answers to each prompt, with and without sharing.

    Args:
        tokenizer: of the model.
        model: unwrapped, in evaluation mode.
        inputs: what was changed about a clip -> what the processor made of it.
        area: of the findings.
    """
    if family_of(model).sharing == "plain":
        yield Finding(area, "note", "prompts of this family are not shared: each answer has a copy of its own computed")
        return
    try:
        install(model)
    except ValueError as error:
        yield Finding(area, "warning", str(error), "load it with attn_implementation='sdpa', or share_prefix=False")
        return
    answers = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in _ANSWERS]
    found: dict[str, float] = {}
    with torch.no_grad():
        for change, made in inputs.items():
            prompt = Prompt.from_inputs(made)
            shared = log_probs(model, PromptTree.group(prompt, answers)).log_probs
            plain = torch.cat([_plain(model, prompt, answer) for answer in answers])
            found[change] = float((shared - plain).abs().mean())
    tolerance = rounding_tolerance(model.dtype)
    listed = ", ".join(f"{difference:.2g} ({change})" for change, difference in found.items())
    said = f"log-probs of two answers, prompt computed once, differ from the plain model's by {listed} nats on average"
    if max(found.values()) <= tolerance:
        yield Finding(area, "ok", said)
    else:
        remedy = "report it with the versions above; until then set share_prefix=False"
        yield Finding(area, "broken", f"{said}; rounding explains {tolerance:g}", remedy)


def _plain(model: Any, prompt: Prompt, answer: Tensor) -> Tensor:
    """Log-probs of an answer's tokens by the model's own forward."""
    device = model.get_input_embeddings().weight.device
    ids = torch.cat([prompt.input_ids.cpu(), answer])[None].to(device)
    kinds = torch.cat([prompt.mm_token_type_ids.cpu(), torch.zeros_like(answer)])[None].to(device)
    vision = {name: value.to(device) for name, value in prompt.vision.items()}
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=kinds,
        logits_to_keep=answer.numel() + 1,
        use_cache=False,
        **vision,
    ).logits[0, :-1]
    scores: Tensor = logits.float().log_softmax(-1).gather(-1, ids[0, -answer.numel() :, None])[:, 0]
    return scores
