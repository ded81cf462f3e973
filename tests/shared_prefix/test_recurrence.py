"""Linear attention over packed rows: every way to hand on a wrong state is noticed; upstream's functions are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from plain_batch import deep_tree, gradients, group, plain_scores, random_tokens, video_prompt, worst_difference
from transformers.models.qwen3_5 import modeling_qwen3_5

from timelens_plugins.families.tiny import build_model
from timelens_plugins.shared_prefix import Branch, PromptTree, log_probs, recurrence
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.packing import pack
from timelens_plugins.shared_prefix.plan import Node, SharedPrefixPlan

pytestmark = pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe"], indirect=True, scope="session")


@pytest.fixture
def unwrapped() -> Iterator[None]:
    """Layers find upstream's functions again, so that a changed wrapper is installed."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("causal_conv1d_fn", "torch_chunk_gated_delta_rule"):
            found = getattr(modeling_qwen3_5, name)
            patch.setattr(modeling_qwen3_5, name, getattr(found, "shared_prefix_base", found))
        yield


def agrees(model: Any, tree: PromptTree, bound: float) -> bool:
    expected = gradients(model, lambda: plain_scores(model, tree)[0])
    found = gradients(model, lambda: log_probs(model, tree).log_probs)
    return bool(torch.allclose(found[0], expected[0], rtol=bound, atol=bound)) and (
        worst_difference(found[1], expected[1]) < bound
    )


def test_upstream_kernels_in_single_precision(family: str, tokenizer: Any, processor: Any) -> None:
    """Four layers, a prompt of several chunks, branches of more than one chunk, with the functions upstream has."""
    model = build_model(family, tokenizer, layers=4, logit_scale=1.0).train()
    prompt = video_prompt(processor, frames=20)
    assert len(prompt) > 128
    tree = PromptTree(prompt, [Branch(random_tokens(n, n), [Branch(random_tokens(70, n + 1))]) for n in (3, 66, 1, 64)])
    assert agrees(model, tree, 1e-3)
    assert not agrees(model, tree, 1e-9), "single precision, not the reference of the other tests"


def _state_of_the_prompt_one_token_early(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = recurrence._delta_rule

    def broken(base: Any) -> Any:
        def early(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            out, state = base(query, key, value, *args, **kwargs)
            if kwargs["initial_state"] is None:
                cut = {k: v[:, :-65] if k in ("g", "beta") else v for k, v in kwargs.items()}
                state = base(query[:, :-65], key[:, :-65], value[:, :-65], *args, **cut)[1]
            return out, state

        return wrapper(early)

    monkeypatch.setattr(recurrence, "_delta_rule", broken)


def _another_branch_s_state(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = torch.stack

    class Swapped:
        stack = staticmethod(lambda states, *rest: stack(list(states)[::-1], *rest))

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    monkeypatch.setattr(recurrence, "torch", Swapped())


def _no_gradient_through_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = recurrence._delta_rule

    def broken(base: Any) -> Any:
        def detached(*args: Any, **kwargs: Any) -> Any:
            out, state = base(*args, **kwargs)
            return out, state.detach()

        return wrapper(detached)

    monkeypatch.setattr(recurrence, "_delta_rule", broken)


def _columns(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(monkeypatch: pytest.MonkeyPatch) -> None:
        ends = recurrence._ends
        monkeypatch.setattr(recurrence, "_ends", lambda *a, **k: {i: change(x) for i, x in ends(*a, **k).items()})

    return mutate


def _no_past(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper = recurrence._delta_rule
    monkeypatch.setattr(
        recurrence, "_delta_rule", lambda base: wrapper(lambda *a, **k: base(*a, **k | {"initial_state": None}))
    )


MUTANTS = {
    "state early": _state_of_the_prompt_one_token_early,
    "state of another branch": _another_branch_s_state,
    "state detached": _no_gradient_through_the_state,
    "state missing": _no_past,
    "columns missing": _columns(torch.zeros_like),
    "columns one early": _columns(lambda x: x.roll(1, -1)),
    "columns detached": _columns(torch.Tensor.detach),
}


@pytest.mark.parametrize("mutant", [None, *MUTANTS])
def test_mutants_are_caught(
    build: Callable[..., Any],
    processor: Any,
    monkeypatch: pytest.MonkeyPatch,
    unwrapped: None,
    family: str,
    mutant: str | None,
) -> None:
    if family != "qwen3_5":
        pytest.skip("the same functions in both families")
    model, tree = build(layers=4), deep_tree(video_prompt(processor))
    if mutant is not None:
        MUTANTS[mutant](monkeypatch)
    assert agrees(model, tree, 1e-6 if mutant is None else 1e-5) == (mutant is None)


def test_each_node_runs_once(build: Callable[..., Any], processor: Any) -> None:
    """The prompt is in one batch; all its children of equally many chunks are in the next; nothing is repeated."""
    model = build()
    tree = group(video_prompt(processor), (7, 5, 100, 1))
    plan = pack(vision_language_model(model), [tree], torch.device("cpu")).plan
    assert plan.batches(64) == [(0,), (1, 2), (3,)], "the branch of one token has no place in the row"
    plan = SharedPrefixPlan([[Node(0, 5, -1), Node(5, 7, 0), Node(7, 9, 1)], [Node(9, 12, -1), Node(12, 13, 0)]])
    assert plan.batches(64) == [(0, 3), (1, 4), (2,)]
    assert plan.leaves == (2, 4)


def test_layers_that_bypass_the_functions_are_noticed(build: Callable[..., Any], processor: Any) -> None:
    model = build()
    model.model.language_model.layers[0].linear_attn.forward = lambda hidden_states, **_: hidden_states
    with pytest.raises(RuntimeError, match="0 of 1 linear-attention layers"):
        log_probs(model, group(video_prompt(processor)))


def test_a_layer_without_the_functions_is_refused(build: Callable[..., Any], processor: Any) -> None:
    model = build()
    model.model.language_model.layers[0].linear_attn = torch.nn.Identity()
    with pytest.raises(ValueError, match="Identity does not use"):
        log_probs(model, group(video_prompt(processor)))
