"""Three processes that read and write one small cache of frames, at the same time and in another order each.

    python cache_writers.py FOLDER VIDEO

The children are forked from a process that has imported everything and done nothing, so the imports are paid for once.
"""

from __future__ import annotations

import multiprocessing
import random
import sys

import torch

from timelens_plugins import file_state
from timelens_plugins.file_state import state_of
from timelens_plugins.video import FrameCache

MOST, NAMES = 120_000, 30  # bytes, of which an entry takes about 10,000


def work(folder: str, video: str, seed: int) -> None:
    file_state._SETTLED = -(10**12)
    cache, state, rng = FrameCache(folder, MOST), state_of(video), random.Random(seed)
    assert state is not None
    for number in (rng.randrange(NAMES) for _ in range(150)):
        frames = torch.full((3, 3, 32, 32), number, dtype=torch.uint8)
        place = cache.place(video, state, [number])
        assert place is not None
        if (entry := cache.read(place)) is None:
            cache.keep(place, video, state, {"frames": frames}, {"number": number})
        else:
            assert torch.equal(entry[0]["frames"], frames)
            assert entry[1] == {"number": number}
    assert not cache.counts["damaged"]
    assert not cache.counts["unwritable"]
    assert cache.counts["read"]
    assert cache.counts["removed"]


def main(folder: str, video: str) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["timelens_plugins.video"])
    children = [context.Process(target=work, args=(folder, video, seed)) for seed in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print("status", *(child.exitcode for child in children))


if __name__ == "__main__":
    main(*sys.argv[1:])
