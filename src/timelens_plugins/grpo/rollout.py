"""Completions of groups: by one prefill of what prompts share, groups decoded together, or by the plain repeated batch.

Or by vLLM (``grpo/vllm_rollout.py``).

What is sampled depends on the run's seed, the generation batch and the group's place in it; not on how many processes
share the work, on what was generated before, or on which of the first two ways it is computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import GenerationConfig

from timelens_plugins.grpo.groups import Group, by_video, split_groups, with_trunks
from timelens_plugins.inference.plain import generate_plain
from timelens_plugins.shared_prefix import KeptPrefix, Prompt, encode_vision, generate_groups
from timelens_plugins.shared_prefix.sampling import seeded

__all__ = ["complete_groups", "encoder", "group_seed", "rollout", "whole_model"]


def rollout(prompts: list[Any], trainer: Any) -> dict[str, Any]:
    """What TRL's trainer calls as its ``rollout_func``, in the place of its own tokenizing and generating.

    Those would decode the video once per completion, and forget it afterwards.

    Args:
        prompts: of the rows, which are read from the trainer, whole, instead.
        trainer: a :class:`~timelens_plugins.grpo.trainer.TimeLensGRPOTrainer`; its groups are set.
    """
    args, accelerator = trainer.args, trainer.accelerator
    training: bool = trainer.model.training
    generations = trainer.num_generations if training else trainer.num_generations_eval
    members = split_groups(trainer._rows, generations)
    trainer.prompts.expect([rows[0] for rows in members])
    plain: list[Group] = []
    completions: list[Tensor] = []
    index = trainer._step // (args.steps_per_generation * trainer.num_iterations)
    first = accelerator.process_index * len(members)
    with whole_model(trainer.model_wrapped, accelerator) as model, accelerator.autocast():
        encode = encoder(model, args.share_prefix)
        groups: list[Group] = []
        for rows in members:
            group = trainer.prompts.group(rows[0])
            groups.append(replace(group, prompt=encode(group.prompt), clip=None))
            plain.append(group)
        trainer._groups = with_trunks(groups) if args.shares_videos else groups
        kept = [i for i, group in enumerate(trainer._groups) if group.kept]
        prefixes: dict[int, KeptPrefix] | None = {} if args.keep_prefill and training else None
        seeds = [group_seed(args.seed, int(training), index, first + i) for i in kept]
        log_probs: dict[int, list[list[float]]] = {}
        if args.use_vllm:
            sampled, sampled_by = trainer.vllm_generation.complete([plain[i] for i in kept], generations, seeds)
            log_probs = dict(zip(kept, sampled_by, strict=True))
        else:
            sampled = complete_groups(
                model,
                [trainer._groups[i] for i in kept],
                trainer.generation_config,
                generations,
                seeds,
                share=args.share_prefix,
                max_rows=args.rollout_rows,
                together=args.prompts_together,
                prefixes=prefixes,
            )
        for i, prefix in (prefixes or {}).items():
            trainer._groups[kept[i]] = replace(trainer._groups[kept[i]], prefix=prefix)
        by_number = dict(zip(kept, sampled, strict=True))
        for i in range(len(plain)):
            completions += by_number.get(i) or [torch.tensor([trainer._tokenizer.eos_token_id])] * generations
        if kept:
            [siblings] = [video for video in by_video(trainer._groups) if kept[0] in video]
            trainer._first_batch.remember([plain[i] for i in siblings], [by_number[i] for i in siblings])
        trainer._first_batch.scores(model, encode)
    if args.use_vllm:
        trainer.vllm_generation.rest()
    rows_of = [group for group in trainer._groups for _ in range(generations)]
    output: dict[str, Any] = {
        "prompt_ids": [group.prompt.input_ids.tolist() for group in rows_of],
        "completion_ids": [c.tolist() for c in completions],
        "logprobs": None,
    }
    if args.use_vllm:
        skipped = [[0.0]] * generations
        output["logprobs"] = [row for i in range(len(plain)) for row in log_probs.get(i, skipped)]
    if args.snap_spans:
        output["times"] = [group.times for group in rows_of]
    if args.on_bad_video == "skip":
        output["env_mask"] = [
            [int(group.kept)] * len(ids) for group, ids in zip(rows_of, output["completion_ids"], strict=True)
        ]
    return output


def encoder(model: nn.Module, share_prefix: bool) -> Callable[[Prompt], Prompt]:
    """``encode_vision`` that runs once for prompts of the same clip, which share their tensors.

    Without sharing, prompts stay as they are.
    """
    done: dict[int, tuple[Prompt, Prompt]] = {}

    def encode(prompt: Prompt) -> Prompt:
        if not share_prefix:
            return prompt
        pixels = prompt.vision.get("pixel_values_videos", prompt.vision.get("pixel_values"))
        if id(pixels) not in done:
            done[id(pixels)] = (prompt, encode_vision(model, prompt))
        encoded = done[id(pixels)][1]
        return replace(prompt, vision=encoded.vision, features=encoded.features)

    return encode


def complete_groups(
    model: Any,
    groups: Sequence[Group],
    config: GenerationConfig,
    completions: int,
    seeds: Sequence[int],
    *,
    share: bool,
    max_rows: int | None = None,
    together: int = 1,
    prefixes: dict[int, KeptPrefix] | None = None,
) -> list[list[Tensor]]:
    """Sampled continuations of prompts: for each, token ids of shape ``(n,)``, end-of-sequence token included.

    Args:
        model: unwrapped and whole.
        groups: whose prompts are completed; those with one trunk are prefilled together, and the trunk once.
        config: of the sampling.
        completions: of each prompt.
        seeds: one for each prompt.
        share: prefill a prompt once.
        max_rows: completions of a prompt decoded at the same time, where prompts come one by one.
        together: prompts decoded at the same time; those with one trunk count as one.
        prefixes: gets, by the number of each group, the part of its prefill that is kept with its graph.
    """
    device = model.get_input_embeddings().weight.device
    if not share:
        done = []
        for group, seed in zip(groups, seeds, strict=True):
            with seeded(device, seed):
                done.append(generate_plain(model, group.prompt, config, completions, max_rows))
        return done
    videos = by_video(groups)
    found: dict[int, list[Tensor]] = {}
    for at in range(0, len(videos), together):
        part = videos[at : at + together]
        prompts = [_continued(groups, members) for members in part]
        order = [i for members in part for i in members]
        keeping: list[KeptPrefix] | None = None if prefixes is None else []
        sampled = generate_groups(
            model,
            prompts,
            config,
            completions=completions,
            seeds=[seeds[i] for i in order],
            max_rows=max_rows,
            kept=keeping,
        )
        if prefixes is not None and keeping is not None:
            prefixes |= {i: prefix for members, prefix in zip(part, keeping, strict=True) for i in members}
        found |= zip(order, sampled, strict=True)
    return [found[i] for i in range(len(groups))]


def _continued(groups: Sequence[Group], members: Sequence[int]) -> Prompt | tuple[Prompt, list[Tensor]]:
    """The prompt of a group by itself, or the trunk of several and what follows it in each."""
    trunk = groups[members[0]].trunk
    if trunk is None:
        return groups[members[0]].prompt
    return trunk, [groups[i].query for i in members]


def group_seed(*numbers: int) -> int:
    """A seed that is a function of ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def whole_model(model: nn.Module, accelerator: Accelerator) -> Iterator[Any]:
    """The unwrapped model with all parameters in place, so that each process may run it as often as it likes.

    Under FSDP2 every forward of a sharded model gathers parameters together with the other processes. Completions
    differ in length, so generating that way would wait forever; here they are gathered once, for as long as this lasts.
    So they are of DeepSpeed's ZeRO-3; its other stages keep them whole.
    """
    unwrapped = accelerator.unwrap_model(model)
    deepspeed_plugin = accelerator.state.deepspeed_plugin
    if deepspeed_plugin is not None and deepspeed_plugin.zero_stage == 3:
        with _gathered_by_deepspeed(model):
            yield unwrapped
        return
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


@contextlib.contextmanager
def _gathered_by_deepspeed(engine: Any) -> Iterator[None]:
    """All parameters of ZeRO-3 in place, and none of the hooks that would gather and give them up again."""
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    with deepspeed.zero.GatheredParameters(list(engine.parameters())):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)
