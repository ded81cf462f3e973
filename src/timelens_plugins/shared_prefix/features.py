"""The vision features of one prompt, computed once: plain tensors, no model."""

from __future__ import annotations

import dataclasses

from torch import Tensor

__all__ = ["VisionFeatures"]


@dataclasses.dataclass(frozen=True, eq=False)
class VisionFeatures:
    """What the vision tower made of one modality of one prompt, detached from any graph.

    Either *merged* (the tower is frozen: its outputs, shape ``(n, hidden)``, n vision tokens) or *unmerged* (a merger
    is trained: what goes into each merger, so that it can be run again with its current weights).

    Attributes:
        merged: output of the merger, or input to it.
        deepstack: the same for each deepstack merger (where there are any), in layer order; empty for other models.
        order: where mergers run on reordered rows (window attention), the rows in prompt order.
        needs_merging: whether the tensors are inputs of the mergers.
    """

    merged: Tensor
    deepstack: tuple[Tensor, ...] = ()
    order: Tensor | None = None
    needs_merging: bool = False
