"""Moments of one clip as one row of the data, read from the data set of moments when it is needed."""

from __future__ import annotations

import itertools
import math
from typing import Any

from timelens_plugins.clips import ClipKey
from timelens_plugins.training.dataset import check_prompts, clips_of

__all__ = ["VideoRows"]

_COLUMNS = ("id", "video", "video_start", "video_end", "spans", "prompt")


class VideoRows:
    """The rows of a :func:`~timelens_plugins.training.dataset.moments_dataset` by clip, in order of first appearance.

    Item ``i`` is ``{"row": i, "moments": [rows of one clip]}``. Moments of different windows of a video are different
    clips. A clip with more than ``max_queries`` moments becomes several rows whose sizes differ by one at most.

    Attributes:
        dataset: the moments, one a row.

    Args:
        dataset: a ``datasets.Dataset`` or a list with columns ``id, video, video_start, video_end, spans, prompt``.
        max_queries: of a row; None for no bound.

    Raises:
        ValueError: a column is missing, or a row could not be shown to a model.
    """

    def __init__(self, dataset: Any, max_queries: int | None = None) -> None:
        columns = set(dataset.column_names if hasattr(dataset, "column_names") else dataset[0])
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise ValueError(f"the data set lacks {', '.join(missing)}: make it with moments_dataset(moments)")
        check_prompts(dataset)
        self.dataset = dataset
        clips: dict[ClipKey, list[int]] = {}
        for index, key in enumerate(clips_of(dataset)):
            clips.setdefault(key, []).append(index)
        self._rows = [part for indices in clips.values() for part in _parts(indices, max_queries)]

    @classmethod
    def of(cls, dataset: Any, max_queries: int | None = None) -> VideoRows:
        """The rows of a data set of moments; what is rows of videos already stays as it is."""
        return dataset if isinstance(dataset, cls) else cls(dataset, max_queries)

    @property
    def names(self) -> list[str]:
        """For each row, the ids of its moments."""
        columnar = hasattr(self.dataset, "column_names")
        ids = list(self.dataset["id"]) if columnar else [row["id"] for row in self.dataset]
        return ["\t".join(ids[i] for i in row) for row in self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"row": row, "moments": [self.dataset[i] for i in self._rows[row]]}


def _parts(indices: list[int], limit: int | None) -> list[list[int]]:
    count = math.ceil(len(indices) / (limit or len(indices)))
    bounds = [len(indices) * i // count for i in range(count + 1)]
    return [indices[a:b] for a, b in itertools.pairwise(bounds)]
