"""How much a part of a batch counts when groups were skipped: the loss equals that over the groups that remain.

Skipped groups are masked, so they add nothing to the numerators of TRL's losses. Some denominators count them all the
same; the loss of each slice is multiplied by what makes up for it. Where one optimizer step takes several generation
batches, each of these counts alike, however many of its groups remain.

The entropy bonus and the load-balancing loss of a mixture of experts have a mean of their own, over slices, whatever
the loss: their weight is another one.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["NORMALISATION", "SliceWeight", "slice_weights"]

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


class SliceWeight(NamedTuple):
    """Factors of a slice's loss.

    Attributes:
        policy: of the policy's loss, the KL divergence in it.
        extras: of what is a mean over slices: entropy bonus and load-balancing loss.
    """

    policy: float = 1.0
    extras: float = 1.0


def slice_weights(kept: Tensor, rows: int, loss_type: str, slices_per_step: int) -> list[SliceWeight]:
    """The factors of each slice; 1 everywhere where nothing was skipped.

    Args:
        kept: kept rows of each slice on each process, shape ``(processes, slices)``.
        rows: of a slice, kept or not.
        loss_type: a key of :data:`NORMALISATION`.
        slices_per_step: slices in an optimizer step.
    """
    slices = kept.shape[1]
    span = slices_per_step if slices % slices_per_step == 0 else slices
    weights: list[SliceWeight] = []
    for step in kept.split(span, dim=1):
        counted = {
            "rows": step.numel() * rows / max(int(step.sum()), 1),
            "slices": step.numel() / max(int((step > 0).sum()), 1),
            "tokens": 1.0,
        }
        nothing = not bool(step.any())
        weight = SliceWeight() if nothing else SliceWeight(counted[NORMALISATION[loss_type]], counted["slices"])
        weights += [weight] * step.shape[1]
    return weights
