"""Shared rollouts give the tokens of transformers' own generate on the repeated batch."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from plain_batch import double, image_prompt, random_tokens, repeated_inputs, video_prompt
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.families.tiny import build_model
from timelens_plugins.shared_prefix import (
    Prompt,
    PromptTree,
    complete,
    encode_vision,
    generate_group,
    generate_groups,
    log_probs,
    prefill,
    share_prompt,
)
from timelens_plugins.shared_prefix.locate import layer_counts


@pytest.fixture(scope="module")
def model(family: str, tokenizer: PreTrainedTokenizerFast, double_precision: None) -> Any:
    """Sharper logits, so that greedy answers depend on the video."""
    return double(build_model(family, tokenizer))


def config(model: Any, **options: Any) -> GenerationConfig:
    vision = [model.config.image_token_id, model.config.video_token_id]
    return GenerationConfig(**{"max_new_tokens": 12, "do_sample": False, "suppress_tokens": vision} | options)


def stock(model: Any, prompt: Prompt, settings: GenerationConfig, rows: int) -> list[list[int]]:
    """The plain repeated batch, each row up to its first end-of-sequence token."""
    inputs = repeated_inputs(prompt, rows)
    output = model.generate(**inputs, attention_mask=torch.ones_like(inputs["input_ids"]), generation_config=settings)[
        :, len(prompt) :
    ].tolist()
    ends = settings.eos_token_id or model.generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else ends
    cut = [next((i + 1 for i, t in enumerate(row) if t in ends), len(row)) for row in output]
    return [row[:n] for row, n in zip(output, cut, strict=True)]


def lists(groups: list[list[torch.Tensor]]) -> list[list[list[int]]]:
    return [[c.tolist() for c in completions] for completions in groups]


@pytest.mark.parametrize("frames", [4, 20])
def test_greedy_equals_stock_generate(model: Any, processor: Any, frames: int) -> None:
    """A long video too: there, text positions of Qwen2.5-VL are far from the largest position of the video."""
    prompt, settings = video_prompt(processor, frames=frames), config(model)
    expected = stock(model, prompt, settings, 1)
    assert len(set(expected[0])) > 2, "an answer, not one token over and over"
    for given in (prompt, encode_vision(model, prompt)):
        assert lists(generate_group(model, given, settings, completions=3)) == [expected * 3]
    assert lists(generate_group(model, prompt, settings, completions=3, max_rows=2)) == [expected * 3]
    images = image_prompt(processor)
    assert lists(generate_group(model, images, settings)) == [stock(model, images, settings, 1)]


def test_sampling_equals_stock_generate_under_the_same_seed(model: Any, processor: Any) -> None:
    prompt = video_prompt(processor)
    settings = config(model, do_sample=True, temperature=1.2, top_k=0)
    torch.manual_seed(3)
    free = stock(model, prompt, settings, 5)
    ends = [free[0][4], free[2][7]]  # stop rows at different places
    settings.eos_token_id = ends
    torch.manual_seed(3)
    expected = stock(model, prompt, settings, 5)
    torch.manual_seed(3)
    found = lists(generate_group(model, prompt, settings, completions=5))
    assert found == [expected]
    assert len({len(row) for row in expected}) > 1


@pytest.mark.parametrize("warped", [{"top_k": 0}, {"top_k": 7, "top_p": 0.8}, {"top_k": 0, "min_p": 0.05}, {}])
def test_groups_decoded_together_are_those_decoded_alone(model: Any, processor: Any, warped: dict[str, Any]) -> None:
    """Prompts of different lengths, one of them without a video, each under its own seed."""
    prompts = [video_prompt(processor), video_prompt(processor, frames=8), image_prompt(processor)]
    settings = config(model, do_sample=True, temperature=1.3, **warped)
    torch.manual_seed(11)
    free = stock(model, prompts[0], settings, 4)
    settings.eos_token_id = [row[len(row) // 2] for row in free[::2]]  # stop rows at different places
    seeds = [11, 2**62, 13]
    alone = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        torch.manual_seed(seed)
        alone.append(stock(model, prompt, settings, 4))
    state = torch.get_rng_state()
    found = lists(generate_groups(model, prompts, settings, completions=4, seeds=seeds))
    assert found == alone
    assert torch.equal(torch.get_rng_state(), state)
    assert len({len(row) for rows in found for row in rows}) > 1
    assert lists(generate_groups(model, prompts[::-1], settings, completions=4, seeds=seeds[::-1])) == alone[::-1]


@pytest.mark.parametrize(
    "also", [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 3}], ids=["plain", "penalty", "one by one"]
)
def test_queries_of_several_videos(model: Any, processor: Any, also: dict[str, Any]) -> None:
    """Each video's queries share its prefill; every prompt gets what it gets alone, also in few rows at a time."""
    texts = ("when?", "when does the red ring appear?", "0 1 2 3")
    prompts = [[video_prompt(processor, frames=n, text=t) for t in texts] for n in (4, 8)] + [[image_prompt(processor)]]
    settings = config(model, do_sample=True, temperature=1.3, top_k=0, **also)
    seeds = [3, 2**60, 5, 6, 7, 8, 9]
    alone = []
    for prompt, seed in zip([p for video in prompts for p in video], seeds, strict=True):
        torch.manual_seed(seed)
        alone.append(stock(model, prompt, settings, 4))
    trees = [share_prompt(video) if len(video) > 1 else video[0] for video in prompts]
    shapes: list[tuple[int, ...]] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    found = lists(generate_groups(model, trees, settings, completions=4, seeds=seeds))
    hook.remove()
    assert found == alone
    packed = [len(tree[0]) + sum(len(q) - 1 for q in tree[1]) for tree in trees[:2]] + [len(trees[2]) - 1]
    prefills = [tokens for _, tokens in shapes if tokens > 1]
    assert prefills == (packed if "no_repeat_ngram_size" in also else [sum(packed)])
    assert lists(generate_groups(model, trees, settings, completions=4, seeds=seeds, max_rows=4)) == alone
    with pytest.raises(ValueError, match="7 prompts and 3 seeds"):
        generate_groups(model, trees, settings, completions=4, seeds=[1, 2, 3])


