"""Estimates difficulty in two runs at once, one of them the second of two processes, killed three times, each a clip or
more after the last; then two equal runs at once come to their end.

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
from timelens_plugins.encodings import load_processor
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.moments import load_moments


def work(checkpoint: str, annotations: str, output: str, shard: int, shards: int) -> None:
    torch.set_num_threads(1)
    root = Path(annotations).parent / "videos"
    moments = load_moments(annotations, video_root=root)
    processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32").eval()
    answering = Answering(samples=2, max_new_tokens=6)
    settings = difficulty_settings(model, processor, "tiny", answering)
    answerer = VideoAnswerer(model, processor, answering.generation_config(model), samples=2)
    estimate_difficulty(
        answerer, moments, output, settings, shard=shard, shards=shards, video_root=str(root), progress=False
    )


def main(checkpoint: str, annotations: str, output: str, seed: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timelens_plugins.difficulty.estimate"])

    def start(shard: int = 0, shards: int = 1) -> multiprocessing.process.BaseProcess:
        child = context.Process(target=work, args=(checkpoint, annotations, output, shard, shards))
        child.start()
        return child

    rng = random.Random(seed)
    parts = Path(f"{output}.parts")
    for _ in range(3):
        children = [start(), start(1, 2)]
        before = finished(parts)
        while finished(parts) <= before:
            time.sleep(0.002)
            if not any(child.is_alive() for child in children):
                raise SystemExit("the children ended before they had done a clip")
        time.sleep(rng.random() * 0.1)
        for child in children:
            child.kill()
            child.join()
            print("killed" if child.exitcode == -signal.SIGKILL else "ended", finished(parts), flush=True)
    children = [start(), start()]
    for child in children:
        child.join()
    print("status", *(child.exitcode for child in children), flush=True)


def finished(folder: Path) -> int:
    """Clips in a journal."""
    return sum(path.read_bytes().count(b"\n\n") for path in folder.glob("*/*.jsonl"))


if __name__ == "__main__":
    main(*sys.argv[1:4], seed=int(sys.argv[4]))
