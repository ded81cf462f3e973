"""Log-probs, entropies and every gradient equal the repeated batch; broken packing is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from plain_batch import deep_tree, gradients, group, image_prompt, plain_scores, random_tokens, video_prompt
from plain_batch import worst_difference as worst
from torch import nn

from timelens_plugins.shared_prefix import Branch, Prompt, PromptTree, log_probs
from timelens_plugins.shared_prefix import logprobs as logprobs_module
from timelens_plugins.shared_prefix import plan as plan_module
from timelens_plugins.shared_prefix.locate import language_head, vision_language_model
from timelens_plugins.shared_prefix.packing import PackedRow, pack
from timelens_plugins.shared_prefix.plan import Block, SharedPrefixPlan

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj", "up_proj", "lm_head"], "exclude_modules": ".*visual.*"}


def agrees(model: nn.Module, trees: list[PromptTree], bound: float = 1e-6) -> bool:
    """Whether values and every gradient equal those of the repeated batch, relative to ``bound``."""
    expected, expected_gradients = gradients(model, lambda: torch.cat([plain_scores(model, t)[0] for t in trees]))
    found, found_gradients = gradients(model, lambda: log_probs(model, trees, chunk_tokens=7).log_probs)
    return bool(torch.allclose(found, expected, rtol=bound, atol=0)) and (
        worst(found_gradients, expected_gradients) < bound
    )


@pytest.mark.parametrize("checkpointing", [None, "reentrant", "non-reentrant"])
@pytest.mark.parametrize("lora", [False, True])
def test_equal_to_the_repeated_batch(
    build: Callable[..., Any], processor: Any, checkpointing: str | None, lora: bool
) -> None:
    model = build()
    if lora:
        model = get_peft_model(model, LoraConfig(**LORA, init_lora_weights=False)).double()
        model.enable_input_require_grads()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
    trees = [
        deep_tree(video_prompt(processor)),
        group(video_prompt(processor, frames=8, seed=1, text="another"), seed=3),
    ]
    assert agrees(model, trees)


def test_frames_as_images(frozen_model: Any, processor: Any) -> None:
    assert agrees(frozen_model, [deep_tree(image_prompt(processor))])


def test_small_blocks(frozen_model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long branches are cut into several blocks, some with keys that are not contiguous."""
    monkeypatch.setattr(plan_module, "_BLOCK_TOKENS", 4)
    short = Prompt(random_tokens(2, 0), torch.zeros(2, dtype=torch.long))
    trees = [deep_tree(video_prompt(processor)), deep_tree(short, seed=1)]
    row = pack(vision_language_model(frozen_model), trees, torch.device("cpu"))
    blocks = [b for t in row.plan.trees for b in t.blocks]
    assert any(len(b.keys) > 1 for b in blocks)
    assert any(len(b.keys) == 1 for b in blocks)
    assert agrees(frozen_model, trees)


