"""Rollouts of GRPO by the training model, its prefix shared, and by vLLM beside it in one process: seconds, in one run.

    make test-vllm                                            # sets up .venv-vllm
    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/vllm_rollout.py --tokens 24 256
    python benchmarks/vllm_rollout.py --model PATH --tokens 24 256 2048

The same prompts and numbers of tokens in both: no completion ends before its limit. Without ``--model``, a random
Qwen3-VL in float32 and synthetic clips. The training model is given the vision features, which training computes in
any case; vLLM encodes the clips by itself. Before each of its rollouts vLLM is given the weights, which clears its
caches; what it keeps of processed clips is cleared as well, as a training step brings others. Each time is the least of
``--repeats``, after one that is not counted. Prints a table in Markdown, and the machine.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from timelens_plugins.families.load import load_model
from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.grpo.rollout import complete_groups, encoder
from timelens_plugins.inference.vllm.starting import vllm_version
from timelens_plugins.moments import load_moments
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.training.dataset import moments_dataset

ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}
ROOM = 512  # tokens of a prompt beside its video


def trainer_of(folder: Path, args: argparse.Namespace) -> TimeLensGRPOTrainer:
    """With as many prompts in a step as are compared."""
    on_cpu = not torch.cuda.is_available()
    path = args.model or save_checkpoint(
        folder / "model", "qwen3_vl", hidden_size=256, layers=4, heads=4, kv_heads=2, head_dim=64
    )
    annotations = write_training_set(folder / "clips", {"charades": args.prompts}, size=160, progress=False)
    moments = list(load_moments(annotations, video_root=annotations.parent / "videos"))
    firsts = list({moment.video: moment for moment in moments}.values())[: args.prompts]
    model, processor = load_model(
        path, total_tokens=args.total_tokens, min_tokens=16, dtype="float32" if on_cpu else "bfloat16"
    )
    return TimeLensGRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=TimeLensGRPOConfig(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=len(firsts) * args.completions,
            num_generations=args.completions,
            max_completion_length=max(args.tokens),
            use_vllm=True,
            vllm_max_model_length=args.total_tokens + ROOM + max(args.tokens),
            use_cpu=on_cpu,
            bf16=not on_cpu,
            gradient_checkpointing=False,
            report_to=[],
        ),
        train_dataset=moments_dataset(firsts, processor.encoding),
        processing_class=processor,
    )


def seconds(run: Callable[[], object], repeats: int, before: Callable[[], object]) -> float:
    """The least of several times; the first is not counted."""
    found = []
    for _ in range(repeats + 1):
        before()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint, in place of the random one")
    parser.add_argument("--prompts", type=int, default=4, help="each about another clip")
    parser.add_argument("--completions", type=int, default=8, help="of each prompt")
    parser.add_argument("--tokens", type=int, nargs="+", default=[24, 256], help="of a completion")
    parser.add_argument("--total-tokens", type=int, default=1024, help="vision tokens of a clip")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        os.environ |= ON_CPU | dict(os.environ)
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(Path(folder), args)
        compare(trainer, args)


def compare(trainer: TimeLensGRPOTrainer, args: argparse.Namespace) -> None:
    model, vllm = (
        trainer.accelerator.unwrap_model(trainer.model).to(trainer.accelerator.device),
        trainer.vllm_generation,
    )
    rows = list(trainer.train_dataset)
    trainer.prompts.expect(rows)
    plain = [trainer.prompts.group(row) for row in rows]
    encode = encoder(model, True)
    with trainer.accelerator.autocast():
        encoded = [replace(group, prompt=encode(group.prompt), clip=None) for group in plain]
    seeds = list(range(len(rows)))
    weights = seconds(vllm.sync_weights, args.repeats, lambda: None)

    def by_vllm() -> None:
        counted(vllm.complete(plain, args.completions, seeds)[0])

    def by_model() -> None:
        with trainer.accelerator.autocast():
            config = trainer.generation_config
            counted(complete_groups(model, encoded, config, args.completions, seeds, share=True, together=len(rows)))

    def counted(groups: list[list[torch.Tensor]]) -> None:
        lengths = {len(completion) for group in groups for completion in group}
        assert lengths == {trainer.generation_config.max_new_tokens}, lengths

    def given_weights() -> None:
        vllm.sync_weights()
        vllm._llm.reset_mm_cache()

    lines = [
        "| tokens of a completion | training model, shared prefix | vLLM | vLLM is faster by |",
        "|---|---|---|---|",
    ]
    for tokens in args.tokens:
        config = copy.deepcopy(trainer.generation_config)
        config.max_new_tokens, config.eos_token_id = tokens, model.config.video_token_id  # which is never sampled
        trainer.generation_config = config
        own = seconds(by_model, args.repeats, lambda: None)
        theirs = seconds(by_vllm, args.repeats, given_weights)
        lines.append(f"| {tokens} | {own:.2f} s | {theirs:.2f} s | {own / theirs:.2f} x |")
    lengths = [len(group.prompt) for group in plain]
    print("\n".join(lines))
    print(
        f"\n{len(rows)} prompts of {min(lengths)} to {max(lengths)} tokens, {args.completions} completions each; the "
        f"weights are given to vLLM in {weights:.2f} s, which is not in the table. "
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters, "
        f"{str(vllm._dtype).removeprefix('torch.')}, vLLM {vllm_version()}, "
        f"{torch.cuda.get_device_name() if torch.cuda.is_available() else machine()}"
    )


def machine() -> str:
    """Processor and threads."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{name}, {torch.get_num_threads()} thread(s)"


if __name__ == "__main__":
    main()
