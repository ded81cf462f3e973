"""Run by torchrun on two processes, with a family's name: gradients under DDP and FSDP2 against one process's."""

from __future__ import annotations

import sys

import torch
import torch.distributed as dist
from plain_batch import deep_tree, double, gradients, group, video_prompt, worst_difference
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from timelens_plugins.families.tiny import build_model, build_processor, build_tokenizer
from timelens_plugins.shared_prefix import PromptTree, encode_vision, log_probs
from timelens_plugins.shared_prefix.acceleration import batch_frames


def trees_of(rank: int, processor: object, model: torch.nn.Module, cached: bool) -> list[PromptTree]:
    """Ranks have prompts and branches of different lengths."""
    prompt = video_prompt(processor, frames=4 + 4 * rank, seed=rank)
    if cached:
        prompt = encode_vision(model, prompt)
    return [deep_tree(prompt) if rank else group(prompt)]


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    tokenizer = build_tokenizer(["the event happens in 0123456789 seconds"] * 20)
    family = sys.argv[1]
    processor = build_processor(family, tokenizer)
    # Linear attention computes in single precision, whose sums depend on their order.
    bound = 1e-6 if family == "qwen3_vl" else 1e-4

    def build() -> torch.nn.Module:
        model = double(build_model(family, tokenizer, logit_scale=1.0)).train()
        for name, parameter in model.model.visual.named_parameters():
            parameter.requires_grad_("merger" in name)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        return model

    def backward(
        model: torch.nn.Module, ranks: list[int], features_of: torch.nn.Module, cached: bool = True
    ) -> dict[str, torch.Tensor]:
        """Gradient of the mean over ranks, as both wrappers average it."""
        total: dict[str, torch.Tensor] = {}
        for r in ranks:
            trees = trees_of(r, processor, features_of, cached)
            _, found = gradients(model, lambda trees=trees: log_probs(model, trees, chunk_tokens=4).log_probs)
            for name, gradient in found.items():
                total[name] = total.get(name, 0) + gradient / len(ranks)
        return total

    one = build()
    expected = backward(one, [0, 1], one)

    wrapped = DistributedDataParallel(build())
    found = {n.removeprefix("module."): g for n, g in backward(wrapped, [rank], one).items()}
    assert worst_difference(found, expected) < bound, "DDP"

    sharded = build()
    for layer in [*sharded.model.language_model.layers, *sharded.model.visual.blocks]:
        fully_shard(layer)
    fully_shard(sharded)
    found = {n: g.full_tensor() for n, g in backward(sharded, [rank], one).items()}
    assert worst_difference(found, expected) < bound, "FSDP2"

    batched = build()
    batch_frames(batched.model.visual)
    for layer in [*batched.model.language_model.layers, *batched.model.visual.blocks]:
        fully_shard(layer)
    fully_shard(batched)
    found = {n: g.full_tensor() for n, g in backward(batched, [rank], one, cached=False).items()}
    assert worst_difference(found, expected) < bound, "FSDP2, frames in a batch"

    # Mixed precision rounds floating-point outputs to bf16; scores must come back in fp32.
    single = build().float()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.bfloat16)
    for layer in single.model.language_model.layers:
        fully_shard(layer, mp_policy=policy)
    fully_shard(single, mp_policy=policy)
    scores = log_probs(single, trees_of(rank, processor, single, cached=False))
    assert scores.log_probs.dtype == torch.float32
    assert not torch.equal(scores.log_probs, scores.log_probs.bfloat16().float()), "rounded to bf16"
    scores.log_probs.sum().backward()
    print("ok", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
