"""The checkpoint that a recipe trains, by TRL's ``ModelConfig``."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from transformers import PreTrainedModel
from trl import ModelConfig, get_peft_config

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.families.load import load_model
from timelens_plugins.recipe.sources import files_of

__all__ = ["adapters", "base_checkpoint", "load_base"]

_OF_ADAPTERS = ("lora_", "use_rslora", "use_dora")


def base_checkpoint(config: ModelConfig, folder: str) -> str:
    """Path or hub id of the checkpoint; what its name stands for is made under ``folder``.

    Raises:
        ValueError: none is set; quantised weights are asked for, or settings of adapters without adapters; as
            :func:`~timelens_plugins.recipe.sources.files_of`.
    """
    if config.model_name_or_path is None:
        raise ValueError("model_name_or_path is not set")
    if config.load_in_8bit or config.load_in_4bit:
        raise ValueError("quantised base weights are not supported: leave load_in_8bit and load_in_4bit out")
    if not config.use_peft:
        given = [f.name for f in fields(config) if f.name.startswith(_OF_ADAPTERS) and not _is_default(config, f)]
        if given:
            raise ValueError(
                f"{', '.join(given)}: without effect without use_peft: true, and all weights would be trained. Set it, "
                "or leave them out"
            )
    return files_of(config.model_name_or_path, folder)


def _is_default(config: ModelConfig, setting: Field[Any]) -> bool:
    return bool(getattr(config, setting.name) == setting.default)


def load_base(
    config: ModelConfig, checkpoint: str, processor: InterleavedTimestampsMixin, batch_frames: bool | None = None
) -> PreTrainedModel:
    """The model of ``checkpoint`` with the settings of ``config``; ``batch_frames`` as ``load_model``'s."""
    model, _ = load_model(
        checkpoint,
        processor=processor,
        revision=config.model_revision,
        dtype=config.dtype,
        attn_implementation=config.attn_implementation,
        batch_frames=batch_frames,
    )
    return model


def adapters(config: ModelConfig) -> Any:
    """The adapters that the settings ask for, as PEFT's configuration; None for none.

    TRL makes one name in a list a text, which PEFT takes for a pattern of whole names, and finds no module.
    """
    wanted = get_peft_config(config)
    target = getattr(wanted, "target_modules", None)
    if wanted is not None and isinstance(target, str) and target.isidentifier():
        wanted.target_modules = {target}
    return wanted
