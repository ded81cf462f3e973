"""Rollouts that encode and prefill what is shared once, and decode with transformers' own ``generate``.

The prompt and all queries are one packed row, prefilled in one forward; its cache is then shared by all rows (see
``decoding``). Positions are explicit: nothing depends on positions the model remembers from an earlier call.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList

from timelens_plugins.shared_prefix.attention import install
from timelens_plugins.shared_prefix.decoding import SharedCache
from timelens_plugins.shared_prefix.locate import device_of, vision_language_model
from timelens_plugins.shared_prefix.packing import pack, prompt_positions, split_positions
from timelens_plugins.shared_prefix.sampling import GroupSampler, can_sample
from timelens_plugins.shared_prefix.tree import Branch, Prompt, PromptTree, Tokens
from timelens_plugins.shared_prefix.vision import vision_inputs

__all__ = ["generate_group", "generate_groups"]


@torch.no_grad()
def generate_group(
    model: Any,
    prompt: Prompt,
    generation_config: GenerationConfig,
    *,
    completions: int = 1,
    queries: Sequence[Tokens] | None = None,
    max_rows: int | None = None,
) -> list[list[Tensor]]:
    """Complete a prompt, or several queries that continue it, ``completions`` times each.

    Args:
        model: the unwrapped model (or a PEFT model), with whole parameters; its mode is left as it was.
        generation_config: sampling, length and stopping. Keep vision tokens from being sampled by its
            ``suppress_tokens``; they are refused in training.
        completions: per query; 1 and ``do_sample=False`` for evaluation.
        queries: what follows the prompt, one list of tokens each; None where the prompt is complete.
        max_rows: rows decoded at the same time; None for all. Rows cost little memory, the prompt's keys and values
            exist once. The same seed gives the samples of the plain repeated batch where all rows are decoded at once.

    Returns:
        For each query (one entry where ``queries`` is None) its completions, token ids of shape ``(n,)`` up to and
        including the first end-of-sequence token.

    Raises:
        ValueError: options that make no sense here, or inputs that do not fit each other.
        RuntimeError: attention does not go through transformers' AttentionInterface.
    """
    config = _checked(model, generation_config)
    if completions < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError(f"completions and max_rows must be at least 1, got {completions} and {max_rows}")
    core = vision_language_model(model)
    prompt, own = _split_last(core, prompt) if queries is None else (prompt, list(queries))
    if not own:
        raise ValueError("no queries: pass None where the prompt is complete")
    device = device_of(core)
    branches = [Branch(torch.as_tensor(query)) for query in own]
    rows = _Rows(core, prompt, branches, config.pad_token_id, device)
    order = [i for i in range(len(branches)) for _ in range(completions)]
    step = max_rows or len(order)

    done: list[Tensor] = []
    install(model)
    with _evaluating(model):
        cache = _prefill(model, core, [PromptTree(prompt, branches)])
        for at in range(0, len(order), step):
            index = torch.tensor(order[at : at + step], device=device)
            with cache.decoding(rows.visible[index], length=rows.input_ids.shape[1] - 1):
                output = model.generate(
                    input_ids=rows.input_ids[index],
                    attention_mask=torch.ones_like(rows.input_ids[index]),
                    position_ids=rows.position_ids[:, index],
                    past_key_values=cache,
                    generation_config=config,
                    synced_gpus=False,  # parameters are whole: no process waits for another's longest answer
                )
            done += _trim(output[:, rows.input_ids.shape[1] :], config.eos_token_id)
    return [done[i : i + completions] for i in range(0, len(done), completions)]


@torch.no_grad()
def generate_groups(
    model: Any,
    prompts: Sequence[Prompt],
    generation_config: GenerationConfig,
    *,
    completions: int,
    seeds: Sequence[int],
) -> list[list[Tensor]]:
    """Complete several prompts ``completions`` times each, all of them decoded at the same time.

    A step of decoding costs hardly more for the rows of many groups than for those of one. What is sampled for a prompt
    depends on its seed alone: it is what :func:`generate_group` samples after ``torch.manual_seed(seed)``, up to
    rounding, whatever prompts are completed beside it. Memory: the keys and values of all prompts at once.

    Args:
        model, generation_config: as :func:`generate_group`'s.
        prompts: complete ones, of any lengths.
        completions: of each.
        seeds: one for each prompt.

    Returns:
        For each prompt its completions, as :func:`generate_group` returns them.

    Raises:
        ValueError: options that make no sense here, or inputs that do not fit each other.
        RuntimeError: attention does not go through transformers' AttentionInterface.
    """
    if completions < 1 or len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, {len(seeds)} seeds and {completions} completions of each")
    if not can_sample(generation_config):
        done = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            device = device_of(vision_language_model(model))
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.manual_seed(seed)
                done += generate_group(model, prompt, generation_config, completions=completions)
        return done
    config = _checked(model, generation_config)
    core = vision_language_model(model)
    device = device_of(core)
    sampler = GroupSampler(config, completions, seeds, device, getattr(model, "generation_config", None))
    split = [_split_last(core, prompt) for prompt in prompts]
    width, total = max(map(len, prompts)), sum(len(prompt) - 1 for prompt in prompts)
    input_ids = torch.full((len(prompts), width), config.pad_token_id, device=device)
    position_ids = torch.zeros(3, len(prompts), width, dtype=torch.long, device=device)
    visible = torch.zeros(len(prompts), total, dtype=torch.bool, device=device)
    start = 0
    for i, (prefix, _) in enumerate(split):
        input_ids[i, width - len(prompts[i]) :] = prompts[i].input_ids.to(device)
        position_ids[:, i, -1] = prompt_positions(core, prefix)[1]
        visible[i, start : start + len(prefix)] = True
        start += len(prefix)
    rows = torch.arange(len(prompts), device=device).repeat_interleave(completions)
    install(model)
    with _evaluating(model):
        cache = _prefill(model, core, [PromptTree(prefix, [Branch(last)]) for prefix, [last] in split])
        with cache.decoding(visible[rows], length=width - 1):
            output = model.generate(
                input_ids=input_ids[rows],
                attention_mask=torch.ones_like(input_ids[rows]),
                position_ids=position_ids[:, rows],
                past_key_values=cache,
                generation_config=sampler.config,
                logits_processor=LogitsProcessorList([sampler]),
                synced_gpus=False,
            )
    ids = _trim(output[:, width:], config.eos_token_id)
    return [ids[i : i + completions] for i in range(0, len(ids), completions)]


def _split_last(core: Any, prompt: Prompt) -> tuple[Prompt, list[Tensor]]:
    """A complete prompt as a prefix and its last token, from which ``generate`` continues."""
    if len(prompt) < 2:
        raise ValueError("a prompt of one token has nothing to prefill: call the model's own generate")
    if bool(prompt.mm_token_type_ids[-1]):
        raise ValueError("the last token of a prompt must be text")
    ids, kinds = prompt.input_ids, prompt.mm_token_type_ids
    prefix = dataclasses.replace(prompt, input_ids=ids[:-1], mm_token_type_ids=kinds[:-1])
    split_positions(core, prompt, prefix)
    return prefix, [ids[-1:]]


class _Rows:
    """What ``generate`` gets for each query, and what the query sees of the packed row of L tokens.

    Attributes:
        input_ids: prompt and query, left-padded, shape ``(Q, W)``. All but the last token are in the cache; the others
            are there for logits processors that look at the text so far.
        position_ids: temporal, height and width positions, shape ``(3, Q, W)``; only the last is ever used.
        visible: shape ``(Q, L)``.
    """

    def __init__(self, core: Any, prompt: Prompt, branches: list[Branch], pad: int, device: torch.device) -> None:
        following = prompt_positions(core, prompt)[1]
        longest = max(branch.tokens.numel() for branch in branches)
        width, packed = len(prompt) + longest, len(prompt) + sum(b.tokens.numel() - 1 for b in branches)
        self.input_ids = torch.full((len(branches), width), pad, device=device)
        self.position_ids = torch.zeros(3, len(branches), width, dtype=torch.long, device=device)
        self.visible = torch.zeros(len(branches), packed, dtype=torch.bool, device=device)
        self.visible[:, : len(prompt)] = True
        start = len(prompt)
        for i, branch in enumerate(branches):
            tokens = torch.cat([prompt.input_ids.to(device), branch.tokens.to(device)])
            self.input_ids[i, width - tokens.numel() :] = tokens
            self.position_ids[:, i, -1] = following + branch.tokens.numel() - 1
            stop = start + branch.tokens.numel() - 1
            self.visible[i, start:stop] = True
            start = stop


def _prefill(model: nn.Module, core: Any, trees: Sequence[PromptTree]) -> SharedCache:
    """One forward over prompts and queries, but for each query's last token."""
    row = pack(core, trees, device_of(core))
    cache = DynamicCache(config=core.config.get_text_config())
    model(
        input_ids=row.input_ids,
        position_ids=row.position_ids,
        attention_mask=None,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        shared_prefix=row.plan,
        **vision_inputs(core, [tree.prompt for tree in trees]),
    )
    row.plan.check(core.config.get_text_config().num_hidden_layers)
    return SharedCache(cache)


