"""A checkpoint's model with its processor, as evaluation, difficulty and training use it: the only place that loads."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, PreTrainedModel

from timelens_plugins.encodings import InterleavedTimestampsMixin, load_processor, restore_text_positions
from timelens_plugins.families.family import family_of
from timelens_plugins.shared_prefix.acceleration import batch_frames as batch_frames_of
from timelens_plugins.shared_prefix.locate import vision_language_model, vision_tower

__all__ = ["load_model", "restore_positions"]


def load_model(
    path: str | PathLike[str],
    encoding: str | None = None,
    *,
    processor: InterleavedTimestampsMixin | None = None,
    dtype: str | torch.dtype | None = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    batch_frames: bool | None = None,
    revision: str = "main",
    timestamp_format: str | None = None,
    **sampling: Any,
) -> tuple[PreTrainedModel, InterleavedTimestampsMixin]:
    """The model of a checkpoint, in evaluation mode, with its processor.

    What is wrong with the processor or a setting is said before weights are read. Code that comes with a checkpoint is
    never run.

    Args:
        path: a folder or a hub id.
        encoding, timestamp_format, revision, sampling: as
            :func:`~timelens_plugins.encodings.load_processor`.
        processor: of this checkpoint, where it is loaded already, in place of the settings of one.
        dtype: of the weights; ``"auto"`` for the checkpoint's.
        device: to put the model on; None leaves it where ``device_map`` or transformers puts it.
        device_map, attn_implementation: as transformers' ``from_pretrained``.
        batch_frames: compute the vision tower's attention for all frames of a clip in one batch, as
            :func:`~timelens_plugins.shared_prefix.accelerate_vision` does. None: where there is a GPU for the model,
            whose tower takes half the time then. Equal up to rounding; no effect with flash attention, which does so
            itself, and for families whose prompts are not shared.

    Raises:
        ValueError: as ``load_processor``; ``device`` beside ``device_map``, or one that is not there; an unknown
            ``dtype``.
    """
    if device is not None and device_map is not None:
        raise ValueError(f"device={device} and device_map={device_map} both say where the model goes; pass one")
    if device is not None:
        _check_device(device)
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype must be auto, float32, bfloat16 or float16, got {dtype!r}")
    if processor is not None and (encoding is not None or timestamp_format is not None or sampling):
        raise ValueError("settings of a processor beside a processor; configure it instead")
    if processor is None:
        processor = load_processor(path, encoding, timestamp_format=timestamp_format, revision=revision, **sampling)
    model: Any = AutoModelForImageTextToText.from_pretrained(
        fspath(path),
        dtype=dtype,
        device_map=device_map,
        attn_implementation=attn_implementation,
        revision=revision,
    ).eval()
    restore_positions(model)
    if batch_frames is None:
        batch_frames = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    if batch_frames and family_of(model).sharing == "shared":
        tower = vision_tower(vision_language_model(model))
        if tower.config._attn_implementation == "sdpa":
            batch_frames_of(tower)
    return (model if device is None else model.to(device)), processor


def _check_device(device: Any) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a build of torch without this kind of device
        reason = str(error).partition("\n")[0]
        there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        usable = "cpu" if there is None else f"cpu and {there.type}"
        raise ValueError(f"device {device} cannot be used here, which has {usable}: {reason}") from error


def restore_positions(model: Any) -> None:
    """Give a model, however it was loaded, the rotary positions that its family was trained with; twice is once."""
    if family_of(model).restores_positions:
        restore_text_positions(model)
