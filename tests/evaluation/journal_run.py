"""Evaluates in child processes on one journal: two runs at once, killed at random, and one that goes on.

    python journal_run.py CHECKPOINT JOURNAL QUESTIONS SEED

Prints the answers of the last run as JSON. The children are forked from a process that has imported everything and done
nothing, so the imports are paid for once.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch

from timelens_plugins.evaluation.model import TimeLens


def work(checkpoint: str, journal: str | None, docs: list[dict[str, Any]], answers: SimpleQueue[Any] | None) -> None:
    from requests_of import requests_for

    torch.set_num_threads(1)
    model = TimeLens(checkpoint, device="cpu", total_tokens=64, fps=0.5, journal=journal)
    texts = [result.text for result in model.generate_until(requests_for(model, docs))]
    if answers is not None:
        answers.put(texts)


def main(checkpoint: str, journal: str, questions: str, seed: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timelens_plugins.evaluation.model"])
    docs = json.loads(Path(questions).read_text())
    rng = random.Random(seed)

    def start(part: list[dict[str, Any]], answers: SimpleQueue[Any] | None = None) -> Any:
        child = context.Process(target=work, args=(checkpoint, journal, part, answers))
        child.start()
        return child

    for _ in range(2):
        # A run on one process beside a run on two, each of which has every other question, as lmms-eval deals them.
        children = [start(docs), start(docs[0::2]), start(docs[1::2])]
        before = finished(Path(journal))
        while finished(Path(journal)) < before + 3 and any(child.is_alive() for child in children):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        print("killed", sum(child.is_alive() for child in children), flush=True)
        for child in children:
            child.kill()
            child.join()
    answers = context.SimpleQueue()
    children = [start(docs, answers), start(docs[0::2])]
    texts = answers.get()
    for child in children:
        child.join()
    print("status", [child.exitcode for child in children])
    print("finished", finished(Path(journal)))
    print(json.dumps(texts))


def finished(folder: Path) -> int:
    """Questions in a journal."""
    return sum(path.read_bytes().count(b"\n\n") for path in folder.glob("*/*.jsonl"))


if __name__ == "__main__":
    main(*sys.argv[1:4], seed=int(sys.argv[4]))
