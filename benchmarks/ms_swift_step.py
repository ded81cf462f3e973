"""One optimizer step of GRPO by ms-swift and by this package: the same clip, model and settings, one after the other.

    uv venv --python 3.11 .venv-swift
    uv pip install --python .venv-swift/bin/python ms-swift==4.6.0 transformers==5.19.0 trl==0.29.1 torch==2.15.0 \
        torchvision==0.29.2 qwen-vl-utils==0.0.14 decord==0.6.0 msgspec
    python benchmarks/ms_swift_step.py --swift .venv-swift/bin/python

ms-swift 4.6 asks for older releases of transformers and TRL than this package. So it has an environment of its own, in
which this file runs a second time and imports nothing of this package.

The model is that of ``grpo_step.py``, Qwen3-VL with random weights and a small vocabulary. ms-swift's template has the
ids of Qwen3's placeholders in its code, so it is given those of this vocabulary; nothing else of it is changed.
*shared* and *plain* are that script's variants, this package's trainer with and without a shared prefix. On both sides
the tower is frozen and the rest trained, in float32, without a KL term, gradient checkpointing or vLLM; ms-swift
samples by its HF engine.

Prompts must be equal, token for token, but for the two markers that transformers leaves around the whole video in
releases after 4.57, and this package does not. Completions are as many and at most as long; they are not the same ones,
as the random numbers differ. Time is CPU time of the process with all its threads in the second step; the first warms
up.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MARKERS = {"start": "<|vision_start|>", "end": "<|vision_end|>", "image": "<|image_pad|>", "video": "<|video_pad|>"}


def main() -> int:
    if sys.argv[1:2] == ["--inside"]:
        train_with_swift(json.loads(sys.argv[2]))
        return 0
    import grpo_step
    from shared_prefix import machine

    step = grpo_step.arguments().parse_args([])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swift", type=Path, required=True, help="Python of the environment with ms-swift")
    for name in ("layers", "prompt_tokens", "completions", "tokens", "threads"):
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, default=getattr(step, name), help="as of grpo_step.py")
    ours = ("shared", "plain")
    parser.add_argument("--variants", nargs="+", choices=ours, default=ours, help="of this package's trainer")
    args = argparse.Namespace(**vars(step) | vars(parser.parse_args()))
    print(machine(args.threads))
    with tempfile.TemporaryDirectory() as folder:
        grpo_step.build(args, Path(folder))
        ids, wanted = prompt_ids(args, Path(folder))
        swift = run_swift(args, Path(folder), ids)
        if without_outer_markers(swift["prompt"], ids) != wanted:
            raise SystemExit(difference(swift["prompt"], wanted))
        print(
            f"{swift['versions']}\nQwen3-VL, {args.layers} layers, hidden size 256; "
            f"{wanted.count(ids['video'])} tokens of a prompt are video\n"
            f"{'':10}{'prompt':>8}{'completions':>13}{'tokens each':>13}{'CPU s':>9}"
            f"{'ms-swift takes':>16}"
        )
        print(row("ms-swift", swift["prompt"], args, swift, 1.0), flush=True)
        for variant in args.variants:
            result = grpo_step.run(args, variant, folder)
            if round(result["prompt_tokens"]) != len(wanted):
                raise SystemExit(f"{variant} had prompts of {result['prompt_tokens']} tokens, not {len(wanted)}")
            ratio = swift["seconds"] / result["seconds"]
            print(row(variant, wanted, args, result, ratio), flush=True)
    return 0


def row(name: str, prompt: list[int], args: argparse.Namespace, found: dict[str, Any], ratio: float) -> str:
    return (
        f"{name:10}{len(prompt):8}{args.completions:13}{found['completion_tokens']:13.1f}"
        f"{found['seconds']:9.2f}{ratio:15.1f}x"
    )


def prompt_ids(args: argparse.Namespace, folder: Path) -> tuple[dict[str, int], list[int]]:
    """Ids of the markers, and of the second step's prompt, as this package's trainer has them."""
    from grpo_step import moments

    from timelens_plugins.clips import load_clip
    from timelens_plugins.encodings import load_processor
    from timelens_plugins.video import sample_frames

    processor = load_processor(folder / "model", total_tokens=args.prompt_tokens)
    *_, moment = moments(folder, 2)
    clip = sample_frames(moment.video, processor.frame_sampling)
    prompt = load_clip(processor, clip).prompt(processor.grounding_messages(clip, moment.query))
    markers = {name: processor.tokenizer.convert_tokens_to_ids(token) for name, token in MARKERS.items()}
    return markers, [int(token) for token in prompt.input_ids]


def without_outer_markers(prompt: list[int], ids: dict[str, int]) -> list[int]:
    start, end = prompt.index(ids["start"]), len(prompt) - 1 - prompt[::-1].index(ids["end"])
    return prompt[:start] + prompt[start + 1 : end] + prompt[end + 1 :]


def difference(theirs: list[int], ours: list[int]) -> str:
    first = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    tokens = [ids[first : first + 8] for ids in (theirs, ours)]
    return (
        f"the prompts differ: ms-swift has {len(theirs)} tokens, this package {len(ours)}; "
        f"from token {first} on {tokens[0]} and {tokens[1]}"
    )


# ---------------------------------------------------------------------- ms-swift


def run_swift(args: argparse.Namespace, folder: Path, ids: dict[str, int]) -> dict[str, Any]:
    """Train with ms-swift in its environment; the figures of its second step."""
    from grpo_step import moments

    from timelens_plugins.adapters.rows import rows_for

    rows = "".join(json.dumps(row) + "\n" for row in rows_for("ms-swift", moments(folder, 2)))
    (folder / "rows.jsonl").write_text(rows, encoding="utf-8")
    settings = {name: getattr(args, name) for name in ("completions", "tokens", "threads")}
    settings |= {"folder": str(folder), "ids": ids}
    environment = os.environ | {
        "OMP_NUM_THREADS": str(args.threads),
        "MALLOC_TRIM_THRESHOLD_": "0",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "USE_HF": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "FORCE_QWENVL_VIDEO_READER": "decord",
        "FPS": "2",
        "VIDEO_MIN_TOKEN_NUM": "1",  # of a pair of frames; its default of 128 would enlarge the clip
    }
    environment.pop("PYTHONPATH", None)
    command = [str(args.swift), __file__, "--inside", json.dumps(settings)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    result = folder / "ms-swift.json"
    if done.returncode or not result.exists():
        raise SystemExit(f"ms-swift failed:\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def train_with_swift(settings: dict[str, Any]) -> None:
    """In the environment of ms-swift: two steps; writes the figures of the second."""
    import torch
    from swift.callbacks import TrainerCallback, callbacks_map
    from swift.pipelines import rlhf_main
    from swift.rewards import ORM, orms
    from swift.template.templates.qwen import Qwen3VLTemplate

    torch.set_num_threads(settings["threads"])
    folder = Path(settings["folder"])
    Qwen3VLTemplate.image_token_id, Qwen3VLTemplate.video_token_id = settings["ids"]["image"], settings["ids"]["video"]
    packages = ("ms-swift", "transformers", "trl", "torch")
    found: dict[str, Any] = {"versions": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages)}

    class Meter(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.started = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found["seconds"] = time.process_time() - self.started
            [batch] = self.trainer._buffered_inputs
            ids, padding = batch["model_inputs"]["input_ids"], batch["model_inputs"]["attention_mask"]
            completions = batch["grpo_batch"].completion_mask  # of the last tokens of the rows
            if len(ids) != settings["completions"]:
                raise RuntimeError(f"{len(ids)} rows instead of {settings['completions']}")
            end = ids.shape[1] - completions.shape[1] + int(completions[0].int().argmax())
            found["prompt"] = ids[0, :end][padding[0, :end].bool()].tolist()
            found["completion_tokens"] = float(completions.sum(1).float().mean())

    class Letters(ORM):
        def __call__(self, completions: list[str], **columns: Any) -> list[float]:
            return [len(set(completion)) / 50 for completion in completions]

    callbacks_map["meter"] = Meter
    orms["letters"] = Letters
    options = {
        "rlhf_type": "grpo",
        "model": folder / "model",
        "model_type": "qwen3_vl",
        "template": "qwen3_vl",
        "dataset": folder / "rows.jsonl",
        "dataset_shuffle": "false",
        "strict": "true",
        "output_dir": folder / "ms-swift",
        "add_version": "false",
        "check_model": "false",
        "callbacks": "meter",
        "reward_funcs": "letters",
        "tuner_type": "full",
        "freeze_vit": "true",
        "freeze_aligner": "false",
        "torch_dtype": "float32",
        "bf16": "false",
        "attn_impl": "sdpa",
        "use_vllm": "false",
        "per_device_train_batch_size": settings["completions"],
        "num_generations": settings["completions"],
        "max_completion_length": settings["tokens"],
        "temperature": 1.0,
        "gradient_checkpointing": "false",
        "max_steps": 2,
        "beta": 0.0,
        "loss_type": "bnpo",
        "scale_rewards": "none",
        "learning_rate": 1e-6,
        "dataloader_num_workers": 0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    rlhf_main([text for name, value in options.items() for text in (f"--{name}", str(value))])
    (folder / "ms-swift.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
