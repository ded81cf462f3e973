"""Weights of a checkpoint that a run goes on from, under whatever names they were saved.

transformers renames the weights of some families when it loads them, and saves them under the
names they had. A ``Trainer`` that resumes does not rename: it finds none of the names in the model, warns, and trains
on from what the run began with.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME

__all__ = ["ResumedWeights"]

logger = logging.getLogger(__name__)

_OF_GROUPS = {"initial_lr": "learning rate", "weight_decay": "weight decay"}
"""Of an optimizer's groups of parameters: what a checkpoint brings along."""


class ResumedWeights:
    """For a ``transformers.Trainer``: checkpoints of whole models are loaded as ``from_pretrained`` loads them.

    Adapters, FSDP and DeepSpeed keep names of their own, and are the parent's. What a checkpoint holds of adapters is
    compared with what the run trains: the parent loads what fits, and says nothing of the rest.
    """

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The parent's does not rename, and goes on where names are missing.

        Raises:
            RuntimeError: the checkpoint has not the weights of this model.
        """
        found = self.model if model is None else model
        if is_peft_model(found) and not self.is_fsdp_enabled:
            _check_adapters(found, resume_from_checkpoint)
        if self.is_fsdp_enabled or not isinstance(found, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        else:
            _load(found, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        """The parent's takes rates and decays from the checkpoint, too; says so where the settings are others now."""
        wanted = [{name: group.get(name) for name in _OF_GROUPS} for group in self.optimizer.param_groups]
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is None:
            return
        changed = {
            f"{setting} {group[name]:g} and not {asked[name]:g}"
            for group, asked in zip(self.optimizer.param_groups, wanted, strict=False)
            for name, setting in _OF_GROUPS.items()
            if isinstance(asked[name], float | int) and group.get(name) not in (None, asked[name])
        }
        if changed:
            logger.warning(
                "%s: the run goes on with what its optimizer was made with: %s, as the settings have it now. To "
                "change it, train the checkpoint's weights on in another output_dir (model_name_or_path)",
                checkpoint,
                ", ".join(sorted(changed)),
            )

    def _load_best_model(self: Any) -> None:
        """The parent's, renamed and compared likewise."""
        if is_peft_model(self.model) and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            _check_adapters(self.model, self.state.best_model_checkpoint)
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


def _check_adapters(model: Any, folder: str | os.PathLike[str]) -> None:
    """What is trained of a model with adapters must be in its checkpoint, by the names under which it was saved."""
    from peft import get_peft_model_state_dict
    from peft.utils.save_and_load import load_peft_weights

    for name in model.peft_config:
        own = Path(folder) if name == "default" else Path(folder) / name
        if not any((own / file).is_file() for file in (ADAPTER_SAFE_WEIGHTS_NAME, ADAPTER_WEIGHTS_NAME)):
            raise RuntimeError(f"{own} has no adapter, and this run trains one ({name}): continue with its settings")
        expected = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
        if absent := sorted(expected - load_peft_weights(str(own), device="cpu").keys()):
            raise RuntimeError(
                f"{own} lacks {len(absent)} weights that this run trains, such as {absent[0]}: continue with the "
                "adapter and the parts (vision) that it was saved with"
            )
