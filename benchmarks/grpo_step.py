"""A whole optimizer step of video GRPO, plain against shared: decode, rollout, reward, update.

    python benchmarks/grpo_step.py --family qwen3_vl --prompt-tokens 4096 --completions 8
    python benchmarks/grpo_step.py --queries-per-video 4
    python benchmarks/grpo_step.py --queries-per-video 4 --exponents
    python benchmarks/grpo_step.py --queries-per-video 4 --profile
    python benchmarks/grpo_step.py --queries-per-video 4 --keep-prefill

All variants run in a fresh process on the same random model and the same mp4 file, with the same trainer and settings
(tower frozen, merger trained, no KL term). *plain* and *shared* differ in ``share_prefix``, in a step of one prompt.
With several queries a video there are two more, in a step of as many prompts about one video: *apart* has
``queries_per_video`` 1, so that each prompt is computed by itself, *together* has them in one tree. The second step is
measured, the first warms up. Time is CPU time of the process with all its threads, memory the peak above what was
resident before the step. Plain and shared sample the same completions, as do apart and together, so their gradient
norms must agree. The plain variant decodes the video once, too, which trainers that hand videos to their processor once
per row do not.

*--exponents* measures steps of the last kind (or, without ``--queries-per-video``, of one prompt) in several sizes, and
prints how their time grows: the slope of its logarithm over that of the tokens of the prompt, the completions and the
queries. *--profile* prints what such a step spends its time on. *--keep-prefill* compares it with ``keep_prefill``, in
``--pairs`` that take turns.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from shared_prefix import machine, peak, reset_peak

from timelens_plugins.families.tiny import Family
from timelens_plugins.moments import Moment
from timelens_plugins.spans import Span

VARIANTS = ("plain", "shared", "apart", "together", "kept")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=get_args(Family), default="qwen3_vl")
    parser.add_argument("--layers", type=int, default=4, help="of the text model")
    parser.add_argument("--prompt-tokens", type=int, default=4096, help="vision tokens of the clip")
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--queries-per-video", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=24, help="of a completion, at most")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fresh", action="store_true", help="give up what the first step left (clip, features) before the second"
    )
    parser.add_argument(
        "--require", type=float, default=0.0, help="fail where sharing is less than so many times faster"
    )
    parser.add_argument("--exponents", action="store_true", help="how the time of a shared step grows")
    parser.add_argument("--profile", action="store_true", help="what a shared step spends its time on")
    parser.add_argument("--keep-prefill", action="store_true", help="against training on the rollout's prefill")
    parser.add_argument("--pairs", type=int, default=2, help="of --keep-prefill")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser


def main() -> int:
    args = arguments().parse_args()
    if args.variant:
        print(json.dumps(measure(args)))
        return 0
    import trl

    print(f"{machine(args.threads)}, trl {trl.__version__}")
    if args.exponents:
        exponents(args)
        return 0
    if args.profile:
        profile(args)
        return 0
    if args.keep_prefill:
        keep_prefill(args)
        return 0
    variants = VARIANTS[:4] if args.queries_per_video > 1 else VARIANTS[:2]
    results = measured(args, *variants)
    plain, shared = results["plain"], results["shared"]
    print(
        f"{args.family}, {args.layers} layers, hidden size 256, prompt of {plain['prompt_tokens']:.0f} tokens, "
        f"{args.completions} x {args.tokens} tokens\n{'':10}{'prompts':>9}{'CPU s':>9}{'a prompt':>10}{'peak MB':>9}"
        f"{'faster':>9}{'leaner':>9}"
    )
    for variant, result in results.items():
        a_prompt = result["seconds"] / result["prompts"]
        faster, leaner = plain["seconds"] / a_prompt, plain["megabytes"] / result["megabytes"]
        print(
            f"{variant:10}{result['prompts']:9.0f}{result['seconds']:9.2f}{a_prompt:10.2f}{result['megabytes']:9.0f}"
            f"{faster:8.1f}x{leaner:8.1f}x"
        )
    for one, other in (("plain", "shared"), ("apart", "together"))[: len(results) // 2]:
        norms = results[one]["grad_norm"], results[other]["grad_norm"]
        if abs(norms[0] - norms[1]) > 1e-3 * norms[0]:
            raise SystemExit(f"gradient norms of {one} and {other} differ: {norms[0]} and {norms[1]}")
    if plain["seconds"] < args.require * shared["seconds"]:
        raise SystemExit(f"sharing is less than {args.require} times faster")
    return 0


def exponents(args: argparse.Namespace) -> None:
    """Time of a shared step against each of its sizes."""
    sizes = {
        "prompt tokens": ("prompt_tokens", [args.prompt_tokens // 4, args.prompt_tokens // 2, args.prompt_tokens]),
        "completions": ("completions", [args.completions // 2, args.completions, args.completions * 2]),
        "queries": ("queries_per_video", [1, 2, max(4, args.queries_per_video)]),
    }
    known: dict[tuple[int, ...], dict[str, float]] = {}
    for what, (name, values) in sizes.items():
        seconds = []
        for value in values:
            chosen = argparse.Namespace(**vars(args) | {name: value})
            key = (chosen.prompt_tokens, chosen.completions, chosen.queries_per_video)
            known[key] = known.get(key) or measured(chosen, "together")["together"]
            seconds.append(known[key]["seconds"])
        logs = [(math.log(v), math.log(t)) for v, t in zip(values, seconds, strict=True)]
        slope = statistics.linear_regression(*zip(*logs, strict=True)).slope
        told = ", ".join(f"{v}: {t:.2f} s" for v, t in zip(values, seconds, strict=True))
        print(f"{what:14}{told:40} exponent {slope:.2f}", flush=True)


def profile(args: argparse.Namespace) -> None:
    """The parts of a shared step."""
    found = measured(args, "together")["together"]
    seconds = found["seconds"]
    parts = {name.removeprefix("part: "): value for name, value in found.items() if name.startswith("part: ")}
    parts["the rest (TRL, transformers, reading the log)"] = seconds - sum(parts.values())
    print(
        f"{args.family}, {args.layers} layers, {found['prompts']:.0f} prompts of {found['prompt_tokens']:.0f} tokens, "
        f"{args.completions} x {args.tokens} tokens each: {seconds:.2f} CPU s, {found['megabytes']:.0f} MB"
    )
    for name, value in parts.items():
        print(f"{name:48}{value:9.2f} s{value / seconds:8.1%}")


def keep_prefill(args: argparse.Namespace) -> None:
    """The last kind of step, and the same with its prompt computed once."""
    with tempfile.TemporaryDirectory() as folder:
        build(args, Path(folder))
        for _ in range(args.pairs):
            again, kept = (run(args, variant, folder) for variant in ("together", "kept"))
            faster, memory = again["seconds"] / kept["seconds"], kept["megabytes"] / again["megabytes"]
            print(
                f"{again['prompts']:.0f} prompts of {again['prompt_tokens']:.0f} tokens: {again['seconds']:.2f} s, "
                f"{again['megabytes']:.0f} MB; with keep_prefill {kept['seconds']:.2f} s, {kept['megabytes']:.0f} MB: "
                f"{faster:.2f}x faster in {memory:.2f}x the memory",
                flush=True,
            )
            if abs(again["grad_norm"] - kept["grad_norm"]) > 1e-4 * again["grad_norm"]:
                raise SystemExit(f"gradient norms differ: {again['grad_norm']} and {kept['grad_norm']}")


def measured(args: argparse.Namespace, *variants: str) -> dict[str, dict[str, float]]:
    """Variants in fresh processes, on one checkpoint and one clip."""
    with tempfile.TemporaryDirectory() as folder:
        build(args, Path(folder))
        return {variant: run(args, variant, folder) for variant in variants}


def run(args: argparse.Namespace, variant: str, folder: str) -> dict[str, float]:
    """Measure one variant in a fresh process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads), "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, __file__, "--variant", variant, "--folder", folder]
    for name in ("family", "layers", "prompt_tokens", "completions", "queries_per_video", "tokens", "threads"):
        command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    command += [
        f"--{name.replace('_', '-')}" for name in ("gradient_checkpointing", "fresh", "profile") if getattr(args, name)
    ]
    done = subprocess.run(
        command, env=environment | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{variant!r} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def build(args: argparse.Namespace, folder: Path) -> None:
    """The checkpoint, and a clip that gives about the wanted number of tokens: 64 for each pair of frames."""
    import numpy as np

    from timelens_plugins.families import tiny
    from timelens_plugins.synthetic.mp4 import write_mp4

    sizes: dict[str, Any] = {"hidden_size": 256, "layers": args.layers, "heads": 8, "kv_heads": 2, "head_dim": 32}
    tokenizer = tiny.build_tokenizer()
    model = tiny.build_model(args.family, tokenizer, **sizes, vision_hidden_size=64, vision_depth=4)
    model.save_pretrained(folder / "model")
    tiny.build_processor(args.family, tokenizer).save_pretrained(folder / "model")
    side = 224 if args.family == "qwen2_5_vl" else 256
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (args.prompt_tokens // 64 * 2, side // 16, side // 16, 3), dtype=np.uint8)
    write_mp4(folder / "clip.mp4", noise.repeat(16, axis=1).repeat(16, axis=2), 2.0)


def moments(folder: Path, number: int) -> list[Moment]:
    """So many about the clip."""
    video = str(folder / "clip.mp4")
    return [
        Moment(f"{i}", video, "clip", f"event {i}", (Span(1.0, 2.0),), duration=None, source="benchmark")
        for i in range(number)
    ]


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Train two steps; the figures of the second."""
    import torch
    from transformers import TrainerCallback

    from timelens_plugins.encodings import load_processor
    from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
    from timelens_plugins.training.dataset import moments_dataset

    torch.set_num_threads(args.threads)
    prompts = args.queries_per_video if args.variant in VARIANTS[2:] else 1
    found: dict[str, float] = {"prompts": prompts}

    class Meter(TrainerCallback):
        def on_step_begin(self, settings: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                if args.fresh:
                    trainer.prompts.clear()
                    trainer._buffered_inputs = None
                self.before, self.started = reset_peak(), time.process_time()

        def on_step_end(self, settings: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                found["seconds"] = time.process_time() - self.started
                found["megabytes"] = (peak() - self.before) / 1024

    def letters(completions: list[Any], **columns: Any) -> list[float]:
        """A random model states no span; this differs between its answers."""
        return [len(set(completion[0]["content"])) / 50 for completion in completions]

    processor = load_processor(args.folder / "model", total_tokens=args.prompt_tokens)
    trainer = TimeLensGRPOTrainer(
        model=str(args.folder / "model"),
        processing_class=processor,
        reward_funcs=letters,
        train_dataset=moments_dataset(moments(args.folder, 2 * prompts), processor.encoding),
        callbacks=[Meter()],
        args=TimeLensGRPOConfig(
            output_dir=str(args.folder / args.variant),
            share_prefix=args.variant != "plain",
            queries_per_video=prompts if args.variant in ("together", "kept") else 1,
            keep_prefill=args.variant == "kept",
            shuffle_dataset=False,
            per_device_train_batch_size=args.completions * prompts,
            num_generations=args.completions,
            max_completion_length=args.tokens,
            gradient_checkpointing=args.gradient_checkpointing,
            max_steps=2,
            loss_type="bnpo",
            scale_rewards="none",
            learning_rate=1e-6,
            clip_workers=0,
            self_check=False,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
    )
    clock = Clock(trainer) if args.profile else None
    trainer.train()
    [_, entry] = [e for e in trainer.state.log_history if "loss" in e]
    found["completion_tokens"] = entry["completions/mean_length"]
    tokens = found["completion_tokens"] * args.completions * prompts
    previous = trainer.state.log_history[0]["num_tokens"]
    found["prompt_tokens"] = (entry["num_tokens"] - previous - tokens) / args.completions / prompts
    if clock is not None:
        found |= {f"part: {name}": seconds for name, seconds in clock.spent.items()}
    return found | {"grad_norm": entry["grad_norm"]}


class Clock:
    """CPU seconds of the parts of a trainer's latest step, which follow each other and are not nested."""

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        from timelens_plugins.grpo import rollout
        from timelens_plugins.shared_prefix import generation, prefilled

        self.spent: dict[str, float] = {}
        for owner, name, part in (
            (trainer.prompts, "expect", "clip: decoding, patches, prompts"),
            (trainer.prompts, "group", "clip: decoding, patches, prompts"),
            (rollout, "encode_vision", "vision tower"),
            (generation, "prefill_trees", "prefill"),
            (prefilled.Prefilled, "complete", "steps of decoding"),
            (trainer, "_calculate_rewards", "rewards"),
            (trainer, "_get_per_token_logps_and_entropies", "training forward"),
            (trainer.accelerator, "backward", "backward"),
        ):
            setattr(owner, name, self._timed(getattr(owner, name), part))
        spent = self.spent

        class Steps(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                spent.clear()

            def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                self.started = time.process_time()

            def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                spent["optimizer"] = time.process_time() - self.started

        trainer.add_callback(Steps())

    def _timed(self, function: Any, part: str) -> Any:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[part] = self.spent.get(part, 0.0) + time.process_time() - started

        return timed


if __name__ == "__main__":
    sys.exit(main())
