"""The shared computation on a GPU is the plain one on the CPU, with the kernels that are installed there."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_batch import (
    deep_tree,
    gradients,
    group,
    plain_scores,
    random_tokens,
    repeated_inputs,
    video_prompt,
    worst_difference,
)
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.utils import is_flash_attn_2_available

from timelens_plugins.families.tiny import build_model
from timelens_plugins.shared_prefix import (
    Branch,
    Prompt,
    PromptTree,
    accelerate_vision,
    encode_vision,
    generate_group,
    generate_groups,
    log_probs,
)

pytestmark = pytest.mark.gpu

Build = Callable[..., Any]


@pytest.fixture
def build(family: str, tokenizer: PreTrainedTokenizerFast) -> Build:
    """A model on the CPU, single precision; heads as wide as kernels want them."""

    def make(**options: Any) -> Any:
        sizes = {"layers": 4, "hidden_size": 128, "head_dim": 32, "logit_scale": 1.0}
        model = build_model(family, tokenizer, **sizes | options).train()
        model.set_experts_implementation("eager")  # products of groups of rows are there in bf16 only
        return model

    return make


@pytest.fixture(autouse=True)
def precise() -> Any:
    """Products of single precision in single precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = True


def has_kernels(family: str) -> bool:
    """Flash-linear-attention, which transformers then uses on any device, though it runs on a GPU only."""
    return family.startswith("qwen3_5") and importlib.util.find_spec("fla") is not None


def bound(family: str) -> float:
    """Flash-linear-attention multiplies in TF32."""
    return 2e-2 if has_kernels(family) else 1e-3


def on_gpu(model: Any, dtype: torch.dtype = torch.float32) -> Any:
    return copy.deepcopy(model).to("cuda", dtype)


def long_tree(prompt: Prompt) -> PromptTree:
    """Branches of less and of more than a chunk of linear attention."""
    tokens = lambda n, seed: random_tokens(n, seed) % 128 + 20  # noqa: E731  # none that stands for vision
    return PromptTree(prompt, [Branch(tokens(n, n), [Branch(tokens(70, n + 1))]) for n in (3, 66, 1, 64)])


@pytest.mark.parametrize("tree_of", [group, deep_tree, long_tree])
@pytest.mark.parametrize("encoded", [False, True])
def test_log_probs_and_gradients(
    build: Build, processor: Any, family: str, tree_of: Callable[[Prompt], PromptTree], encoded: bool
) -> None:
    model, tree = build(), tree_of(video_prompt(processor, frames=20))
    if encoded:
        for name, parameter in model.model.visual.named_parameters():
            parameter.requires_grad_("merger" in name)
    there = on_gpu(model)
    plain = there if has_kernels(family) else model
    values, expected = gradients(plain, lambda: plain_scores(plain, tree)[0].cpu())
    expected = {name: gradient.cpu() for name, gradient in expected.items()}
    if encoded:
        tree = PromptTree(encode_vision(there, tree.prompt), tree.branches)
    found = gradients(there, lambda: log_probs(there, tree).log_probs.cpu())
    torch.testing.assert_close(found[0], values, rtol=bound(family), atol=bound(family))
    assert worst_difference({n: g.cpu() for n, g in found[1].items()}, expected) < 2 * bound(family)


@pytest.mark.parametrize("attention", ["sdpa", "flash_attention_2"])
def test_bf16(build: Build, processor: Any, family: str, attention: str) -> None:
    """Of a mixture of experts on average only: rounding sends some tokens to other experts."""
    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        pytest.skip("flash-attn is not installed")
    model, tree = build(layers=2), group(video_prompt(processor))
    with torch.no_grad():
        plain = on_gpu(model) if has_kernels(family) else model
        exact = plain_scores(plain, tree)[0].cpu()
        there = on_gpu(model, torch.bfloat16)
        there.set_attn_implementation(attention)
        found = log_probs(there, tree).log_probs.cpu()
    assert (found - exact).abs().mean() < 0.1
    if not family.endswith("moe"):
        torch.testing.assert_close(found, exact, rtol=3e-2, atol=0.1)


@pytest.fixture
def sampled(build: Build) -> tuple[Any, Callable[..., GenerationConfig]]:
    """A model on the GPU whose answers depend on the video, and settings for it."""
    model = on_gpu(build(logit_scale=4.0).eval())
    vision = [model.config.image_token_id, model.config.video_token_id]
    return model, lambda **own: GenerationConfig(max_new_tokens=12, suppress_tokens=vision, eos_token_id=0, **own)


@pytest.mark.parametrize("frames", [4, 20])
def test_greedy_answers_are_those_of_stock_generate(sampled: Any, processor: Any, frames: int) -> None:
    model, prompt, config = sampled[0], video_prompt(processor, frames=frames), sampled[1](do_sample=False)
    inputs = {name: value.cuda() for name, value in repeated_inputs(prompt, 1).items()}
    stock = model.generate(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), generation_config=config)
    expected = stock[0, len(prompt) :].tolist()
    expected = expected[: expected.index(0) + 1] if 0 in expected else expected
    assert len(set(expected)) > 1
    [completions] = generate_group(model, prompt, config, completions=3)
    assert [row.tolist() for row in completions] == [expected] * 3


def test_samples_depend_on_their_seed_alone(sampled: Any, processor: Any) -> None:
    model, config = sampled[0], sampled[1](do_sample=True, top_k=0)
    prompts = [video_prompt(processor, frames=4 + 3 * i, seed=2 * i) for i in range(3)]
    together = generate_groups(model, prompts, config, completions=4, seeds=[5, 6, 7])
    alone = [
        generate_groups(model, [p], config, completions=4, seeds=[seed])[0]
        for p, seed in zip(prompts, [5, 6, 7], strict=True)
    ]
    assert [[row.tolist() for row in group] for group in together] == [[r.tolist() for r in group] for group in alone]
    assert len({tuple(row.tolist()) for group in together for row in group}) > 6


def test_accelerated_tower(build: Build, processor: Any) -> None:
    model, tree = on_gpu(build()), group(video_prompt(processor, frames=20))
    expected = gradients(model, lambda: log_probs(model, tree).log_probs.cpu())
    changed = accelerate_vision(model, measure=False)
    try:
        found = gradients(model, lambda: log_probs(model, tree).log_probs.cpu())
    finally:
        changed.remove()
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-3)
    assert worst_difference(found[1], expected[1]) < 1e-2
