"""Which prompts come when: an order of prompts, drawn out to the rows that TRL's training loop expects.

A *generation batch* is the P prompts whose completions are generated together. TRL's loop wants each prompt G times
in a row, and the whole generation batch once for every time it takes a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch.utils.data import Sampler

__all__ = ["GroupSampler", "PromptOrder", "shuffled"]

PromptOrder = Callable[[int], Iterable[int]]
"""Epoch -> indices of the data set's rows, in the order of training; equal on every process.

Read lazily, one generation batch ahead of training at most, so an order may depend on what was learned meanwhile.
"""


def shuffled(size: int, seed: int, shuffle: bool = True) -> PromptOrder:
    """Every prompt once an epoch, shuffled anew in each; the first epoch's order is that of TRL's own sampler."""

    def order(epoch: int) -> Iterable[int]:
        if not shuffle:
            return range(size)
        generator = torch.Generator().manual_seed(seed + epoch)
        return torch.randperm(size, generator=generator).tolist()

    return order


class GroupSampler(Sampler[int]):
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
        if size < prompts:
            raise ValueError(
                f"the data set has {size} prompts, fewer than the {prompts} of one generation batch: add data, or "
                "lower per_device_train_batch_size, steps_per_generation or the number of processes"
            )
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
