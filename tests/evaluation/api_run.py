"""Evaluates through an endpoint in child processes on one journal: killed at random, and one that goes on.

    python api_run.py URL JOURNAL QUESTIONS SEED KILLS

Prints the answers of the last run as JSON, behind its account. The children are forked from a process that has
imported everything and done nothing.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import Any

from journal_run import finished

from timelens_plugins.evaluation.model import TimeLens

CONCURRENCY = 3


def work(url: str, journal: str, docs: list[dict[str, Any]], answers: Any) -> None:
    from requests_of import requests_for

    model = TimeLens("tiny", engine="api", base_url=url, retry_seconds=0.001, concurrency=CONCURRENCY, journal=journal)
    texts = [result.text for result in model.generate_until(requests_for(model, docs))]
    if answers is not None:
        answers.put(texts)


def main(url: str, journal: str, questions: str, seed: int, kills: int) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timelens_plugins.evaluation.api_model"])
    docs = json.loads(Path(questions).read_text())
    rng = random.Random(seed)
    for _ in range(kills):
        child = context.Process(target=work, args=(url, journal, docs, None))
        before = finished(Path(journal))
        child.start()
        while finished(Path(journal)) < before + 3 and child.is_alive():
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        print("killed", int(child.is_alive()), finished(Path(journal)), flush=True)
        child.kill()
        child.join()
    answers = context.SimpleQueue()
    child = context.Process(target=work, args=(url, journal, docs, answers))
    child.start()
    texts = answers.get()
    child.join()
    print("status", child.exitcode)
    print(json.dumps(texts))


if __name__ == "__main__":
    main(*sys.argv[1:4], seed=int(sys.argv[4]), kills=int(sys.argv[5]))
