"""Difficulty estimation with everything a video's queries share, against one query at a time: CPU seconds and answers.

    python benchmarks/difficulty.py --videos 4 --queries 5

Same model (random Qwen3-VL, hidden size 256, 4 layers), same synthetic clips, greedy answers. *Shared* decodes, encodes
and prefills each video once for its queries; *one at a time* asks them one after the other, as a loop over samples
does. The answers have to be equal. Prints both, their ratio and the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path

import torch
from transformers import GenerationConfig

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.encodings import load_processor
from timelens_plugins.families.tiny import build_model, save_checkpoint
from timelens_plugins.inference.engine import Question, VideoAnswerer
from timelens_plugins.synthetic.benchmark import write_training_set


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=3, help="clips of 12 to 20 s")
    parser.add_argument("--queries", type=int, default=5, help="a video")
    parser.add_argument("--total-tokens", type=int, default=1024, help="vision tokens of a clip")
    parser.add_argument("--max-new-tokens", type=int, default=24)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_training_set(folder / "data", {"charades": args.videos}, size=320, progress=False)
        videos = sorted((folder / "data" / "videos").rglob("*.mp4"))
        save_checkpoint(folder / "model", "qwen3_vl")
        processor = load_processor(folder / "model", fps=2.0, min_tokens=16, total_tokens=args.total_tokens)
        model = build_model(
            "qwen3_vl",
            processor.tokenizer,
            hidden_size=args.hidden_size,
            layers=4,
            heads=8,
            kv_heads=4,
            head_dim=args.hidden_size // 8,
            vision_hidden_size=128,
            vision_depth=4,
        )
        config = GenerationConfig(do_sample=False, max_new_tokens=args.max_new_tokens, eos_token_id=-1, pad_token_id=0)
        answerer = VideoAnswerer(model, processor, config, max_rows=args.queries)
        questions = [
            Question(str(video), GROUNDING_PROMPT.format(query=f"event number {i} of the video"))
            for video in videos
            for i in range(args.queries)
        ]
        seconds, answers = {}, {}
        for kind in ("one at a time", "shared"):
            begin = time.process_time()
            if kind == "shared":
                found = dict(answerer.answer(questions))
                answers[kind] = [found[i].texts for i in range(len(questions))]
            else:
                answers[kind] = [next(iter(answerer.answer([question])))[1].texts for question in questions]
            seconds[kind] = time.process_time() - begin
    if answers["shared"] != answers["one at a time"]:
        raise SystemExit("the two ways gave different answers")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} thread(s), torch {torch.__version__}")
    print(f"{len(videos)} videos x {args.queries} queries, up to {args.total_tokens} vision tokens, equal answers")
    for kind, value in seconds.items():
        print(f"{kind:16}{value:8.2f} CPU s")
    print(f"{'ratio':16}{seconds['one at a time'] / seconds['shared']:8.2f}x")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
