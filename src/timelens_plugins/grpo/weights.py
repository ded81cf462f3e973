"""How much a part of a batch counts when groups were skipped: the loss equals that over the groups that remain.

Skipped groups are masked, so they add nothing to the numerators of TRL's losses. Some denominators count them all the
same; the loss of each slice is multiplied by what makes up for it. Where one optimizer step takes several generation
batches, each of these counts alike, however many of its groups remain.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["NORMALISATION", "slice_weights"]

NORMALISATION = {
    "grpo": "rows",
    "sapo": "rows",
    "dr_grpo": "rows",
    "luspo": "rows",
    "bnpo": "slices",
    "dapo": "tokens",
    "cispo": "tokens",
    "vespo": "tokens",
}
"""What TRL's losses divide by: ``rows``, the completions; ``tokens``, the unmasked tokens of a whole generation batch;
``slices``, the unmasked tokens of each slice, and then the number of slices."""


def slice_weights(kept: Tensor, rows: int, loss_type: str, slices_per_step: int) -> list[float]:
    """The factor of each slice's loss; 1 everywhere where nothing was skipped.

    Args:
        kept: kept rows of each slice on each process, shape ``(processes, slices)``.
        rows: of a slice, kept or not.
        loss_type: a key of :data:`NORMALISATION`.
        slices_per_step: slices in an optimizer step.
    """
    kind = NORMALISATION[loss_type]
    slices = kept.shape[1]
    span = slices_per_step if slices % slices_per_step == 0 else slices
    weights: list[float] = []
    for step in kept.split(span, dim=1):
        counted, total = {
            "rows": (int(step.sum()), step.numel() * rows),
            "slices": (int((step > 0).sum()), step.numel()),
            "tokens": (1, 1),
        }[kind]
        weights += [total / counted if counted else 1.0] * step.shape[1]
    return weights
