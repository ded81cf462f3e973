"""Rollouts of several prompts, one group after the other against all groups decoded together: CPU seconds and samples.

    python benchmarks/rollout_groups.py --prompts 8 --prompt-tokens 512

Same random Qwen3-VL (hidden size 256, 4 layers, float32), same prompts, same seeds; encoded vision is at hand in both.
Both prefill each prompt once and sample the same completions. Prints both, their ratio and the machine.
"""

from __future__ import annotations

import argparse
import time

import torch
from shared_prefix import build_model, build_prompt, machine
from transformers import GenerationConfig

from timelens_plugins.shared_prefix import encode_vision, generate_group, generate_groups


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=512, help="of the shortest prompt")
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24, help="of a completion")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = build_model("qwen3_vl", 4).eval()
    prompts = [encode_vision(model, build_prompt(model, args.prompt_tokens + 70 * i)) for i in range(args.prompts)]
    config = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=args.tokens,
        eos_token_id=-1,
        pad_token_id=0,
        suppress_tokens=[model.config.image_token_id, model.config.video_token_id],
    )
    seeds = list(range(args.prompts))

    def one_by_one() -> list[list[list[int]]]:
        done = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            torch.manual_seed(seed)
            done += generate_group(model, prompt, config, completions=args.completions)
        return [[row.tolist() for row in group] for group in done]

    def together() -> list[list[list[int]]]:
        done = generate_groups(model, prompts, config, completions=args.completions, seeds=seeds)
        return [[row.tolist() for row in group] for group in done]

    print(machine(args.threads))
    seconds, samples = {}, {}
    for ways in (one_by_one, together, one_by_one, together):  # the first two warm up
        start = time.process_time()
        samples[ways.__name__] = ways()
        seconds[ways.__name__] = time.process_time() - start
    rows = [(a, b) for x, y in zip(*samples.values(), strict=True) for a, b in zip(x, y, strict=True)]
    print(f"{args.prompts} prompts of {args.prompt_tokens} tokens and more, {args.completions} x {args.tokens} each")
    for name, value in seconds.items():
        print(f"{name:12}{value:8.2f} s{seconds['one_by_one'] / value:8.1f}x")
    print(f"equal completions: {sum(a == b for a, b in rows)} of {len(rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
