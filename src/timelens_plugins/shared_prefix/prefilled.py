"""Prompts whose keys, values and states are computed, ready to be continued row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessorList
from transformers.cache_utils import Cache

from timelens_plugins.shared_prefix.attention import install
from timelens_plugins.shared_prefix.decoding import SharedCache, packed_cache
from timelens_plugins.shared_prefix.kept import KeptPrefix
from timelens_plugins.shared_prefix.locate import device_of, layer_counts
from timelens_plugins.shared_prefix.packing import pack, prompt_positions
from timelens_plugins.shared_prefix.plan import SharedPrefixPlan
from timelens_plugins.shared_prefix.sampling import GroupSampler, can_sample, seeded
from timelens_plugins.shared_prefix.tree import Branch, Prompt, PromptTree
from timelens_plugins.shared_prefix.vision import vision_inputs

__all__ = ["Prefilled", "prefill_trees"]

_USED_UP = "these prompts are used up: what was prefilled is joined or completed once; prefill them again"


@dataclass(eq=False)
class Prefilled:
    """Complete prompts that went through the model, all but the last token of each.

    Shapes: Q prompts, W tokens of the longest, L tokens of the packed rows.

    Attributes:
        input_ids: shape ``(Q, W)``. All but the last token are in the cache; the others are there for logits processors
            that look at the text so far. On the left, shorter ones are filled up with their first token, which they
            hold anyway: a padding token would be one more that a repetition penalty bears on.
        lengths: tokens of each, shape ``(Q,)``.
        following: position of the last token of each, shape ``(Q,)``.
        visible: what each sees of the packed rows, shape ``(Q, L)``.
        parts: filled cache and plan of each packed row; given up when they are joined or the first completion begins.
        prefix: what the prompts share, with its graph, where it was to be kept.
    """

    input_ids: Tensor
    lengths: Tensor
    following: Tensor
    visible: Tensor
    parts: list[tuple[Cache, SharedPrefixPlan]]
    prefix: KeptPrefix | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def bytes(self) -> int:
        """What the cache holds, before any completion."""
        layers: list[Any] = [layer for cache, _ in self.parts for layer in cache.layers]
        tensors = [getattr(layer, name, None) for layer in layers for name in ("keys", "values", "columns", "ends")]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    @cached_property
    def _cache(self) -> SharedCache:
        parts, self.parts = self.parts, []
        if not parts:
            raise ValueError(_USED_UP)
        return SharedCache(parts)

    @classmethod
    def join(cls, several: Sequence[Prefilled]) -> Prefilled:
        """Prompts of several forwards, to be completed together; they are used up by it.

        Raises:
            ValueError: some of them are used up already.
        """
        if not all(one.parts for one in several):
            raise ValueError(_USED_UP)
        width = max(one.input_ids.shape[1] for one in several)
        ids = [torch.cat([x[:, :1].expand(-1, width - x.shape[1]), x], 1) for x in (one.input_ids for one in several)]
        joined = cls(
            input_ids=torch.cat(ids),
            lengths=torch.cat([one.lengths for one in several]),
            following=torch.cat([one.following for one in several]),
            visible=torch.block_diag(*[one.visible for one in several]).bool(),
            parts=[part for one in several for part in one.parts],
        )
        for one in several:
            one.parts = []
        return joined

    def complete(
        self,
        model: Any,
        config: GenerationConfig,
        order: Sequence[int],
        max_rows: int | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Tensor]:
        """A completion for each entry of ``order``, the number of a prompt; ``max_rows`` at the same time.

        ``seeds``, each of equally many entries, say what is sampled, whatever is decoded beside it.
        """
        done: list[Tensor] = []
        device = self.input_ids.device
        step = max_rows or len(order)
        of_seed = len(order) // len(seeds) if seeds else 1
        if seeds is not None and (step % of_seed or not can_sample(config)):
            for i, seed in enumerate(seeds):
                with seeded(device, seed):
                    done += self.complete(model, config, order[i * of_seed : (i + 1) * of_seed], max_rows)
            return done
        own = getattr(model, "generation_config", None)
        for at in range(0, len(order), step):
            index = torch.tensor(order[at : at + step], device=device)
            ids = self.input_ids[index, -int(self.lengths[index.cpu()].max()) :]
            positions = torch.zeros(3, *ids.shape, dtype=torch.long, device=device)
            positions[:, :, -1] = self.following[index]  # no other is ever used
            drawing: dict[str, Any] = {"generation_config": config}
            if seeds is not None:
                chosen = seeds[at // of_seed : (at + step) // of_seed]
                sampler = GroupSampler(config, of_seed, chosen, device, own)
                drawing = {"generation_config": sampler.config, "logits_processor": LogitsProcessorList([sampler])}
            with self._cache.decoding(self.visible[index], length=ids.shape[1] - 1, leaves=index):
                output = model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    position_ids=positions,
                    past_key_values=self._cache,
                    synced_gpus=False,  # parameters are whole: no process waits for another's longest answer
                    **drawing,
                )
            done += _trim(output[:, ids.shape[1] :], config.eos_token_id)
        return done


def prefill_trees(
    model: nn.Module, core: Any, trees: Sequence[tuple[Prompt, Sequence[Tensor]]], keep: bool = False
) -> Prefilled:
    """One forward over what prompts share and what follows it in each, but for the last token of each.

    ``keep``: with its graph, of one tree.
    """
    device = device_of(core)
    packed = [PromptTree(prompt, [Branch(query) for query in queries]) for prompt, queries in trees]
    branches = [(tree.prompt, branch.tokens) for tree in packed for branch in tree.branches]
    lengths = torch.tensor([len(prompt) + tokens.numel() for prompt, tokens in branches])
    width = int(lengths.max())
    input_ids = torch.empty(len(branches), width, dtype=torch.long, device=device)
    for ids, (prompt, tokens) in zip(input_ids, branches, strict=True):
        ids[:] = prompt.input_ids[0]
        ids[width - len(prompt) - tokens.numel() :] = torch.cat([prompt.input_ids.cpu(), tokens.cpu()])
    following = torch.tensor(
        [prompt_positions(core, prompt)[1] + tokens.numel() - 1 for prompt, tokens in branches], device=device
    )
    install(model)
    row = pack(core, packed, device)
    cache = packed_cache(core.config.get_text_config(), row.plan)
    inputs: dict[str, Any] = {
        "input_ids": row.input_ids,
        "position_ids": row.position_ids,
        "attention_mask": None,
        "logits_to_keep": 1,
        "shared_prefix": row.plan,
    }
    prefix = None
    if keep:
        prefix = row.plan.keeping = KeptPrefix(row.plan.nodes[0].stop)
        with prefix.filling(model):
            output = model(**inputs, use_cache=False, **vision_inputs(core, [tree.prompt for tree in packed]))
            prefix.anchor = output.logits.sum() * 0
        prefix.fill(cache)
    else:
        vision = vision_inputs(core, [tree.prompt for tree in packed])
        model(**inputs, past_key_values=cache, use_cache=True, **vision)
    row.plan.check(*layer_counts(core))
    visible = torch.zeros(len(branches), row.plan.length, dtype=torch.bool, device=device)
    start = number = 0
    for tree in packed:
        own = start + len(tree.prompt)
        for branch in tree.branches:
            stop = own + branch.tokens.numel() - 1
            visible[number, start : start + len(tree.prompt)] = True
            visible[number, own:stop] = True
            number, own = number + 1, stop
        start = own
    return Prefilled(input_ids, lengths, following, visible, [(cache, row.plan)], prefix)


def _trim(generated: Tensor, eos: int | list[int]) -> list[Tensor]:
    ends = torch.isin(generated, torch.as_tensor(eos, device=generated.device))
    lengths = torch.where(ends.any(-1), ends.int().argmax(-1) + 1, generated.shape[1])
    return [row[:n] for row, n in zip(generated, lengths.tolist(), strict=True)]
