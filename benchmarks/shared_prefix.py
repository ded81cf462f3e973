"""Shared prefix against the repeated batch: CPU seconds and peak memory, side by side.

    python benchmarks/shared_prefix.py --family qwen3_vl --prompt-tokens 4329 --completions 8

Every variant runs in a fresh process on the same random model and prompt, so that memory peaks do not mix. Time is CPU
time of the process, memory the peak above what was resident before the measured part. All variants of one kind must
agree in what they compute; a checksum is compared. "Faster tower" is with ``accelerate_vision``, "cached video" with a
frozen tower whose features are there already.

Kinds: *training* is forward and backward over the completions of one prompt; *queries* over several queries of one
video, an answer each; *rollout* is greedy decoding of all completions; *vision* is forward and backward of the vision
tower; *head* is forward and backward over 1024 tokens of a short prompt with a vocabulary of 151,936.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from timelens_plugins.families.tiny import Family

TRAINING = ("repeated batch", "one row at a time", "shared prefix", "shared, faster tower", "shared, cached video")
QUERIES = ("one row per query", "queries in one row")
ROLLOUT = ("rollout, repeated", "rollout, shared", "rollout, shared, faster tower")
VISION = ("vision tower", "faster tower")
HEAD = ("logits at once", "logits in chunks")
KINDS = {"training": TRAINING, "queries": QUERIES, "rollout": ROLLOUT, "vision": VISION, "head": HEAD}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=get_args(Family), default="qwen3_vl")
    parser.add_argument(
        "--layers", type=int, default=4, help="of the text model; of eight, qwen3_5 has two of attention"
    )
    parser.add_argument("--prompt-tokens", type=int, default=4329, help="length of the prompt, video included")
    parser.add_argument("--completions", type=int, default=8, help="completions of the prompt, or queries of the video")
    parser.add_argument("--tokens", type=int, default=24, help="tokens of a completion")
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args)))
        return 0
    print(machine(args.threads))
    print(
        f"{args.family}, {args.layers} layers, hidden size 256, prompt of {args.prompt_tokens} tokens, "
        f"{args.completions} x {args.tokens} tokens\n"
        f"{'':28}{'CPU s':>9}{'peak MB':>9}{'time':>9}{'memory':>9}"
    )
    for kind in args.kinds:
        results = {variant: run(variant) for variant in KINDS[kind]}
        base = next(iter(results.values()))
        for variant, result in results.items():
            faster = base["seconds"] / result["seconds"]
            leaner = base["megabytes"] / max(result["megabytes"], 1.0)
            print(
                f"{variant:28}{result['seconds']:9.2f}{result['megabytes']:9.0f}{faster:8.1f}x{leaner:8.1f}x",
                flush=True,
            )
            if abs(result["checksum"] - base["checksum"]) > 2e-3 * abs(base["checksum"]):
                raise SystemExit(f"{variant!r} computed {result['checksum']}, {KINDS[kind][0]!r} {base['checksum']}")
    return 0


def run(variant: str) -> dict[str, float]:
    """Measure one variant in a fresh process with this process's arguments."""
    threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "1"
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{variant!r} failed:\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def machine(threads: int) -> str:
    import torch
    import transformers

    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = names[0].split(":")[1].strip() if names else platform.processor()
    return (
        f"{cpu}, {os.cpu_count()} cores, {threads} thread(s); Python {platform.python_version()}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Build the model and the prompt, warm up, and measure one variant."""
    import torch
    from transformers.utils import logging

    logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    model = build_model(args.family, args.layers)
    if args.variant.endswith("faster tower"):
        from timelens_plugins.shared_prefix import accelerate_vision

        accelerate_vision(model)
    if args.variant in HEAD:  # the head of a real vocabulary, on the answers of a short prompt
        model.resize_token_embeddings(151_936, mean_resizing=False)
        args.prompt_tokens, args.completions, args.tokens = 300, 16, 64
    work = prepare(args, model)
    small = argparse.Namespace(**vars(args) | {"prompt_tokens": 200})
    prepare(small, model)()
    model.zero_grad()
    before = reset_peak()
    started = time.process_time()
    checksum = work()
    seconds = time.process_time() - started
    return {"seconds": seconds, "megabytes": (peak() - before) / 1024, "checksum": checksum}


def build_model(family: Family, layers: int) -> Any:
    from timelens_plugins.families import tiny

    sizes: dict[str, Any] = {"hidden_size": 256, "layers": layers, "heads": 8, "kv_heads": 2, "head_dim": 32}
    tokenizer = tiny.build_tokenizer(["the event happens in 0123456789 seconds"] * 20)
    return tiny.build_model(family, tokenizer, **sizes, vision_hidden_size=64, vision_depth=4, logit_scale=1.0)


def build_prompt(model: Any, tokens: int) -> Any:
    """A prompt of about the wanted length: frame pairs of 64 tokens, stamped where the family stamps them."""
    import torch

    from timelens_plugins.shared_prefix import Prompt

    config = model.config
    generator = torch.Generator().manual_seed(0)
    per_frame, text = 64, 40
    stamp = 0 if config.model_type == "qwen2_5_vl" else 6
    frames = max(1, (tokens - text) // (per_frame + stamp))
    words = lambda n: torch.randint(20, 260, (n,), generator=generator)  # noqa: E731
    parts, video = [words(5)], torch.full((per_frame,), config.video_token_id)
    for _ in range(frames):
        parts += [words(stamp), video]
    ids = torch.cat(parts)
    ids = torch.cat([ids, words(max(1, tokens - ids.numel()))])
    vision = config.vision_config
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    inputs = {
        "pixel_values_videos": torch.randn(frames * per_frame * 4, patch, generator=generator),
        "video_grid_thw": torch.tensor([[frames, 16, 16]]),
    }
    if config.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor([1.0])
    return Prompt(ids, (ids == config.video_token_id).long() * 2, inputs)


def prepare(args: argparse.Namespace, model: Any) -> Callable[[], float]:
    """The measured work of a variant; returns a checksum of its result."""
    import torch

    from timelens_plugins.shared_prefix import (
        PromptTree,
        encode_vision,
        log_probs,
    )

    variant = args.variant
    prompt = build_prompt(model, args.prompt_tokens)
    generator = torch.Generator().manual_seed(1)
    completions = [torch.randint(20, 260, (args.tokens,), generator=generator) for _ in range(args.completions)]
    queries = [torch.randint(20, 260, (40,), generator=generator) for _ in range(args.completions)]

    if variant in ROLLOUT:
        return lambda: rollout(model, prompt, args, variant)
    if variant in VISION:
        core = model.model

        def encode() -> float:
            output = core.get_video_features(prompt.vision["pixel_values_videos"], prompt.vision["video_grid_thw"])
            loss = torch.cat(list(output.pooler_output)).square().mean()
            loss.backward()
            return loss.item()

        return encode
    if variant == "shared, cached video":
        for parameter in model.model.visual.parameters():
            parameter.requires_grad_(False)
        prompt = encode_vision(model, prompt)

    if variant in HEAD:
        tree = PromptTree.group(prompt, completions)

        def score() -> float:
            chunk = 256 if variant == HEAD[1] else sum(len(c) for c in completions)
            loss = log_probs(model, tree, chunk_tokens=chunk).log_probs.mean()
            loss.backward()
            return loss.item()

        return score

    model.train()

    def train() -> float:
        total = 0.0
        if variant.startswith("shared"):
            loss = log_probs(model, PromptTree.group(prompt, completions)).log_probs.mean()
            loss.backward()
            total = loss.item()
        elif variant == "queries in one row":
            tree = PromptTree.of_queries(prompt, [(q, [c]) for q, c in zip(queries, completions, strict=True)])
            loss = log_probs(model, tree).log_probs.mean()
            loss.backward()
            total = loss.item()
        else:
            asked = queries if variant == "one row per query" else [queries[0][:0]] * len(completions)
            rows = list(zip(asked, completions, strict=True))
            for part in [rows] if variant == "repeated batch" else [[row] for row in rows]:
                loss = plain_log_probs(model, prompt, part).mean() * len(part) / len(rows)
                loss.backward()
                total += loss.item()
        return total

    return train


def repeated(prompt: Any, suffixes: list[Any]) -> dict[str, Any]:
    """The ordinary batch: prompt tensors once per row, suffixes of equal length."""
    import torch

    rows, suffix = len(suffixes), torch.stack(suffixes)
    inputs = {k: torch.cat([v] * rows) for k, v in prompt.vision.items()}
    inputs["input_ids"] = torch.cat([prompt.input_ids.expand(rows, -1), suffix], dim=1)
    kinds = prompt.mm_token_type_ids.expand(rows, -1)
    inputs["mm_token_type_ids"] = torch.cat([kinds, torch.zeros_like(suffix)], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def plain_log_probs(model: Any, prompt: Any, rows: list[tuple[Any, Any]]) -> Any:
    import torch

    targets = torch.stack([completion for _, completion in rows])
    inputs = repeated(prompt, [torch.cat(row) for row in rows])
    logits = model(**inputs, logits_to_keep=targets.shape[1] + 1, use_cache=False).logits[:, :-1]
    return torch.log_softmax(logits.float(), -1).gather(-1, targets[..., None])[..., 0]


def rollout(model: Any, prompt: Any, args: argparse.Namespace, variant: str) -> float:
    import torch
    from transformers import GenerationConfig

    from timelens_plugins.shared_prefix import generate_group

    config = GenerationConfig(
        max_new_tokens=args.tokens,
        min_new_tokens=args.tokens,
        do_sample=False,
        eos_token_id=0,
        pad_token_id=0,
        suppress_tokens=[model.config.image_token_id, model.config.video_token_id],
    )
    model.eval()
    if variant.startswith("rollout, shared"):
        [rows] = generate_group(model, prompt, config, completions=args.completions)
        return float(torch.stack(rows).sum())
    inputs = repeated(prompt, [prompt.input_ids[:0]] * args.completions)
    with torch.no_grad():
        output = model.generate(**inputs, generation_config=config)
    return float(output[:, len(prompt) :].sum())


def reset_peak() -> float:
    """Forget the process's memory peak; returns the resident kB now."""
    import gc

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> float:
    """Highest resident kB since :func:`reset_peak`."""
    return status("VmHWM")


def status(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field + ":"))
    return float(line.split()[1])


if __name__ == "__main__":
    raise SystemExit(main())
