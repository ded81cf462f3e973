"""A thinking run: does a model that was shown the form earn the format reward, before reinforcement learning and after?

    python benchmarks/thinking.py --output build/thinking

The demo's base model answers grounding questions in one sentence at most. It is fine-tuned for a while on chat rows
whose answers are ``<think>…</think><answer>…</answer>``, under ``prompt: thinking``, and then trained by GRPO on the
format reward and the temporal IoU; that recipe takes the prompt from the checkpoint. Printed are the means of both
rewards over the completions of the first and of the last five steps. ``--sft-steps 0`` leaves the first stage out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from timelens_plugins.answers import THINKING_PROMPT, ask, format_answer
from timelens_plugins.locations import shipped_folder
from timelens_plugins.moments import load_moments
from timelens_plugins.synthetic.grounder import BASE_CHECKPOINT
from timelens_plugins.synthetic.materialise import materialise

WINDOW = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/thinking"))
    parser.add_argument("--clips", type=int, default=40, help="of each of the three kinds")
    parser.add_argument("--sft-steps", type=int, default=80)
    parser.add_argument("--rl-steps", type=int, default=20)
    parser.add_argument("--require", type=float, default=0.0, help="fail where the last format reward is less")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    annotations = Path(materialise(f"synthetic:training_set,clips={args.clips},size=64", args.output / "synthetic"))
    model = str(BASE_CHECKPOINT)
    if args.sft_steps:
        chat = write_chat(annotations, args.output / "chat.jsonl")
        videos = {"annotations": str(chat), "video_root": str(annotations.parent / "videos")}
        model = str(args.output / "sft")
        run(
            "sft", model, **videos, prompt="thinking", model_name_or_path=str(BASE_CHECKPOINT), max_steps=args.sft_steps
        )
    prompt = {} if args.sft_steps else {"prompt": "thinking"}  # else the checkpoint brings it
    folder = args.output / ("rlvr" if args.sft_steps else "rlvr_without_sft")
    run(
        "rlvr",
        str(folder),
        **prompt,
        model_name_or_path=model,
        annotations=str(annotations),
        rewards=["format", "temporal_iou"],
        num_generations=8,
        per_device_train_batch_size=32,
        rollout_prompts=4,
        max_completion_length=96,
        max_steps=args.rl_steps,
        save_steps=args.rl_steps,
        difficulty=None,
        early_stopping=None,
        saved_model=None,
    )
    state = json.loads((folder / f"checkpoint-{args.rl_steps}" / "trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "loss" in entry]
    print(f"{args.sft_steps} steps of SFT, {args.rl_steps} of GRPO, 32 completions each")
    for name in ("format_reward", "temporal_iou_reward"):
        values = [step[f"rewards/{name}/mean"] for step in steps]
        first, last = fmean(values[:WINDOW]), fmean(values[-WINDOW:])
        print(f"{name:22} first {WINDOW} steps {first:.3f}   last {WINDOW} steps {last:.3f}")
    earned = fmean(step["rewards/format_reward/mean"] for step in steps[-WINDOW:])
    if earned < args.require:
        raise SystemExit(f"the format reward ended at {earned:.3f}, less than {args.require}")
    return 0


def write_chat(annotations: Path, path: Path) -> Path:
    """Each moment as a question in the thinking prompt's words, with a thought before its answer."""
    with path.open("w") as file:
        for moment in load_moments(annotations, video_root=annotations.parent / "videos"):
            start, end = moment.spans[0]
            thought = f"{moment.query}: from {start:.1f} to {end:.1f} seconds."
            answer = f"<think>{thought}</think><answer>{format_answer(moment.spans)}</answer>"
            question = ask(THINKING_PROMPT, moment.query)
            turns = [{"role": "user", "content": f"<video>{question}"}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns, "videos": [moment.video], "duration": moment.duration}) + "\n")
    return path


def run(recipe: str, output_dir: str, **changes: Any) -> None:
    """A recipe with the demo's settings but for ``changes``; None takes one out."""
    folder = shipped_folder("recipes")
    settings = yaml.safe_load((folder / "configs" / f"demo_{recipe}.yaml").read_text()) | changes
    settings |= {"output_dir": output_dir, "logging_steps": 1}
    config = Path(output_dir).with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(yaml.safe_dump({name: value for name, value in settings.items() if value is not None}))
    command = [sys.executable, str(folder / f"{recipe}.py"), "--config", str(config)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{recipe} failed:\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
