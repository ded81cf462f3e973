"""Weights of a checkpoint that a run goes on from, under whatever names they were saved.

transformers renames the weights of some families when it loads them, and saves them under the
names they had. A ``Trainer`` that resumes does not rename: it finds none of the names in the model, warns, and trains
on from what the run began with.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["ResumedWeights"]


class ResumedWeights:
    """For a ``transformers.Trainer``: checkpoints of whole models are loaded as ``from_pretrained`` loads them.

    Adapters, FSDP and DeepSpeed keep names of their own, and are the parent's.
    """

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The parent's does not rename, and goes on where names are missing.

        Raises:
            RuntimeError: the checkpoint has not the weights of this model.
        """
        found = self.model if model is None else model
        if self.is_fsdp_enabled or not isinstance(found, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        else:
            _load(found, resume_from_checkpoint)

    def _load_best_model(self: Any) -> None:
        """The parent's, renamed likewise."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled or not isinstance(self.model, PreTrainedModel):
            super()._load_best_model()  # type: ignore[misc]
        else:
            _load(self.model, self.state.best_model_checkpoint)


def _load(model: PreTrainedModel, folder: str | os.PathLike[str]) -> None:
    """In the widest precision of the model's parameters, each of which then takes its own."""
    widest = max((parameter.dtype for parameter in model.parameters()), key=lambda dtype: torch.finfo(dtype).bits)
    cls: Any = type(model)
    saved, report = cls.from_pretrained(
        folder, dtype=widest, local_files_only=True, attn_implementation="eager", output_loading_info=True
    )
    absent = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if absent:
        raise RuntimeError(f"{folder} lacks weights of this model, or has them in another shape: {', '.join(absent)}")
    model.load_state_dict(saved.state_dict(), strict=True)
