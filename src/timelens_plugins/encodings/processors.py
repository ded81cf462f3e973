"""Ready processors, and the one function that picks the right one for a checkpoint."""

from __future__ import annotations

import json
import logging
import re
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar

import transformers
from huggingface_hub.errors import EntryNotFoundError
from transformers import BatchFeature, Glm46VProcessor, PretrainedConfig, Qwen2_5_VLProcessor, Qwen3VLProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import cached_file

from timelens_plugins.encodings.encoding import TIMESTAMP_FORMAT
from timelens_plugins.encodings.messages import sampling_keys
from timelens_plugins.encodings.mixin import InterleavedTimestampsMixin
from timelens_plugins.families import FAMILIES, find_family, model_types

__all__ = [
    "TimeLensGlm46VProcessor",
    "TimeLensQwen2_5_VLProcessor",
    "TimeLensQwen3VLProcessor",
    "load_processor",
    "processor_class",
]


class TimeLensQwen3VLProcessor(InterleavedTimestampsMixin, Qwen3VLProcessor):
    """For Qwen3-VL, TimeLens-8B and Qwen3.5: the family's own ``<1.5 seconds>`` markers, as they were trained.

    Input ids equal those of transformers 4.57: the template's outer ``<|vision_start|>…<|vision_end|>`` pair, which
    newer versions leave around the whole video, is part of the placeholder.
    """

    default_encoding: ClassVar[str] = "native"


class TimeLensQwen2_5_VLProcessor(InterleavedTimestampsMixin, Qwen2_5_VLProcessor):
    """For TimeLens-7B: each frame pair as an image of its first frame after that frame's time, without separators."""

    default_encoding: ClassVar[str] = "interleaved_timestamp"


class TimeLensGlm46VProcessor(InterleavedTimestampsMixin, Glm46VProcessor):
    """For GLM-4.6V: the family's own ``1.5 seconds`` behind each frame pair, the time of its first frame.

    One token stands for what is seen of images and of videos, so its models take either in a call and not both.
    """

    default_encoding: ClassVar[str] = "native"
    vision_start_token = "<|begin_of_video|>"
    vision_end_token = "<|end_of_video|>"
    image_markers = ("<|begin_of_image|>", "<|end_of_image|>")
    time_marker = re.compile(r"(?<=<\|end_of_image\|>)\d+\.\d seconds")
    marks_first_frame = True

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """The mixin's.

        Raises:
            ValueError: as the mixin's; pictures beside videos, where videos are not shown as images.
        """
        if images is not None and videos is not None and not self.time_encoding.as_images:
            raise ValueError(
                "this model cannot see pictures and videos in one call: it tells them by the same token; pass them in "
                "calls of their own, or choose an encoding that shows videos as images (interleaved_timestamp)"
            )
        return super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)


logger = logging.getLogger(__name__)

# Custom classes of known checkpoints, whose code is not run, and the encoding they write.
_KNOWN_CUSTOM: dict[str, str] = {"TimeLensProcessor": "interleaved_timestamp"}  # TencentARC/TimeLens-7B

# Where a checkpoint may name the class of its processor, the first place first; up to transformers 4 not in the first.
_NAMING_FILES = ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json")


def load_processor(
    path: str | PathLike[str],
    encoding: str | None = None,
    *,
    timestamp_format: str | None = None,
    prompt: str | None = None,
    thinking: bool | None = None,
    revision: str = "main",
    **sampling: Any,
) -> InterleavedTimestampsMixin:
    """The processor of a checkpoint, with its saved settings, or the ready one of its family.

    A folder saved by a processor of this package gives that class and its settings. Any other checkpoint gives the
    ready class of its config's ``model_type``, with the encoding it was trained with: ``native``, or
    ``interleaved_timestamp`` where it names the processor class of TimeLens-7B.

    Args:
        path: a folder or a hub id.
        encoding: instead of the saved one.
        timestamp_format: instead of the saved one.
        thinking: instead of the saved setting, whether the model is to think before it answers.
        prompt: instead of the saved one: a name in ``answers.PROMPTS``, a text with ``{query}``, or a file of one.
        revision: of a hub repository.
        sampling: fields of ``FrameSampling`` to change: ``fps=4, total_tokens=28672``.

    Raises:
        ValueError: nothing that can be read at ``path``; an unknown setting or ``model_type``; a processor class that
            is not known here, or that writes times otherwise than the family's.
    """
    path = fspath(path)
    if unknown := sorted(set(sampling) - set(sampling_keys())):
        known = ("timestamp_format", "prompt", "thinking", "revision", *sampling_keys())
        raise ValueError(f"load_processor: unknown setting {', '.join(unknown)}; known: {', '.join(known)}")
    names = _processor_classes(path, revision)
    ours = {c.__name__: c for c in _subclasses(InterleavedTimestampsMixin)}
    cls = ours.get(next(iter(names.values()), ""))
    if cls is None:
        cls = _family(path, revision, names)
        stock = {name for family in FAMILIES.values() for name in family.stock_processors}
        custom = {file: name for file, name in names.items() if name not in stock}
        if encoding is None and custom:
            encoding = _encoding_of_custom(path, custom)
        encoding = encoding or "native"
    processor = cls.from_pretrained(path, revision=revision)
    return processor.configure(
        encoding=encoding,
        timestamp_format=timestamp_format,
        prompt=prompt,
        thinking=thinking,
        frame_sampling=sampling or None,
    )


