"""Estimates difficulty in a child process that is killed three times, each a clip or more after the last, then ends.

    python killed_worker.py CHECKPOINT ANNOTATIONS OUTPUT SEED

The children are forked from a process that has imported everything and done nothing, so the imports are paid for once.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from timelens_plugins.difficulty.estimate import Answering, difficulty_settings, estimate_difficulty
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.moments import load_moments
from timelens_plugins.timestamps import load_processor


def work(checkpoint: str, annotations: str, output: str) -> None:
    torch.set_num_threads(1)
    root = Path(annotations).parent / "videos"
    moments = load_moments(annotations, video_root=root)
    processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32").eval()
    answering = Answering(samples=2, max_new_tokens=6)
    settings = difficulty_settings(model, processor, "tiny", answering)
    answerer = VideoAnswerer(model, processor, answering.generation_config(model), samples=2)
    estimate_difficulty(answerer, moments, output, settings, video_root=str(root), progress=False)


def main(checkpoint: str, annotations: str, output: str, seed: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timelens_plugins.difficulty.estimate"])

    def start() -> multiprocessing.process.BaseProcess:
        child = context.Process(target=work, args=(checkpoint, annotations, output))
        child.start()
        return child

    rng = random.Random(seed)
    part = Path(f"{output}.parts") / "part-0-of-1.jsonl"
    for _ in range(3):
        child = start()
        before = size(part)
        while size(part) <= before:
            time.sleep(0.002)
            if not child.is_alive():
                raise SystemExit("the child ended before it had done a clip")
        time.sleep(rng.random() * 0.1)
        child.kill()
        child.join()
        print("killed" if child.exitcode == -signal.SIGKILL else "ended", part.read_bytes().count(b"\n"), flush=True)
    child = start()
    child.join()
    print("status", child.exitcode, flush=True)


def size(path: Path) -> int:
    """In bytes, the settings line not counted."""
    data = path.read_bytes() if path.exists() else b""
    return len(data) - data.find(b"\n") - 1 if b"\n" in data else 0


if __name__ == "__main__":
    main(*sys.argv[1:4], seed=int(sys.argv[4]))
