"""A whole optimizer step of video GRPO, plain against shared: decode, rollout, reward, update.

    python benchmarks/grpo_step.py --family qwen3_vl --prompt-tokens 4096 --completions 8

Both variants run in a fresh process on the same random model and the same mp4 file, with the same trainer and settings
(tower frozen, merger trained, no KL term); only ``share_prefix`` differs. The second step is measured, the first warms
up. Time is CPU time of the process with all its threads, memory the peak above what was resident before the step. Both
sample the same completions, so their gradient norms must agree. The plain variant decodes the video once, too, which
trainers that hand videos to their processor once per row do not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared_prefix import machine, peak, reset_peak

VARIANTS = ("plain", "shared")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("qwen3_vl", "qwen2_5_vl"), default="qwen3_vl")
    parser.add_argument("--prompt-tokens", type=int, default=4096, help="vision tokens of the clip")
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="of a completion, at most")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--require", type=float, default=0.0, help="fail where sharing is less than so many times faster"
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args)))
        return 0
    import trl

    print(f"{machine(args.threads)}, trl {trl.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        build(args, Path(folder))
        results = {variant: run(variant, folder, args.threads) for variant in VARIANTS}
    plain, shared = (results[variant] for variant in VARIANTS)
    print(
        f"{args.family}, 4 layers, hidden size 256, prompt of {plain['prompt_tokens']:.0f} tokens, "
        f"{args.completions} x {args.tokens} tokens\n{'':10}{'CPU s':>9}{'peak MB':>9}{'time':>9}{'memory':>9}"
    )
    for variant, result in results.items():
        faster, leaner = (plain[name] / result[name] for name in ("seconds", "megabytes"))
        print(f"{variant:10}{result['seconds']:9.2f}{result['megabytes']:9.0f}{faster:8.1f}x{leaner:8.1f}x")
    if abs(plain["grad_norm"] - shared["grad_norm"]) > 1e-3 * plain["grad_norm"]:
        raise SystemExit(f"gradient norms differ: {plain['grad_norm']} and {shared['grad_norm']}")
    if plain["seconds"] < args.require * shared["seconds"]:
        raise SystemExit(f"sharing is less than {args.require} times faster")
    return 0


def run(variant: str, folder: str, threads: int) -> dict[str, float]:
    """Measure one variant in a fresh process with this process's arguments."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MALLOC_TRIM_THRESHOLD_": "0", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant, "--folder", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{variant!r} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def build(args: argparse.Namespace, folder: Path) -> None:
    """The checkpoint, and a clip that gives about the wanted number of tokens: 64 for each pair of frames."""
    import numpy as np

    from timelens_plugins.synthetic import tiny
    from timelens_plugins.synthetic.mp4 import write_mp4

    sizes: dict[str, Any] = {"hidden_size": 256, "layers": 4, "heads": 8, "kv_heads": 2, "head_dim": 32}
    tokenizer = tiny.build_tokenizer()
    model = tiny.build_model(args.family, tokenizer, **sizes, vision_hidden_size=64, vision_depth=4)
    model.save_pretrained(folder / "model")
    tiny.build_processor(args.family, tokenizer).save_pretrained(folder / "model")
    side = {"qwen3_vl": 256, "qwen2_5_vl": 224}[args.family]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (args.prompt_tokens // 64 * 2, side // 16, side // 16, 3), dtype=np.uint8)
    write_mp4(folder / "clip.mp4", noise.repeat(16, axis=1).repeat(16, axis=2), 2.0)


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Train two steps; the figures of the second."""
    import torch
    from transformers import TrainerCallback

    from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
    from timelens_plugins.moments import Moment
    from timelens_plugins.spans import Span
    from timelens_plugins.timestamps import load_processor
    from timelens_plugins.training.dataset import moments_dataset

    torch.set_num_threads(args.threads)
    found: dict[str, float] = {}

    class Meter(TrainerCallback):
        def on_step_begin(self, settings: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1:
                self.before, self.started = reset_peak(), time.process_time()

        def on_step_end(self, settings: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                found["seconds"] = time.process_time() - self.started
                found["megabytes"] = (peak() - self.before) / 1024

    def letters(completions: list[Any], **columns: Any) -> list[float]:
        """A random model states no span; this differs between its answers."""
        return [len(set(completion[0]["content"])) / 50 for completion in completions]

    video = str(args.folder / "clip.mp4")
    moments = [
        Moment(f"{i}", video, "clip", f"event {i}", (Span(1.0, 2.0),), duration=None, source="benchmark")
        for i in range(2)
    ]
    processor = load_processor(args.folder / "model", total_tokens=args.prompt_tokens)
    trainer = TimeLensGRPOTrainer(
        model=str(args.folder / "model"),
        processing_class=processor,
        reward_funcs=letters,
        train_dataset=moments_dataset(moments, processor.encoding),
        callbacks=[Meter()],
        args=TimeLensGRPOConfig(
            output_dir=str(args.folder / args.variant),
            share_prefix=args.variant == "shared",
            per_device_train_batch_size=args.completions,
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
    trainer.train()
    [_, entry] = [e for e in trainer.state.log_history if "loss" in e]
    tokens = entry["completions/mean_length"] * args.completions
    previous = trainer.state.log_history[0]["num_tokens"]
    found["prompt_tokens"] = (entry["num_tokens"] - previous - tokens) / args.completions
    return found | {"grad_norm": entry["grad_norm"]}


if __name__ == "__main__":
    sys.exit(main())
