"""Rollouts that encode and prefill a prompt once: the cache of the prompt is expanded to the rows that continue it.

Decoding is transformers' own ``generate``, with all its sampling options, on explicit positions: nothing depends on
positions the model remembers from an earlier call.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig

from timelens_plugins.shared_prefix.locate import device_of, vision_language_model
from timelens_plugins.shared_prefix.packing import check_vision_tokens, prompt_positions
from timelens_plugins.shared_prefix.tree import Prompt, Tokens
from timelens_plugins.shared_prefix.vision import vision_inputs

__all__ = ["generate_group"]


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
        model: the unwrapped model (or a PEFT model), with whole parameters.
        generation_config: sampling, length and stopping. Keep vision tokens from being sampled by its
            ``suppress_tokens``; they are refused in training.
        completions: per query; 1 and ``do_sample=False`` for evaluation.
        queries: what follows the prompt, one list of tokens each; None where the prompt is complete.
        max_rows: rows decoded at the same time, each with its own copy of the prompt's cache; None for all. The same
            seed gives the samples of the plain repeated batch where all rows are decoded at once.

    Returns:
        For each query (one entry where ``queries`` is None) its completions, token ids of shape ``(n,)`` up to and
        including the first end-of-sequence token.
    """
    config = _checked(model, generation_config)
    if completions < 1 or (max_rows is not None and max_rows < 1):
        raise ValueError(f"completions and max_rows must be at least 1, got {completions} and {max_rows}")
    if queries is not None and not queries:
        raise ValueError("no queries: pass None where the prompt is complete")
    core = vision_language_model(model)
    check_vision_tokens(core, prompt)
    if queries is None and bool(prompt.mm_token_type_ids[-1]):
        raise ValueError("the last token of a prompt must be text")
    device = device_of(core)
    # Without queries the last token of the prompt is what `generate` continues from.
    own = [prompt.input_ids[-1:]] if queries is None else [torch.as_tensor(q).long() for q in queries]
    if any(q.ndim != 1 or q.numel() == 0 for q in own):
        raise ValueError("a query needs at least one token")
    rows = _Rows(core, prompt, own, config.pad_token_id, prefilled=len(prompt) - (queries is None), device=device)

    done: list[Tensor] = []
    with _evaluating(model):
        cache = _prefill(model, core, prompt, rows)
        order = [i for i in range(len(own)) for _ in range(completions)]
        step = max_rows or len(order)
        for at in range(0, len(order), step):
            index = torch.tensor(order[at : at + step], device=device)
            last = at + step >= len(order)
            expanded = _expand(core, cache, len(index), consume=last)
            output = model.generate(
                input_ids=rows.input_ids[index],
                attention_mask=rows.attention_mask[index],
                position_ids=rows.position_ids[:, index],
                past_key_values=expanded,
                generation_config=config,
            )
            done += _trim(output[:, rows.input_ids.shape[1] :], config.eos_token_id)
    return [done[i : i + completions] for i in range(0, len(done), completions)]


class _Rows:
    """The prompt with each query, left-padded *between* prompt and query so that all rows end together.

    Attributes:
        input_ids, attention_mask: shape ``(Q, P + q)``, q the longest query.
        position_ids: text, temporal, height and width positions, shape ``(4, Q, P + q)``.
        prefilled: how many of the first tokens the cache holds.
    """

    def __init__(
        self, core: Any, prompt: Prompt, own: list[Tensor], pad: int, prefilled: int, device: torch.device
    ) -> None:
        positions, following = prompt_positions(core, prompt)
        if prefilled < len(prompt):
            following = int(positions[0, -1])
        self.prefilled = prefilled
        self.positions = positions[:, None, :prefilled].to(device)
        width = max(q.numel() for q in own)
        ids, masks, places = [], [], []
        for query in own:
            gap = width - query.numel()
            ids.append(torch.cat([prompt.input_ids[:prefilled].cpu(), torch.full((gap,), pad), query.cpu()]))
            mask = torch.ones(prefilled + width, dtype=torch.long)
            mask[prefilled : prefilled + gap] = 0
            masks.append(mask)
            text = (mask.cumsum(0) - 1)[None]
            new = (following - gap + torch.arange(width)).clamp(min=0).expand(3, -1)
            places.append(torch.cat([text, torch.cat([positions[:, :prefilled].cpu(), new], dim=1)]))
        self.input_ids = torch.stack(ids).to(device)
        self.attention_mask = torch.stack(masks).to(device)
        self.position_ids = torch.stack(places, dim=1).to(device)


def _prefill(model: nn.Module, core: Any, prompt: Prompt, rows: _Rows) -> DynamicCache:
    cache = DynamicCache(config=core.config.get_text_config())
    if rows.prefilled:
        model(
            input_ids=rows.input_ids[:1, : rows.prefilled],
            position_ids=rows.positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **vision_inputs(core, [prompt]),
        )
        if cache.get_seq_length() != rows.prefilled:
            raise RuntimeError(f"the cache holds {cache.get_seq_length()} of {rows.prefilled} tokens after the prefill")
    return cache


def _expand(core: Any, cache: DynamicCache, rows: int, consume: bool) -> DynamicCache:
    """A cache of ``rows`` copies; ``consume`` gives up the original layer by layer, to keep the peak low."""
    expanded = DynamicCache(config=core.config.get_text_config())
    layers: list[Any] = cache.layers
    for index, layer in enumerate(layers):
        if layer.is_initialized:
            expanded.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
            if consume:
                layer.reset()
    return expanded


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
