"""Ready processors, and the one function that picks the right one for a checkpoint."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any, ClassVar

from transformers import PretrainedConfig, ProcessorMixin, Qwen2_5_VLProcessor, Qwen3VLProcessor

from timelens_plugins.timestamps.encodings import Encoding
from timelens_plugins.timestamps.messages import sampling_keys
from timelens_plugins.timestamps.mixin import InterleavedTimestampsMixin

__all__ = ["FAMILIES", "TimeLensQwen2_5_VLProcessor", "TimeLensQwen3VLProcessor", "load_processor"]


class TimeLensQwen3VLProcessor(InterleavedTimestampsMixin, Qwen3VLProcessor):
    """For Qwen3-VL and TimeLens-8B: the family's own ``<1.5 seconds>`` markers, as its checkpoints were trained.

    Input ids equal those of transformers 4.57: the template's outer ``<|vision_start|>…<|vision_end|>`` pair, which
    newer versions leave around the whole video, is part of the placeholder.
    """

    default_encoding: ClassVar[Encoding] = "native"


class TimeLensQwen2_5_VLProcessor(InterleavedTimestampsMixin, Qwen2_5_VLProcessor):
    """For TimeLens-7B: each frame pair as an image of its first frame after that frame's time, without separators."""

    default_encoding: ClassVar[Encoding] = "interleaved_timestamp"


FAMILIES: dict[str, type[InterleavedTimestampsMixin]] = {
    "qwen3_vl": TimeLensQwen3VLProcessor,
    "qwen3_vl_moe": TimeLensQwen3VLProcessor,
    "qwen2_5_vl": TimeLensQwen2_5_VLProcessor,
}
"""The ready processor of each ``model_type``."""

_STOCK = ("Qwen3VLProcessor", "Qwen2_5_VLProcessor")


def load_processor(
    path: str | PathLike[str],
    encoding: str | None = None,
    *,
    timestamp_format: str | None = None,
    revision: str = "main",
    **sampling: Any,
) -> InterleavedTimestampsMixin:
    """The processor of a checkpoint, with its saved settings, or the ready one of its family.

    A folder saved by a processor of this package gives that class and its settings. Any other checkpoint gives the
    ready class of its config's ``model_type``, with the encoding it was trained with, ``native``.

    Args:
        path: a folder or a hub id.
        encoding: instead of the saved one.
        timestamp_format: instead of the saved one.
        revision: of a hub repository.
        sampling: fields of ``FrameSampling`` to change: ``fps=4, total_tokens=28672``.

    Raises:
        ValueError: nothing that can be read at ``path``; an unknown setting or ``model_type``; a processor class that
            is not known here.
    """
    path = fspath(path)
    if unknown := sorted(set(sampling) - set(sampling_keys())):
        known = ("timestamp_format", "revision", *sampling_keys())
        raise ValueError(f"load_processor: unknown setting {', '.join(unknown)}; known: {', '.join(known)}")
    try:
        saved, _ = ProcessorMixin.get_processor_dict(path, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: neither a folder nor a repository that can be read: {error}") from error
    name = saved.get("processor_class")
    cls = next((c for c in _subclasses(InterleavedTimestampsMixin) if c.__name__ == name), None)
    if cls is None:
        if name is not None and name not in _STOCK and encoding is None:
            raise ValueError(
                f"{path}: its processor class {name} is not known here. If it is yours, import the module that "
                "defines it first. If it is custom code of the checkpoint, which is never run, say which encoding the "
                "model was trained with: load_processor(path, encoding=...)"
            )
        cls, encoding = _family(path, revision), encoding or "native"
    processor = cls.from_pretrained(path, revision=revision)
    return processor.configure(encoding=encoding, timestamp_format=timestamp_format, frame_sampling=sampling or None)


def _family(path: str, revision: str) -> type[InterleavedTimestampsMixin]:
    config, _ = PretrainedConfig.get_config_dict(path, revision=revision)
    model_type = config.get("model_type")
    if model_type is None:
        raise ValueError(f"{path}: no processor saved by this package, and no config.json that states a model_type")
    if model_type not in FAMILIES:
        raise ValueError(f"{path}: no time encodings for model_type {model_type!r}; known: {', '.join(FAMILIES)}")
    return FAMILIES[model_type]


def _subclasses(cls: type[InterleavedTimestampsMixin]) -> list[type[InterleavedTimestampsMixin]]:
    return [c for sub in cls.__subclasses__() for c in (*_subclasses(sub), sub)]
