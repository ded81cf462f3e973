"""Which prompts come when: an order of prompts, drawn out to the rows that TRL's training loop expects.

A *generation batch* is the P prompts whose completions are generated together. TRL's loop wants each prompt G times
in a row, and the whole generation batch once for every time it takes a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from timelens_plugins.difficulty.by_video import Videos
from timelens_plugins.grpo.config import TimeLensGRPOConfig
from timelens_plugins.grpo.prompts import clip_of
from timelens_plugins.training.dataset import clips_of

__all__ = ["PromptOrder", "PromptSampler", "check_size", "drawing_of", "epoch_order", "shuffled", "shuffled_by_video"]

PromptOrder = Callable[[int], Iterable[int]]
"""Epoch -> indices of the data set's rows, in the order of training; equal on every process.

Read lazily, one generation batch ahead of training at most, so an order may depend on what was learned meanwhile.
"""


def drawing_of(args: TimeLensGRPOConfig, dataset: Any) -> dict[str, Any]:
    """What a configuration says of a generation batch, by the names of :func:`epoch_order` and ``OnlineDraws``."""
    videos: Sequence[Hashable] | None = None
    if args.queries_per_video > 1:
        told = {"video", "video_start", "video_end"} <= set(dataset.column_names)
        videos = clips_of(dataset) if told else [clip_of(row) for row in dataset]
    return {
        "prompts": args.generation_batch_size // args.num_generations,
        "part": args.part_prompts,
        "queries_per_video": args.queries_per_video,
        "videos": videos,
    }


def epoch_order(
    size: int, seed: int, shuffle: bool, *, videos: Sequence[Hashable] | None, **batches: int
) -> PromptOrder:
    """:func:`shuffled`, or :func:`shuffled_by_video` where several prompts of a video come together."""
    return shuffled(size, seed, shuffle) if videos is None else shuffled_by_video(videos, seed, shuffle, **batches)


def shuffled(size: int, seed: int, shuffle: bool = True) -> PromptOrder:
    """Every prompt once an epoch, shuffled anew in each; the first epoch's order is that of TRL's own sampler."""

    def order(epoch: int) -> Iterable[int]:
        if not shuffle:
            return range(size)
        generator = torch.Generator().manual_seed(seed + epoch)
        return torch.randperm(size, generator=generator).tolist()

    return order


def shuffled_by_video(
    videos: Sequence[Hashable], seed: int, shuffle: bool = True, *, prompts: int, part: int, queries_per_video: int
) -> PromptOrder:
    """Every prompt once an epoch, up to ``queries_per_video`` of a video together.

    Each video's prompts are cut into blocks of ``queries_per_video`` and what is left over. Parts are filled with
    blocks in their order: the next one that fits and whose video has none in the generation batch yet. Where there is
    none, a larger one is cut, and the rest of it comes later.

    Args:
        videos: of each prompt.
        seed, shuffle: as of :func:`shuffled`; both a video's prompts and the blocks are shuffled.
        prompts: P, of a generation batch.
        part: prompts of a part of it, which divides P and is at least ``queries_per_video``.
        queries_per_video: k.
    """
    by_video, k = Videos(videos), queries_per_video

    def order(epoch: int) -> Iterator[int]:
        rng = np.random.default_rng([seed, epoch])
        blocks: list[tuple[int, list[int]]] = []
        for video, moments in enumerate(by_video.moments()):
            chosen = rng.permutation(moments).tolist() if shuffle else moments
            blocks += [(video, chosen[at : at + k]) for at in range(0, len(chosen), k)]
        if shuffle:
            blocks = [blocks[i] for i in rng.permutation(len(blocks))]
        while blocks:
            taken: set[int] = set()
            for _ in range(prompts // part):
                room = part
                while room and blocks:
                    place = _next_block(blocks, room, taken)
                    video, block = blocks.pop(place)
                    if block[room:]:
                        blocks.insert(place, (video, block[room:]))
                    taken.add(video)
                    yield from block[:room]
                    room -= len(block[:room])

    return order


def _next_block(blocks: Sequence[tuple[int, list[int]]], room: int, taken: set[int]) -> int:
    """The first block that fits and is of another video; or is of another video; or the first."""
    other = None
    for place, (video, block) in enumerate(blocks):
        if video not in taken:
            if len(block) <= room:
                return place
            other = place if other is None else other
    return other or 0


def check_size(size: int, prompts: int) -> None:
    """Refuse fewer prompts than one generation batch takes.

    Raises:
        ValueError: with the remedy.
    """
    if size < prompts:
        raise ValueError(
            f"the data set has {size} prompts, fewer than the {prompts} of one generation batch: add data, or "
            "lower per_device_train_batch_size, steps_per_generation or the number of processes"
        )


class PromptSampler(Sampler[int]):
    """Rows of whole groups in an order that depends on the epoch's number, not on how often it was iterated.

    TRL's ``RepeatSampler`` draws each epoch's order from a generator that it carries from epoch to epoch, so a run that
    resumes in its second epoch would see the first one's order again.

    Args:
        order: of the prompts.
        size: prompts an epoch.
        prompts: P, of a generation batch; what is left over at an epoch's end is left out.
        generations: G, how often each prompt comes in a row.
        repeats: how often each generation batch comes.
        epoch: gives the epoch's number when an iteration begins.
        over: whether the run is, so that nothing comes: transformers asks only after a step, and would take one more
            each time a finished run is started again.
    """

    def __init__(
        self,
        order: PromptOrder,
        size: int,
        *,
        prompts: int,
        generations: int,
        repeats: int,
        epoch: Callable[[], int],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        check_size(size, prompts)
        self.order, self.size, self.epoch, self.over = order, size, epoch, over
        self.prompts, self.generations, self.repeats = prompts, generations, repeats

    def __iter__(self) -> Iterator[int]:
        if self.over():
            return
        prompts = iter(self.order(self.epoch()))
        for _ in range(self.size // self.prompts):
            batch = list(islice(prompts, self.prompts))
            if len(batch) < self.prompts:
                raise ValueError(f"the order of prompts ended early: {self.size} were announced")
            for _ in range(self.repeats):
                for index in batch:
                    for _ in range(self.generations):
                        yield index

    def __len__(self) -> int:
        return self.size // self.prompts * self.prompts * self.generations * self.repeats
