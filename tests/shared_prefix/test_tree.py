"""Trees refuse what would go wrong later, and prompts of one video find what they share."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from plain_batch import group, random_tokens, video_prompt

from timelens_plugins.shared_prefix import Branch, Prompt, PromptTree, log_probs, share_prompt


def text_prompt(n: int) -> Prompt:
    return Prompt(random_tokens(n, n), torch.zeros(n, dtype=torch.long))


def test_order_of_scored_branches() -> None:
    leaf = [Branch([i + 1]) for i in range(4)]
    tree = PromptTree(
        text_prompt(3), [Branch([9], [leaf[0], Branch([8], [leaf[1]])], scored=False), leaf[2], Branch([7], [leaf[3]])]
    )
    assert [int(b.tokens[0]) for b in tree.scored_branches()] == [1, 8, 2, 3, 7, 4]


def test_a_copy_of_a_prompt_is_the_prompt() -> None:
    prompt = text_prompt(3)
    assert copy.deepcopy({"rows": [prompt, prompt]})["rows"][1] is prompt


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Branch([]), "no tokens"),
        (lambda p: Branch([[1, 2]]), "one-dimensional"),
        (lambda p: Branch([1.5]), "integers"),
        (lambda p: PromptTree(p, []), "at least one branch"),
        (lambda p: PromptTree.group(p, [[1], []]), "no tokens"),
        (lambda p: Prompt([], []), "no tokens"),
        (lambda p: Prompt([1, 2], [0]), "2 tokens, mm_token_type_ids 1"),
        (lambda p: Prompt([1], [0], {"pixel_value": torch.zeros(1)}), "pixel_value"),
        (lambda p: Prompt([1, 2], [0, 2]), "video tokens but no video_grid_thw"),
        (lambda p: Prompt([1], [0], {"image_grid_thw": torch.ones(1, 3)}), "image image_grid_thw but no tokens"),
        (lambda p: Prompt([1], [2], {"video_grid_thw": torch.ones(1, 3)}), "neither pixel_values_videos nor features"),
        (lambda p: Prompt.from_inputs({"input_ids": torch.ones(2, 3)}), r"one prompt of shape \(1, P\)"),
        (lambda p: Prompt.from_inputs({"input_ids": torch.ones(1, 3).long()}), "mm_token_type_ids is missing"),
        (
            lambda p: Prompt.from_inputs({"input_ids": torch.ones(1, 2).long(), "attention_mask": [[0, 1]]}),
            "padded",
        ),
    ],
)
def test_what_a_tree_refuses(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(text_prompt(3))


def test_what_scoring_refuses(frozen_model: Any, processor: Any) -> None:
    prompt = video_prompt(processor)
    grid = prompt.vision["video_grid_thw"] * torch.tensor([2, 1, 1])
    cases = [
        ([], {}, "no trees"),
        ([PromptTree(prompt, [Branch([5], scored=False)])], {}, "no branch is scored"),
        ([PromptTree.group(prompt, [[5, frozen_model.config.video_token_id]])], {}, "suppress_tokens"),
        (
            [group(Prompt(prompt.input_ids, prompt.mm_token_type_ids, {**prompt.vision, "video_grid_thw": grid}))],
            {},
            "means",
        ),
        ([group(prompt)], {"temperature": 0.0}, "temperature"),
        ([group(prompt)], {"chunk_tokens": 0}, "chunk_tokens"),
    ]
    for trees, options, message in cases:
        with pytest.raises(ValueError, match=message):
            log_probs(frozen_model, trees, **options)
    types = prompt.mm_token_type_ids.clone()
    types[types == 2] = 0
    rest = {k: v for k, v in prompt.vision.items() if k == "no"}
    with pytest.raises(ValueError, match="disagree"):
        log_probs(frozen_model, group(Prompt(prompt.input_ids, types, rest)))


def test_prompts_of_one_video_share(processor: Any) -> None:
    texts = ["when does it happen?", "when does it end?", "who"]
    prompts = [video_prompt(processor, text=text) for text in texts]
    shared, own = share_prompt(prompts)
    for prompt, tokens in zip(prompts, own, strict=True):
        assert torch.equal(torch.cat([shared.input_ids, tokens]), prompt.input_ids)
    first = {int(tokens[0]) for tokens in own}
    assert len(first) > 1, "the longest common part"
    assert int((shared.mm_token_type_ids == 2).sum()) == int((prompts[0].mm_token_type_ids == 2).sum())

    same, own = share_prompt([prompts[0], prompts[0]])
    assert [len(tokens) for tokens in own] == [1, 1]
    assert len(same) == len(prompts[0]) - 1
    with pytest.raises(ValueError, match="prompt 1 has other vision inputs"):
        share_prompt([prompts[0], video_prompt(processor, seed=2)])
    with pytest.raises(ValueError, match="no prompts"):
        share_prompt([])
    with pytest.raises(ValueError, match="no token in common"):
        share_prompt([Prompt([1, 2], [0, 0]), Prompt([2, 2], [0, 0])])
