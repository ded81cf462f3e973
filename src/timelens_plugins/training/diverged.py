"""Training that computes, and trains nothing: a loss or weights that are no numbers, steps that rounding swallows.

transformers shows a loss that is no number as the mean of those before, goes on, and saves checkpoints of it, for which
older ones are deleted.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

__all__ = ["FiniteLoss", "check_weights", "warn_of_rounding"]

logger = logging.getLogger(__name__)

_REMEDY = (
    "Go on from a checkpoint from before it (resume_from_checkpoint), with a lower learning_rate or max_grad_norm, or "
    "a longer warm-up"
)


class FiniteLoss(TrainerCallback):
    """Ends a run at the first logged loss that is no number, before its weights are saved.

    Raises:
        FloatingPointError: in :meth:`on_log`, on all processes.
    """

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if isinstance(loss, float) and not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss at step {state.global_step} is {loss}: the model has diverged. {_REMEDY}"
            )


def check_weights(model: nn.Module, accelerator: Any, step: int) -> None:
    """Refuse to save a model of which trained weights are no numbers. Called on all processes.

    Raises:
        FloatingPointError: on all processes.
    """
    with torch.no_grad():
        trained = [getattr(p, "_local_tensor", p) for p in model.parameters() if p.requires_grad]
        bad = sum(not bool(tensor.isfinite().all()) for tensor in trained)
    if int(accelerator.reduce(torch.tensor(bad, device=accelerator.device), "sum")):
        raise FloatingPointError(f"weights after step {step} are no numbers and are not saved: it diverged. {_REMEDY}")


def warn_of_rounding(model: nn.Module, args: Any) -> None:
    """Say so where weights are trained in half precision, in which small steps are lost.

    Args:
        model: with what is trained marked so.
        args: ``transformers.TrainingArguments``. DeepSpeed keeps its own copy in single precision.
    """
    half = [p for p in model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    if half and args.deepspeed_plugin is None:
        logger.warning(
            "%s trained values are in %s: a step that moves a value by less than about a 256th of it is lost to "
            "rounding, as nearly all of them are at learning_rate=%g. Load the model in float32 (dtype: float32); with "
            "bf16: true it computes in bfloat16 all the same",
            f"{sum(p.numel() for p in half):,}",
            str(half[0].dtype).removeprefix("torch."),
            args.learning_rate,
        )