def test_no_mask_of_the_row(frozen_model: Any, processor: Any) -> None:
    """Masks are (block, ancestors + block); a single branch needs none."""
    core = vision_language_model(frozen_model)
    prompt = video_prompt(processor)
    row = pack(core, [group(prompt, (7, 5, 6))], torch.device("cpu"))
    [block] = row.plan.trees[0].blocks
    assert block.visible(torch.device("cpu")).shape == (4 + 5, len(prompt) + 6 + 4 + 5)
    assert not pack(core, [group(prompt, (7,))], torch.device("cpu")).plan.trees[0].blocks


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_tree(frozen_model: Any, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Random shapes of trees, block limits and chunks, prompts of one token included: the same values."""
    shapes = st.recursive(
        st.integers(1, 4),
        lambda inner: st.tuples(st.integers(1, 4), st.lists(inner, min_size=1, max_size=3)),
        max_leaves=6,
    )
    counter = iter(range(10_000))

    def branch(shape: Any) -> Branch:
        length, children = shape if isinstance(shape, tuple) else (shape, [])
        scored = not children or data.draw(st.booleans())
        return Branch(random_tokens(length, next(counter)), [branch(c) for c in children], scored)

    trees = []
    for _ in range(data.draw(st.integers(1, 2))):
        n = data.draw(st.integers(1, 9))
        prompt = Prompt(random_tokens(n, next(counter)), torch.zeros(n, dtype=torch.long))
        trees.append(PromptTree(prompt, [branch(s) for s in data.draw(st.lists(shapes, min_size=1, max_size=3))]))
    monkeypatch.setattr(plan_module, "_BLOCK_TOKENS", data.draw(st.integers(1, 12)))
    with torch.no_grad():
        expected = [plain_scores(frozen_model, t, temperature=0.7) for t in trees]
        found = log_probs(frozen_model, trees, temperature=0.7, entropy=True, chunk_tokens=data.draw(st.integers(1, 9)))
    torch.testing.assert_close(found.log_probs, torch.cat([e[0] for e in expected]), rtol=1e-9, atol=1e-9)
    assert found.entropies is not None
    torch.testing.assert_close(found.entropies, torch.cat([e[1] for e in expected]), rtol=1e-9, atol=1e-9)


def test_entropy_gradients_and_temperature(frozen_model: Any, processor: Any) -> None:
    tree = deep_tree(video_prompt(processor))

    def found() -> torch.Tensor:
        scores = log_probs(frozen_model, tree, temperature=0.6, entropy=True, chunk_tokens=5)
        assert scores.entropies is not None
        return scores.log_probs + 2 * scores.entropies

    def expected() -> torch.Tensor:
        values, entropies = plain_scores(frozen_model, tree, temperature=0.6)
        return values + 2 * entropies

    a, b = gradients(frozen_model, found), gradients(frozen_model, expected)
    torch.testing.assert_close(a[0], b[0], rtol=1e-9, atol=1e-9)
    assert worst(a[1], b[1]) < 1e-6


def test_trees_in_one_row_are_independent(frozen_model: Any, processor: Any) -> None:
    first, second = deep_tree(video_prompt(processor)), group(video_prompt(processor, seed=2, text="other"))
    with torch.no_grad():
        alone = log_probs(frozen_model, first).log_probs
        for trees in ([first, second], [second, first]):
            scores = log_probs(frozen_model, trees)
            n = alone.numel()
            together = scores.log_probs[:n] if trees[0] is first else scores.log_probs[-n:]
            torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)


def test_results_by_branch(frozen_model: Any, processor: Any) -> None:
    tree = group(video_prompt(processor), (3, 1, 2))
    with torch.no_grad():
        scores = log_probs(frozen_model, tree, entropy=True)
    assert [len(s) for s in scores.split()] == [3, 1, 2]
    padded, entropies = scores.padded(4)
    assert entropies is not None
    assert torch.equal(padded[0], torch.cat([scores.log_probs[:3], torch.zeros(1)]))
    assert torch.equal(padded[1:, 0], scores.log_probs[[3, 4]])
    assert bool((entropies[2, 2:] == 0).all())
    with pytest.raises(ValueError, match="more than width=2"):
        scores.padded(2)


def test_logits_never_exist_for_more_than_a_chunk(
    build: Callable[..., Any], processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = build(), []
    apply = logprobs_module._TokenScores.apply
    monkeypatch.setattr(
        logprobs_module._TokenScores, "apply", lambda logits, *rest: (rows.append(len(logits)), apply(logits, *rest))[1]
    )
    head = language_head(model)
    tree = group(video_prompt(processor), (9, 9, 9))

    def kept_logits() -> int:
        """Tensors as wide as the vocabulary that the graph of one forward keeps, recomputed ones not counted."""
        widths: list[int] = []
        pack_hook = lambda t: (widths.append(t.shape[-1] if t.ndim > 1 else 0), t)[1]  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda t: t):
            scores = log_probs(model, tree, chunk_tokens=4)
        scores.log_probs.sum().backward()
        return sum(w == head.weight.shape[0] for w in widths)

    assert kept_logits() == 0
    assert "forward" not in vars(head), "the head must be as it was"
    assert max(rows) == 4
    assert sum(rows) == 2 * 27, "once in forward, once again in backward"
    monkeypatch.setattr(logprobs_module, "checkpoint", lambda piece, *args, use_reentrant: piece(*args))
    assert kept_logits() > 0, "the count sees logits that are kept"


# A check that cannot fail is none: the same comparison must notice each of these.


def _siblings_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    visible = Block.visible
    monkeypatch.setattr(Block, "visible", lambda self, device: torch.ones_like(visible(self, device)))


def _branches_do_not_see_the_prompt_start(monkeypatch: pytest.MonkeyPatch) -> None:
    visible = Block.visible

    def broken(self: Block, device: torch.device) -> torch.Tensor:
        seen = visible(self, device)
        seen[:, 0] = False
        return seen

    monkeypatch.setattr(Block, "visible", broken)


def _all_causal(monkeypatch: pytest.MonkeyPatch) -> None:
    init = SharedPrefixPlan.__init__

    def broken(self: SharedPrefixPlan, trees: Any) -> None:
        init(self, trees)
        self.trees = (plan_module.TreePlan(0, self.length, ()),)

    monkeypatch.setattr(SharedPrefixPlan, "__init__", broken)


def _shift_branch_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    from timelens_plugins.shared_prefix import packing

    positions = packing.prompt_positions
    monkeypatch.setattr(packing, "prompt_positions", lambda *a: (positions(*a)[0], positions(*a)[1] + 1))


def _positions_run_on_through_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **options: Any) -> PackedRow:
        row = pack(*args, **options)
        start = row.plan.trees[0].blocks[0].start
        row.position_ids[..., start:] = row.position_ids[..., start - 1 : start] + 1
        return row

    monkeypatch.setattr(logprobs_module, "pack", broken)


def _predict_from(offset: int) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(monkeypatch: pytest.MonkeyPatch) -> None:
        from timelens_plugins.shared_prefix import packing

        last = packing._last_token
        monkeypatch.setattr(packing, "_last_token", lambda nodes, index: last(nodes, index) + offset)

    return mutate


@pytest.mark.parametrize(
    "mutate",
    [
        _siblings_see_each_other,
        _branches_do_not_see_the_prompt_start,
        _all_causal,
        _shift_branch_positions,
        _positions_run_on_through_siblings,
        _predict_from(-1),
        _predict_from(1),
    ],
)
def test_mutants_are_caught(
    frozen_model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch, mutate: Callable[[pytest.MonkeyPatch], None]
) -> None:
    tree = group(video_prompt(processor))
    assert agrees(frozen_model, [tree])
    mutate(monkeypatch)
    assert not agrees(frozen_model, [tree], bound=1e-4)
