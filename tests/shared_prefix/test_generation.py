"""Shared rollouts give the tokens of transformers' own generate on the repeated batch."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from plain_batch import image_prompt, random_tokens, repeated_inputs, video_prompt
from transformers import GenerationConfig, PreTrainedTokenizerFast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from timelens_plugins.shared_prefix import (
    Prompt,
    PromptTree,
    encode_vision,
    generate_group,
    generate_groups,
    log_probs,
    share_prompt,
)
from timelens_plugins.synthetic.tiny import build_model


@pytest.fixture(scope="module")
def model(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    """Sharper logits, so that greedy answers depend on the video."""
    return build_model(family, tokenizer).double()


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


def test_what_cannot_be_decoded_together_is_decoded_alone(model: Any, processor: Any) -> None:
    prompts = [video_prompt(processor), video_prompt(processor, frames=8)]
    settings = config(model, do_sample=True, temperature=1.3, repetition_penalty=1.5)
    alone = []
    for prompt, seed in zip(prompts, (1, 2), strict=True):
        torch.manual_seed(seed)
        alone += generate_group(model, prompt, settings, completions=3)
    assert lists(generate_groups(model, prompts, settings, completions=3, seeds=[1, 2])) == lists(alone)
    with pytest.raises(ValueError, match="seeds"):
        generate_groups(model, prompts, settings, completions=3, seeds=[1])


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
        sizes.append(tuple(key.shape[:3:2]))
        return attend(self, query, key, value, scaling)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding.SharedCache, "attend", spy)
        generate_group(model, prompt, config(model, max_new_tokens=3), completions=6)
    packed = len(prompt) - 1
    assert sorted(set(sizes)) == [(1, packed + 6), (1, packed + 12), (1, packed + 18)]


def test_with_an_adapter_and_flash_attention(
    family: str, tokenizer: PreTrainedTokenizerFast, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PEFT model; then flash attention for the prompt, its kernel stood in for on a CPU."""
    base = build_model(family, tokenizer).double()
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
    assert lengths == [len(prompt) - 1] * 2, "once per layer, for the prompt"


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
        ({}, {"completions": 0}, "at least 1"),
        ({}, {"max_rows": 0}, "at least 1"),
        ({}, {"queries": []}, "pass None"),
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
