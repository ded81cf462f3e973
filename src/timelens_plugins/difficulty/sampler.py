"""Prompts drawn by their weights of the moment, for trainers that repeat each prompt for a group of completions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from timelens_plugins.difficulty.by_video import Videos, draw_by_video
from timelens_plugins.difficulty.draw import draw

__all__ = ["DifficultySampler"]

logger = logging.getLogger(__name__)

_REMEMBERED = 8  # generation batches; a trainer reads at most a few ahead of its steps


class DifficultySampler(Sampler[int]):
    """Draws the prompts of each generation batch when it is asked for, by the weights of that time.

    Repeats as TRL's ``RepeatSampler``: P different prompts, each ``generations`` times in a row, and the whole
    generation batch ``repeats`` times. Every generation batch has its own random numbers, a function of seed, epoch and
    the batch's number: processes with equal weights draw equal batches, and a resumed run draws what it would have
    drawn. Prompts come without replacement within a batch; with weights that change, one may come again in a later one.
    Where fewer prompts have a weight above 0 than a batch takes, as where all answers so far scored alike, the batch is
    filled up with others, all with the same chance, and the log says so.

    What was drawn last is remembered and part of the state: dataloaders read ahead, so at a checkpoint the next
    batch has been drawn already, under weights that have changed since.

    Args:
        weights: gives current weights of all prompts, shape ``(n,)``, equal on every process.
        size: n, prompts of the data set; an epoch has ``size // prompts`` generation batches.
        prompts: P, of a generation batch.
        generations: completions of a prompt.
        repeats: how often each generation batch comes.
        seed: of the draws.
        epoch: gives the epoch's number when an iteration begins; by default iterations are counted.
        videos: what names each prompt's video, where several of one are to come together.
        queries_per_video: k, prompts of a video that come together at most; the rule by which they are drawn, and what
            it keeps of the weights, stands in :mod:`~timelens_plugins.difficulty.by_video`.
        part: prompts of a part of the generation batch: what a video gives is all in one. By default a part is the
            whole batch.

    Raises:
        ValueError: fewer prompts than a generation batch takes, ``queries_per_video`` above 1 without ``videos`` or
            with smaller parts, or parts that do not make up a generation batch.
    """

    def __init__(
        self,
        weights: Callable[[], NDArray[np.float64]],
        size: int,
        *,
        prompts: int,
        generations: int = 1,
        repeats: int = 1,
        seed: int = 0,
        epoch: Callable[[], int] | None = None,
        videos: Sequence[Hashable] | None = None,
        queries_per_video: int = 1,
        part: int | None = None,
    ) -> None:
        if min(prompts, generations, repeats) < 1:
            raise ValueError(
                f"prompts, generations and repeats must be at least 1: {prompts}, {generations}, {repeats}"
            )
        if size < prompts:
            raise ValueError(f"the data set has {size} prompts, fewer than the {prompts} of one generation batch")
        self.part = prompts if part is None else part
        if prompts % self.part or not 1 <= queries_per_video <= self.part:
            raise ValueError(
                f"{prompts} prompts of a generation batch in parts of {self.part} cannot take {queries_per_video} of a "
                "video at a time: parts must make up the batch and hold a video's prompts"
            )
        if queries_per_video > 1 and (videos is None or len(videos) != size):
            raise ValueError(f"queries_per_video={queries_per_video} needs the video of each of the {size} prompts")
        self.queries_per_video = queries_per_video
        self._videos = Videos(videos) if videos is not None and queries_per_video > 1 else None
        self.weights, self.size = weights, size
        self.prompts, self.generations, self.repeats = prompts, generations, repeats
        self.seed, self.epoch = seed, epoch
        self._iterations = 0
        self._short = False
        self._drawn: dict[tuple[int, int], list[int]] = {}

    def __len__(self) -> int:
        return self.size // self.prompts * self.prompts * self.generations * self.repeats

    def __iter__(self) -> Iterator[int]:
        epoch = self._iterations if self.epoch is None else self.epoch()
        self._iterations = epoch + 1
        for number in range(self.size // self.prompts):
            batch = self.batch(epoch, number)
            for _ in range(self.repeats):
                for index in batch:
                    for _ in range(self.generations):
                        yield index

    def order(self, epoch: int) -> Iterator[int]:
        """The epoch's prompts, each once per drawing, drawn one generation batch at a time as they are read."""
        for number in range(self.size // self.prompts):
            yield from self.batch(epoch, number)

    def batch(self, epoch: int, number: int) -> list[int]:
        """Indices of the prompts of a generation batch; asked again, the same ones."""
        key = (epoch, number)
        if key not in self._drawn:
            values = np.asarray(self.weights(), dtype=np.float64)
            if values.shape != (self.size,):
                raise ValueError(f"{self.size} prompts and weights of shape {values.shape}")
            values, seed = self._enough(values), [self.seed, epoch, number]
            if self._videos is None:
                drawn = draw(values, self.prompts, seed)
            else:
                parts = [self.part] * (self.prompts // self.part)
                drawn = draw_by_video(values, self._videos, parts, self.queries_per_video, seed)
            self._drawn[key] = drawn.tolist()
            # The lowest numbers go first: a resumed run passes over them before it reaches what was drawn ahead.
            for old in sorted(self._drawn)[:-_REMEMBERED]:
                if old != key:
                    del self._drawn[old]
        return self._drawn[key]

    def _enough(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights, with a last place for those of 0 where the others do not fill a batch."""
        positive = weights > 0
        if positive.sum() >= self.prompts:
            return weights
        if not self._short:
            logger.warning(
                "%d of %d prompts have a weight above 0, and a generation batch takes %d: it is filled up with others, "
                "all with the same chance (said once)",
                positive.sum(),
                self.size,
                self.prompts,
            )
            self._short = True
        last = 1e-12 * weights[positive].min() if positive.any() else 1.0
        return np.where(weights == 0, max(last, np.finfo(np.float64).tiny), weights)

    def state_dict(self) -> dict[str, Any]:
        """The batches drawn last, as JSON types."""
        return {
            "prompts": self.prompts,
            "size": self.size,
            "seed": self.seed,
            "queries_per_video": self.queries_per_video,
            "part": self.part,
            "drawn": [[epoch, number, batch] for (epoch, number), batch in self._drawn.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a :meth:`state_dict`.

        Raises:
            ValueError: it is of another data set or seed, or of other generation batches.
        """
        names = ["prompts", "size", "seed", "queries_per_video"]
        if self._videos is not None:
            names.append("part")  # else the draws do not depend on it
        saved = {"queries_per_video": 1} | dict(state)  # which an earlier version does not name
        for name in names:
            if saved[name] != getattr(self, name):
                raise ValueError(
                    f"the sampler's state was saved with {name}={saved[name]}, this run has {getattr(self, name)}: "
                    "resume with the same settings, or start over"
                )
        self._drawn = {(epoch, number): list(batch) for epoch, number, batch in state["drawn"]}