def _processor_classes(path: str, revision: str) -> dict[str, str]:
    """File -> processor class it names, for all files of a checkpoint that name one."""
    named = {}
    for file in _NAMING_FILES:
        try:
            name = _read_json(path, file, revision).get("processor_class")
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: neither a folder nor a repository that can be read: {error}") from error
        if name is not None:
            named[file] = str(name)
    return named


def _read_json(path: str, file: str, revision: str) -> dict[str, Any]:
    """A file of a folder or of a hub repository; empty where it does not exist."""
    if Path(path).is_dir():
        found = Path(path, file)
        if not found.is_file():
            return {}
    else:
        try:
            found = Path(str(cached_file(path, file, revision=revision)))
        except OSError as error:
            if isinstance(error.__cause__, EntryNotFoundError):
                return {}
            raise
    content = json.loads(found.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no object")
    return content


def _encoding_of_custom(path: str, custom: dict[str, str]) -> str:
    """The encoding of a checkpoint whose files name custom processor classes, by file."""
    file, name = next(iter(custom.items()))
    if all(name in _KNOWN_CUSTOM for name in custom.values()):
        encoding = _KNOWN_CUSTOM[name]
        logger.warning(
            "%s: its processor class %s (%s) is not run; its encoding is %s, with the text %r before each frame",
            path, name, file, encoding, TIMESTAMP_FORMAT,
        )  # fmt: skip
        return encoding
    file, name = next((file, name) for file, name in custom.items() if name not in _KNOWN_CUSTOM)
    raise ValueError(
        f"{path}: its processor class {name} is not known here, or another of its files names another ({file} names "
        "this one). If it is yours, import the module that defines it first. If it is custom code of the checkpoint, "
        "which is never run, say which encoding the model was trained with: load_processor(path, encoding=...)"
    )


def _family(path: str, revision: str, names: dict[str, str]) -> type[InterleavedTimestampsMixin]:
    """The ready class for a config's ``model_type``, if the stock classes that are named, by file, are its family's."""
    config, _ = PretrainedConfig.get_config_dict(path, revision=revision)
    model_type = config.get("model_type")
    if model_type is None:
        raise ValueError(f"{path}: no processor saved by this package, and no config.json that states a model_type")
    if model_type not in model_types():
        raise ValueError(f"{path}: no time encodings for model_type {model_type!r}; known: {', '.join(model_types())}")
    stock = find_family(model_type).stock_processors
    if not names and (name := PROCESSOR_MAPPING_NAMES.get(model_type)) is not None and name not in stock:
        raise ValueError(
            f"{path} names no processor class, for which transformers takes {name}; models of type {model_type!r} are "
            f"known here with {' or '.join(stock)} only. If that is what this one was trained with, name it in "
            f"{_NAMING_FILES[0]}: processor_class"
        )
    for file, name in names.items():
        if name not in stock and hasattr(transformers, name):
            raise ValueError(
                f"{path}: {file} names transformers' {name}; models of type {model_type!r} are known here with "
                f"{' or '.join(stock)} only, which writes other prompts. If that is what this one was trained with, "
                "change the name in the file"
            )
    return processor_class(model_type)


def processor_class(model_type: str) -> type[InterleavedTimestampsMixin]:
    """The ready processor of a ``model_type``.

    Raises:
        ValueError: an unknown one, or one whose family's processor class is not imported.
    """
    name = find_family(model_type).processor
    for cls in _subclasses(InterleavedTimestampsMixin):
        if cls.__name__ == name:
            return cls
    raise ValueError(f"{model_type}: import the module that defines its processor class {name} first")


def _subclasses(cls: type[InterleavedTimestampsMixin]) -> list[type[InterleavedTimestampsMixin]]:
    return [c for sub in cls.__subclasses__() for c in (*_subclasses(sub), sub)]
