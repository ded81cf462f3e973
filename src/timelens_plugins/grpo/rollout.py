"""Completions of groups: by one prefill for each, several groups decoded together, or by the plain repeated batch.

What is sampled depends on the run's seed, the generation batch and the group's place in it; not on how many processes
share the work, on what was generated before, or on which of the two ways it is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import GenerationConfig

from timelens_plugins.grpo.scoring import repeated_vision
from timelens_plugins.shared_prefix import Prompt, generate_group, generate_groups

__all__ = ["complete_groups", "group_seed", "whole_model"]


def complete_groups(
    model: Any,
    prompts: Sequence[Prompt],
    config: GenerationConfig,
    completions: int,
    seeds: Sequence[int],
    *,
    share: bool,
    max_rows: int | None = None,
    together: int = 1,
) -> list[list[Tensor]]:
    """Sampled continuations of prompts: for each, token ids of shape ``(n,)``, end-of-sequence token included.

    Args:
        model: unwrapped and whole.
        prompts: of the groups.
        config: of the sampling.
        completions: of each prompt.
        seeds: one for each prompt.
        share: prefill a prompt once.
        max_rows: completions of a prompt decoded at the same time, where prompts come one by one.
        together: prompts decoded at the same time.
    """
    done: list[list[Tensor]] = []
    device = model.get_input_embeddings().weight.device
    if share and together > 1:
        for at in range(0, len(prompts), together):
            part = slice(at, at + together)
            done += generate_groups(model, prompts[part], config, completions=completions, seeds=seeds[part])
        return done
    for prompt, seed in zip(prompts, seeds, strict=True):
        with _seeded(device, seed):
            if share:
                done += generate_group(model, prompt, config, completions=completions, max_rows=max_rows)
            else:
                done.append(_repeated(model, prompt, config, completions, max_rows))
    return done


def group_seed(*numbers: int) -> int:
    """A seed that is a function of ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _repeated(
    model: Any, prompt: Prompt, config: GenerationConfig, completions: int, max_rows: int | None
) -> list[Tensor]:
    device = model.get_input_embeddings().weight.device
    rows = max_rows or completions
    done: list[Tensor] = []
    training = model.training
    model.eval()
    try:
        while len(done) < completions:
            count = min(rows, completions - len(done))
            done += _plain(model, prompt, config, count, device)
    finally:
        model.train(training)
    return done


@torch.no_grad()
def _plain(model: Any, prompt: Prompt, config: GenerationConfig, rows: int, device: torch.device) -> list[Tensor]:
    ids = prompt.input_ids.to(device).expand(rows, -1)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=prompt.mm_token_type_ids.to(device).expand(rows, -1),
        generation_config=config,
        synced_gpus=False,
        **repeated_vision([prompt], rows, device),
    )[:, len(prompt) :]
    ends = torch.isin(output, torch.as_tensor(config.eos_token_id, device=device))
    lengths = torch.where(ends.any(-1), ends.int().argmax(-1) + 1, output.shape[1])
    return [row[:n] for row, n in zip(output, lengths.tolist(), strict=True)]


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed; afterwards they go on as if nothing had happened."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def whole_model(model: nn.Module, accelerator: Accelerator) -> Iterator[Any]:
    """The unwrapped model with all parameters in place, so that each process may run it as often as it likes.

    Under FSDP2 every forward of a sharded model gathers parameters together with the other processes. Completions
    differ in length, so generating that way would wait forever; here they are gathered once, for as long as this lasts.
    """
    unwrapped = accelerator.unwrap_model(model)
    if not accelerator.is_fsdp2:
        yield unwrapped
        return
    from torch.distributed.fsdp import FSDPModule

    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    reshard = bool(accelerator.state.fsdp_plugin.reshard_after_forward)
    # FSDP2 counts a registered `generate` as a forward around the model's own, and shards again when it returns.
    registered = [(m, m.__dict__.pop("generate")) for m in model.modules() if "generate" in m.__dict__]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield unwrapped
    finally:
        for owner, generate in registered:
            owner.__dict__["generate"] = generate
        for module in sharded:
            module.set_reshard_after_forward(reshard, recurse=False)
            module.reshard()
