"""Training on the prefill of the rollout: the samples, log-probs and gradients of computing the prompt again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_batch import random_tokens, video_prompt, worst_difference
from torch import nn
from transformers import GenerationConfig

from timelens_plugins.families.tiny import build_model, build_processor
from timelens_plugins.shared_prefix import KeptPrefix, Prompt, PromptTree, encode_vision, generate_groups, log_probs
from timelens_plugins.shared_prefix.locate import vision_language_model, vision_tower
from timelens_plugins.shared_prefix.sampling import NO_SAMPLING

QUERIES = [random_tokens(n, n) for n in (9, 5, 1)]


def frozen_trunk(model: Any) -> Any:
    """The mergers are trained, what is below them is not."""
    for name, parameter in vision_tower(vision_language_model(model)).named_parameters():
        parameter.requires_grad_("merger" in name)
    return model


def rollout(model: Any, prompt: Prompt, several: bool, keep: bool) -> tuple[list[Any], list[KeptPrefix]]:
    """Completions of unequal lengths of a whole prompt, or of three queries that follow it."""
    config = GenerationConfig(
        **NO_SAMPLING,
        do_sample=True,
        max_new_tokens=6,
        suppress_tokens=[model.config.image_token_id, model.config.video_token_id],
    )
    config.eos_token_id, config.pad_token_id = list(range(60)), 0
    kept: list[KeptPrefix] = []
    found = generate_groups(
        model,
        [(prompt, QUERIES) if several else prompt],
        config,
        completions=3,
        seeds=range(3 if several else 1),
        kept=kept if keep else None,
    )
    return found, kept


def tree_of(prompt: Prompt, answers: list[Any], several: bool) -> PromptTree:
    if several:
        return PromptTree.of_queries(prompt, list(zip(QUERIES, answers, strict=True)))
    return PromptTree.group(prompt, answers[0])


def trained(model: nn.Module, tree: PromptTree, prefix: KeptPrefix | None = None) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    scores = log_probs(model, tree, temperature=0.8, entropy=True, prefix=prefix)
    assert scores.entropies is not None
    values = scores.log_probs + 0.3 * scores.entropies
    weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype)
    (values * weights).sum().backward()
    return values.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_samples_and_gradients_are_the_same(
    build: Callable[..., Any], processor: Any, checkpointing: bool, several: bool
) -> None:
    model = frozen_trunk(build())
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    prompt = encode_vision(model, video_prompt(processor))
    answers, _ = rollout(model, prompt, several, keep=False)
    again, [prefix] = rollout(model, prompt, several, keep=True)
    assert [[a.tolist() for a in group] for group in answers] == [[a.tolist() for a in group] for group in again]
    assert len({len(a) for group in answers for a in group}) > 1
    assert all(module.training for module in model.modules())

    expected, expected_gradients = trained(model, tree_of(prompt, answers, several))
    lengths: list[int] = []
    text = vision_language_model(model).language_model
    hook = text.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    found, gradients = trained(model, tree_of(prompt, answers, several), prefix)
    hook.remove()
    own = sum(len(a) - 1 for group in answers for a in group) + (sum(map(len, QUERIES)) if several else 1)
    assert lengths == [own], "the prompt is not computed again"
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert worst_difference(gradients, expected_gradients) < 1e-6
    with pytest.raises(ValueError, match="used up"):
        log_probs(model, tree_of(prompt, answers, several), prefix=prefix)


def test_no_gradient_is_lost_under_autocast() -> None:
    """The mergers run without gradients first, and autocast would remember their weights from then."""
    model = frozen_trunk(build_model("qwen3_vl", logit_scale=1.0).train())
    processor = build_processor("qwen3_vl")
    with torch.autocast("cpu", torch.bfloat16):
        prompt = encode_vision(model, video_prompt(processor))
        answers, [prefix] = rollout(model, prompt, False, keep=True)
    with torch.autocast("cpu", torch.bfloat16):
        _, gradients = trained(model, tree_of(prompt, answers, False), prefix)
    with torch.autocast("cpu", torch.bfloat16):
        _, expected = trained(model, tree_of(prompt, answers, False))
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient.norm() > 1e-3:
            assert torch.cosine_similarity(gradients[name].flatten(), gradient.flatten(), dim=0) > 0.98, name


def test_what_keeps_no_graph(build: Callable[..., Any], processor: Any) -> None:
    model = frozen_trunk(build())
    prompt = encode_vision(model, video_prompt(processor))
    model.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="gradient checkpointing is reentrant"):
        rollout(model, prompt, False, keep=True)


def test_a_tower_that_diverged_is_told(build: Callable[..., Any], processor: Any) -> None:
    """And not taken for one that does something else after its merger."""
    model = frozen_trunk(build())
    with torch.no_grad():
        next(vision_tower(vision_language_model(model)).merger.parameters()).fill_(torch.inf)
    with pytest.raises(RuntimeError, match="is no number: the model has diverged"):
        encode_vision(model, video_prompt(processor))