def _trim(generated: Tensor, eos: int | list[int]) -> list[Tensor]:
    ends = torch.isin(generated, torch.as_tensor(eos, device=generated.device))
    lengths = torch.where(ends.any(-1), ends.int().argmax(-1) + 1, generated.shape[1])
    return [row[:n] for row, n in zip(generated, lengths.tolist(), strict=True)]


def _checked(model: nn.Module, given: GenerationConfig) -> GenerationConfig:
    """A copy with the model's own special tokens filled in, and plain token output."""
    if not hasattr(model, "generate"):
        raise ValueError(f"{type(model).__name__} has no generate: pass the unwrapped model")
    for name in ("num_return_sequences", "num_beams"):
        if (getattr(given, name, None) or 1) != 1:
            raise ValueError(f"{name}={getattr(given, name)} is not supported: set completions instead")
    if given.return_dict_in_generate:
        raise ValueError("return_dict_in_generate is not supported: only token ids are returned")
    config = copy.deepcopy(given)
    own = getattr(model, "generation_config", None)
    for name in ("eos_token_id", "pad_token_id"):
        if getattr(config, name) is None:
            setattr(config, name, getattr(own, name, None))
    if config.eos_token_id is None:
        raise ValueError("neither generation_config nor the model names an eos_token_id")
    if config.pad_token_id is None:
        config.pad_token_id = config.eos_token_id if isinstance(config.eos_token_id, int) else config.eos_token_id[0]
    return config


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: in training mode gradient checkpointing drops the cache with no more than a warning."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
