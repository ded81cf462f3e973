"""The attention wrapper: invisible unless asked, strict when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_batch import gradients, group, plain_scores, repeated_inputs, video_prompt, worst_difference
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.shared_prefix import install, log_probs, uninstall
from timelens_plugins.shared_prefix.locate import layer_counts, vision_language_model
from timelens_plugins.shared_prefix.packing import pack


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    uninstall("sdpa")
    yield
    uninstall("sdpa")


def test_install_and_uninstall(frozen_model: Any) -> None:
    original = ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert install(frozen_model) == "sdpa"
    wrapped = ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert wrapped is not original
    install(frozen_model)
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is wrapped
    uninstall("sdpa")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is original


def test_pass_through_without_a_plan(frozen_model: Any, processor: Any) -> None:
    inputs = repeated_inputs(video_prompt(processor), 2)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["attention_mask"][0, :3] = 0
    with torch.no_grad():
        before = frozen_model(**inputs).logits
        install(frozen_model)
        assert torch.equal(frozen_model(**inputs).logits, before)


@pytest.mark.parametrize("name", ["eager", "flex_attention", "paged|sdpa"])
def test_unsupported_attention_is_refused(build: Callable[..., Any], name: str) -> None:
    model = build()
    model.model.language_model.config._attn_implementation = name
    with pytest.raises(ValueError, match="shared prefixes"):
        install(model)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool)}, "attention_mask"),
        ({"sliding_window": 8}, "sliding_window"),
        ({"softcap": 30.0}, "softcap"),
        ({"position_bias": torch.zeros(1)}, "position_bias"),
        ({"is_causal": False}, "is_causal"),
        ({"key": torch.zeros(1, 2, 99, 16)}, "past_key_values"),
        ({"query": torch.zeros(2, 4, 99, 16), "key": torch.zeros(2, 2, 99, 16)}, "one row"),
    ],
)
def test_what_a_plan_cannot_honour_is_refused(
    frozen_model: Any, processor: Any, argument: dict[str, Any], message: str
) -> None:
    install(frozen_model)
    core = vision_language_model(frozen_model)
    row = pack(core, [group(video_prompt(processor))], torch.device("cpu"))
    length = row.plan.length
    arguments: dict[str, Any] = {
        "query": torch.zeros(1, 4, length, 16),
        "key": torch.zeros(1, 2, length, 16),
        "value": torch.zeros(1, 2, length, 16),
        "attention_mask": None,
        "scaling": 1.0,
    } | argument
    layer = core.language_model.layers[-1].self_attn
    with pytest.raises(ValueError, match=message):
        ALL_ATTENTION_FUNCTIONS["sdpa"](layer, **arguments, shared_prefix=row.plan)


def test_a_model_with_sliding_layers_is_refused(build: Callable[..., Any], processor: Any, family: str) -> None:
    if family != "qwen2_5_vl":
        pytest.skip("only Qwen2.5-VL has sliding windows")
    model = build()
    model.model.language_model.layers[1].self_attn.sliding_window = 16
    with pytest.raises(ValueError, match="sliding_window=16"):
        log_probs(model, group(video_prompt(processor)))


def test_layers_that_bypass_the_interface_are_noticed(build: Callable[..., Any], processor: Any) -> None:
    model = build()
    attention = model.model.language_model.layers[1].self_attn
    attention.forward = lambda hidden_states, **_: (hidden_states, None)
    layers, _ = layer_counts(model.model)
    with pytest.raises(RuntimeError, match=f"{layers - 1} of {layers} attention layers"):
        log_probs(model, group(video_prompt(processor)))


def test_bf16_autocast(frozen_model: Any, build: Callable[..., Any], processor: Any) -> None:
    """Within rounding of the plain path under the same autocast; scores in fp32."""
    model = build().to(torch.float32)
    tree = group(video_prompt(processor))
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, lambda: log_probs(model, tree).log_probs)
        expected = gradients(model, lambda: plain_scores(model, tree)[0].float())
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], expected[0], rtol=2e-2, atol=5e-2)
    assert worst_difference(found[1], expected[1]) < 0.3
    exact = plain_scores(model, tree)[0]
    torch.testing.assert_close(found[0], exact, rtol=2e-2, atol=5e-2)


def test_bf16_weights(build: Callable[..., Any], processor: Any) -> None:
    model = build().to(torch.float32)
    tree = group(video_prompt(processor))
    with torch.no_grad():
        exact = plain_scores(model, tree)[0]
        found = log_probs(model.bfloat16(), tree).log_probs
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=3e-2, atol=0.1)


def test_flash_attention_runs_prefixes(
    build: Callable[..., Any], processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With flash attention, prefixes take it and branches take masked sdpa; its kernel is stood in for on a CPU."""
    lengths: list[int] = []

    def flash(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> tuple[Any, None]:
        assert attention_mask is None
        assert kwargs.get("sliding_window") is None
        lengths.append(query.shape[2])
        out = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=kwargs["scaling"], enable_gqa=True
        )
        return out.transpose(1, 2), None

    model, tree = build(), group(video_prompt(processor))
    expected = gradients(model, lambda: plain_scores(model, tree)[0])
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_2", flash)
    model.model.language_model.config._attn_implementation = "flash_attention_2"
    found = gradients(model, lambda: log_probs(model, tree).log_probs)
    assert lengths == [len(tree.prompt) + 6] * layer_counts(model.model)[0]
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    assert worst_difference(found[1], expected[1]) < 1e-6
