"""Adds items to a journal, in a random order of its own, until all are there; to be killed at any time.

python journal_writer.py FOLDER VIDEO COUNT SEED
"""

from __future__ import annotations

import random
import sys

from timelens_plugins.inference.journal import Journal


def main(folder: str, video: str, count: int, seed: int) -> None:
    keys = [f"item {n}" for n in range(count)]
    random.Random(seed).shuffle(keys)
    with Journal(folder, {"model": "m"}) as journal:
        print("open", flush=True)
        sys.stdin.readline()
        for key, found in zip(keys, journal.lookup((key, video) for key in keys), strict=True):
            if found is None:
                journal.add(key, video, {"text": f"about {key}: é" * 20})


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:5]))