def test_what_cannot_be_decoded_together_is_decoded_alone(model: Any, processor: Any) -> None:
    prompts = [video_prompt(processor), video_prompt(processor, frames=8)]
    settings = config(model, do_sample=True, temperature=1.3, no_repeat_ngram_size=2)
    alone = []
    for prompt, seed in zip(prompts, (1, 2), strict=True):
        torch.manual_seed(seed)
        alone += generate_group(model, prompt, settings, completions=3)
    assert lists(generate_groups(model, prompts, settings, completions=3, seeds=[1, 2])) == lists(alone)
    with pytest.raises(ValueError, match="seeds"):
        generate_groups(model, prompts, settings, completions=3, seeds=[1])


@pytest.mark.parametrize(
    "also", [{}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 3}], ids=["plain", "penalty", "one at a time"]
)
def test_a_row_with_a_seed_is_what_it_gets_alone(model: Any, processor: Any, also: dict[str, Any]) -> None:
    """Whatever is decoded beside it."""
    settings = config(model, do_sample=True, temperature=1.3, top_k=0, **also)
    texts = ("when?", "when does the red ring appear?", "0 1 2 3")
    prompts = [video_prompt(processor, text=text) for text in texts]
    seeds = [5, 2**60, 7, 8, 9, 5]
    alone = []
    for row, seed in enumerate(seeds):
        torch.manual_seed(seed)
        alone += stock(model, prompts[row // 2], settings, 1)
    shared, queries = share_prompt(prompts)
    state = torch.get_rng_state()
    for rows in (None, 4, 1):
        found = generate_group(model, shared, settings, queries=queries, completions=2, max_rows=rows, seeds=seeds)
        assert lists(found) == [alone[0:2], alone[2:4], alone[4:6]], rows
    assert torch.equal(torch.get_rng_state(), state)
    [[one]] = generate_group(model, prompts[1], settings, seeds=[7])
    assert one.tolist() == alone[2]


@pytest.mark.parametrize("sampled", [False, True])
def test_answers_about_several_videos_are_those_about_each(model: Any, processor: Any, sampled: bool) -> None:
    """Videos of different lengths and numbers of queries, prefilled one by one, decoded together."""
    prompts = [video_prompt(processor), video_prompt(processor, frames=8), image_prompt(processor)]
    queries = [[random_tokens(3, 1), random_tokens(7, 2)], [random_tokens(5, 3)], [random_tokens(4, 4)] * 3]
    settings = config(model, **({"do_sample": True, "temperature": 1.3, "top_k": 0} if sampled else {}))
    seeds = list(range(20, 32)) if sampled else None
    free = generate_group(model, prompts[0], settings, queries=queries[0], completions=2, seeds=seeds and seeds[:4])
    settings.eos_token_id = [
        int(row[min(n, len(row) - 1)]) for [row, _], n in zip(free, (3, 7), strict=True)
    ]  # stop rows apart
    alone, start = [], 0
    for prompt, own in zip(prompts, queries, strict=True):
        few = seeds and seeds[start : (start := start + 2 * len(own))]
        alone += generate_group(model, prompt, settings, queries=own, completions=2, seeds=few)
    prefilled = [prefill(model, prompt, own) for prompt, own in zip(prompts, queries, strict=True)]
    assert 0 < prefill(model, prompts[0], queries[1]).bytes < prefilled[1].bytes, "more frames, more keys"
    for max_rows in (None, 5):
        found = complete(model, prefilled, settings, completions=2, max_rows=max_rows, seeds=seeds)
        assert lists(found) == lists(alone)
        assert not any(one.bytes for one in prefilled), "nothing is held twice"
        with pytest.raises(ValueError, match="used up"):
            complete(model, prefilled, settings, completions=2, seeds=seeds)
        prefilled = [prefill(model, prompt, own) for prompt, own in zip(prompts, queries, strict=True)]
    assert len({len(row) for rows in alone for row in rows}) > 1
    with pytest.raises(ValueError, match="seeds"):
        complete(model, prefilled, settings, seeds=[1])


def test_several_queries_of_one_video(model: Any, processor: Any) -> None:
    """Queries of different lengths, one prefill: the answers each gets alone, and nothing remembered between calls."""
    settings = config(model)
    prompts = [
        video_prompt(processor, frames=24, text=t) for t in ("when?", "when does the red ring appear?", "0 1 2 3")
    ]
    shared, queries = share_prompt(prompts)
    assert len({len(q) for q in queries}) > 1
    expected = [stock(model, p, settings, 1) for p in prompts]
    rows: list[int] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(kwargs["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    found = generate_group(model, shared, settings, queries=queries)
    hook.remove()
    assert lists(found) == expected
    assert rows[0] == len(shared) + sum(len(q) - 1 for q in queries), "one prefill of everything"
    assert set(rows[1:]) == {len(prompts)}, "then one token per row and step"
    twice = generate_group(model, shared, settings, queries=queries, completions=2, max_rows=4)
    assert lists(twice) == [e * 2 for e in expected]


def test_rollout_and_training_agree(model: Any, processor: Any) -> None:
    """Greedy tokens are the most probable ones in the training forward: same ids, same positions, same video."""
    shared, queries = share_prompt([video_prompt(processor, frames=16, text=t) for t in ("when?", "where is it")])
    settings = config(model)
    answers = generate_group(model, shared, settings, queries=queries)
    tree = PromptTree.of_queries(shared, zip(queries, answers, strict=True))
    with torch.no_grad():
        found = log_probs(model, tree).split()
    for query, [answer], picked in zip(queries, answers, found, strict=True):
        ids = torch.cat([shared.input_ids, query, answer])
        full = Prompt(ids, torch.cat([shared.mm_token_type_ids, ids.new_zeros(len(ids) - len(shared))]), shared.vision)
        with torch.no_grad():
            logits = model(**repeated_inputs(full, 1)).logits[0, -len(answer) - 1 : -1]
        expected = torch.log_softmax(logits, -1).gather(-1, answer[:, None])[:, 0]
        torch.testing.assert_close(picked, expected, rtol=1e-9, atol=1e-9)
        logits[:, settings.suppress_tokens] = -torch.inf
        assert torch.equal(logits.argmax(-1), answer)


def test_training_mode_and_checkpointing_are_left_as_they_were(model: Any, processor: Any) -> None:
    """In training mode checkpointing would drop the cache silently."""
    prompt, settings = video_prompt(processor), config(model)
    expected = stock(model, prompt, settings, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    model.model.visual.eval()
    try:
        assert lists(generate_group(model, prompt, settings)) == [expected]
        assert model.training
        assert model.model.language_model.layers[0].training
        assert not model.model.visual.training
    finally:
        model.gradient_checkpointing_disable()
        model.eval()


def test_prompts_that_cannot_be_completed(model: Any, processor: Any) -> None:
    with pytest.raises(ValueError, match="one token"):
        generate_group(model, Prompt(random_tokens(1, 0), torch.zeros(1, dtype=torch.long)), config(model))
    video = video_prompt(processor)
    last = int(video.mm_token_type_ids.nonzero()[-1]) + 1
    cut = Prompt(video.input_ids[:last], video.mm_token_type_ids[:last], video.vision)
    with pytest.raises(ValueError, match="must be text"):
        generate_group(model, cut, config(model))


def test_many_steps_and_processors_of_logits(model: Any, processor: Any) -> None:
    """The buffer grows more than once; a processor that reads the text so far sees the same text."""
    prompt = video_prompt(processor)
    settings = config(model, max_new_tokens=75, repetition_penalty=1.3, eos_token_id=0, min_new_tokens=70)
    assert lists(generate_group(model, prompt, settings, completions=2)) == [stock(model, prompt, settings, 2)]


def test_memory_is_shared(model: Any, processor: Any) -> None:
    """Keys and values of the prompt exist once, whatever the number of rows."""
    from timelens_plugins.shared_prefix import decoding

    prompt, sizes = video_prompt(processor, frames=24), []
    attend = decoding.SharedCache.attend

    def spy(self: Any, query: Any, key: Any, value: Any, scaling: Any) -> Any:
        sizes.extend(buffer.filled()[0].shape[2] for buffer in self.updated.buffers)
        return attend(self, query, key, value, scaling)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding.SharedCache, "attend", spy)
        generate_group(model, prompt, config(model, max_new_tokens=3), completions=6)
    packed = len(prompt) - 1
    assert sorted(set(sizes)) == [packed + 6, packed + 12, packed + 18]


def test_with_an_adapter_and_flash_attention(
    family: str, tokenizer: PreTrainedTokenizerFast, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PEFT model; then flash attention for the prompt, its kernel stood in for on a CPU."""
    base = double(build_model(family, tokenizer))
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], exclude_modules=".*visual.*", init_lora_weights=False)
    model = get_peft_model(base, lora).double().eval()
    settings = config(base)
    prompt = video_prompt(processor)
    expected = stock(model, prompt, settings, 2)
    assert lists(generate_group(model, prompt, settings, completions=2)) == [expected]

    lengths: list[int] = []

    def flash(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> tuple[Any, None]:
        lengths.append(query.shape[2])
        out = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=kwargs["scaling"], enable_gqa=True
        )
        return out.transpose(1, 2), None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_2", flash)
    base.model.language_model.config._attn_implementation = "flash_attention_2"
    assert lists(generate_group(model, prompt, settings, completions=2)) == [expected]
    layers = layer_counts(base.model)[0]
    assert lengths == [len(prompt) - 1] * layers, "once per layer, for the prompt"


def test_attention_that_bypasses_the_interface_is_noticed(model: Any, processor: Any) -> None:
    from timelens_plugins.shared_prefix import decoding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding.SharedCache, "attend", lambda self, query, *rest: query.transpose(1, 2))
        with pytest.raises(RuntimeError, match="shared cache 0 times"):
            generate_group(model, video_prompt(processor), config(model))


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"num_beams": 2}, {}, "num_beams"),
        ({"num_return_sequences": 2, "do_sample": True}, {}, "num_return_sequences"),
        ({"return_dict_in_generate": True}, {}, "return_dict_in_generate"),
        ({"max_new_tokens": None, "max_length": 200}, {}, "set min_new_tokens and max_new_tokens"),
        ({"min_length": 200}, {}, "set min_new_tokens and max_new_tokens"),
        ({}, {"completions": 0}, "at least 1"),
        ({}, {"max_rows": 0}, "at least 1"),
        ({}, {"queries": []}, "pass None"),
        ({}, {"seeds": [1]}, "1 seeds for 1 completions, do_sample=False"),
        ({"do_sample": True}, {"seeds": [1], "completions": 2}, "1 seeds for 2 completions"),
        ({}, {"queries": [[]]}, "no tokens|at least one token"),
    ],
)
def test_what_is_refused(
    model: Any, processor: Any, settings: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate_group(model, video_prompt(processor), config(model, **settings), **options)
    with pytest.raises(ValueError, match="has no generate"):
        generate_group(model.model.language_model.layers[0], video_prompt(processor), config(model))
