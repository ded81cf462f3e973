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
from transformers import GenerationConfig

from timelens_plugins.shared_prefix.kept import KeptPrefix
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.shared_prefix.packing import split_positions
from timelens_plugins.shared_prefix.prefilled import Prefilled, prefill_trees
from timelens_plugins.shared_prefix.sampling import can_sample
from timelens_plugins.shared_prefix.tree import Prompt, Tokens

__all__ = ["complete", "generate_group", "generate_groups", "prefill"]


@torch.no_grad()
def generate_group(
    model: Any,
    prompt: Prompt,
    generation_config: GenerationConfig,
    *,
    completions: int = 1,
    queries: Sequence[Tokens] | None = None,
    max_rows: int | None = None,
    seeds: Sequence[int] | None = None,
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
        seeds: of sampled completions, one for each, those of a query together. What is sampled for a row is then what
            its prompt alone gets after ``torch.manual_seed(seed)``, up to rounding, whatever rows are decoded beside
            it. None: from torch's own random numbers.

    Returns:
        For each query (one entry where ``queries`` is None) its completions, token ids of shape ``(n,)`` up to and
        including the first end-of-sequence token.

    Raises:
        ValueError: options that make no sense here, or inputs that do not fit each other.
        RuntimeError: attention does not go through transformers' AttentionInterface.
    """
    config = _checked(model, generation_config)
    _check_counts(completions, max_rows)
    core = vision_language_model(model)
    if seeds is not None:
        rows_wanted = completions * (1 if queries is None else len(queries))
        if len(seeds) != rows_wanted or not config.do_sample:
            raise ValueError(f"{len(seeds)} seeds for {rows_wanted} completions, do_sample={config.do_sample}")
    with _evaluating(model):
        rows = prefill_trees(model, core, [_tree(core, prompt, queries)])
        order = [i for i in range(len(rows)) for _ in range(completions)]
        done = rows.complete(model, config, order, max_rows, seeds)
    return [done[i : i + completions] for i in range(0, len(done), completions)]


@torch.no_grad()
def generate_groups(
    model: Any,
    prompts: Sequence[Prompt | tuple[Prompt, Sequence[Tokens]]],
    generation_config: GenerationConfig,
    *,
    completions: int,
    seeds: Sequence[int],
    max_rows: int | None = None,
    kept: list[KeptPrefix] | None = None,
) -> list[list[Tensor]]:
    """Complete several prompts ``completions`` times each, all of them decoded at the same time.

    A step of decoding costs hardly more for the rows of many groups than for those of one. What is sampled for a prompt
    depends on its seed alone: it is what :func:`generate_group` samples after ``torch.manual_seed(seed)``, up to
    rounding, whatever prompts are completed beside it. Memory: the keys and values of all prompts at once.

    Args:
        model, generation_config: as :func:`generate_group`'s.
        prompts: complete ones, of any lengths; or what several share, with the tokens that follow it in each.
        completions: of each.
        seeds: one for each complete prompt.
        max_rows: rows decoded at the same time; None for all. With a number, prompts are completed one after the other,
            and memory is that of one entry of ``prompts``.
        kept: a list that gets the prefix of each entry of ``prompts`` with its graph, for :func:`log_probs`. Memory is
            then that of training on all of them; nothing that differs between training and evaluation, such as dropout,
            may be in the model.

    Returns:
        For each complete prompt its completions, as :func:`generate_group` returns them.

    Raises:
        ValueError: options that make no sense here, or inputs that do not fit each other.
        RuntimeError: attention does not go through transformers' AttentionInterface.
    """
    config = _checked(model, generation_config)
    _check_counts(completions, max_rows)
    core = vision_language_model(model)
    split = [_tree(core, p) if isinstance(p, Prompt) else _tree(core, *p) for p in prompts]
    if len(seeds) != sum(len(own) for _, own in split):
        raise ValueError(f"{sum(len(own) for _, own in split)} prompts and {len(seeds)} seeds")
    together = max_rows is None and can_sample(config)
    done: list[Tensor] = []
    with _evaluating(model):
        for trees in [split] if together else [[tree] for tree in split]:
            if kept is None:
                rows = prefill_trees(model, core, trees)
            else:
                each = [prefill_trees(model, core, [tree], keep=True) for tree in trees]
                kept += [one.prefix for one in each if one.prefix is not None]
                rows = Prefilled.join(each)
            order = [i for i in range(len(rows)) for _ in range(completions)]
            first = len(done) // completions
            done += rows.complete(model, config, order, max_rows, seeds[first : first + len(rows)])
    return [done[i : i + completions] for i in range(0, len(done), completions)]


@torch.no_grad()
def prefill(model: Any, prompt: Prompt, queries: Sequence[Tokens] | None = None) -> Prefilled:
    """The part of :func:`generate_group` that comes before its completions; arguments and errors as there."""
    core = vision_language_model(model)
    with _evaluating(model):
        return prefill_trees(model, core, [_tree(core, prompt, queries)])


@torch.no_grad()
def complete(
    model: Any,
    prefilled: Sequence[Prefilled],
    generation_config: GenerationConfig,
    *,
    completions: int = 1,
    max_rows: int | None = None,
    seeds: Sequence[int] | None = None,
) -> list[list[Tensor]]:
    """Complete the prompts of several :func:`prefill` together, which are used up by it.

    A step of decoding costs hardly more for the rows of many videos than for those of one, and memory is that of their
    caches. What a prompt gets is what :func:`generate_group` gives it, up to rounding.

    Args:
        model, generation_config, completions, max_rows: as :func:`generate_group`'s.
        seeds: of sampled completions, one for each, those of a prompt together; needed where they are sampled.

    Returns:
        For each complete prompt its completions, as :func:`generate_group` returns them.

    Raises:
        ValueError: options that make no sense here, or prompts that are used up already.
        RuntimeError: attention does not go through transformers' AttentionInterface.
    """
    config = _checked(model, generation_config)
    _check_counts(completions, max_rows)
    prompts = sum(map(len, prefilled))
    if (len(seeds) if seeds is not None else 0) != prompts * completions * bool(config.do_sample):
        raise ValueError(f"{seeds and len(seeds)} seeds, {prompts} prompts, do_sample={config.do_sample}")
    rows = Prefilled.join(prefilled)
    order = [i for i in range(len(rows)) for _ in range(completions)]
    with _evaluating(model):
        done = rows.complete(model, config, order, max_rows, seeds)
    return [done[i : i + completions] for i in range(0, len(done), completions)]


def _check_counts(completions: int, max_rows: int | None) -> None:
    if completions < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError(f"completions and max_rows must be at least 1, got {completions} and {max_rows}")


def _tree(core: Any, prompt: Prompt, queries: Sequence[Tokens] | None = None) -> tuple[Prompt, list[Tensor]]:
    """What is shared, and what follows it in each complete prompt."""
    if queries is None:
        return _split_last(core, prompt)
    if not len(queries):
        raise ValueError("no queries: pass None, or the prompt alone, where it is complete")
    return prompt, [torch.as_tensor(query) for query in queries]


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


def _checked(model: nn.Module, given: GenerationConfig) -> GenerationConfig:
    """A copy with the model's own special tokens filled in, and plain token output."""
    if not hasattr(model, "generate"):
        raise ValueError(f"{type(model).__name__} has no generate: pass the unwrapped model")
    for name in ("num_return_sequences", "num_beams"):
        if (getattr(given, name, None) or 1) != 1:
            raise ValueError(f"{name}={getattr(given, name)} is not supported: set completions instead")
    if given.return_dict_in_generate:
        raise ValueError("return_dict_in_generate is not supported: only token ids are returned")
    if given.min_length or (given.max_length is not None and given.max_new_tokens is None):
        raise ValueError(
            "min_length and max_length count the prompt, whose length differs from row to row: "
            "set min_new_tokens and max_new_tokens"
        )
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
