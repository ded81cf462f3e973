"""The settings of a processor with time encodings: checked, changed in place, saved with it and read back.

It overrides these methods of transformers' ``ProcessorMixin``: saving and loading, so that the settings travel in
``processor_config.json``; see ``signpost`` for programs without this package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from transformers import ProcessorMixin

from timelens_plugins.answers import GROUNDING_PROMPT, read_prompt
from timelens_plugins.encodings.encoding import TIMESTAMP_FORMAT, Encoding, check_timestamp_format, find_encoding
from timelens_plugins.encodings.messages import sampling_keys
from timelens_plugins.encodings.options import check_loading_options
from timelens_plugins.encodings.signpost import auto_map, write_signpost
from timelens_plugins.upstream.transformers import check_processors
from timelens_plugins.video import FRAMES_PER_PATCH, FrameSampling

__all__ = ["SETTINGS", "THINKING", "SavedSettings"]

SETTINGS = ("encoding", "frame_sampling", "timestamp_format", "prompt", "thinking")

THINKING = "enable_thinking"  # what chat templates of models that think call it


class SavedSettings(ProcessorMixin):
    """A processor whose settings are saved with it; the arguments are those of ``InterleavedTimestampsMixin``."""

    default_encoding: ClassVar[str] = "interleaved_timestamp"
    encoding: str
    frame_sampling: FrameSampling
    timestamp_format: str
    prompt: str
    thinking: bool

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: Any = None,
        encoding: str | None = None,
        frame_sampling: FrameSampling | dict[str, Any] | None = None,
        timestamp_format: str = TIMESTAMP_FORMAT,
        prompt: str = GROUNDING_PROMPT,
        thinking: bool = False,
    ) -> None:
        check_processors()
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)
        self.timestamp_format = check_timestamp_format(timestamp_format)  # saved whatever the encoding
        self.configure(
            encoding=encoding or self.default_encoding,
            frame_sampling=frame_sampling or {},
            prompt=prompt,
            thinking=thinking,
        )

    def configure(
        self,
        *,
        encoding: str | None = None,
        frame_sampling: FrameSampling | dict[str, Any] | None = None,
        timestamp_format: str | None = None,
        prompt: str | None = None,
        thinking: bool | None = None,
    ) -> Self:
        """Change settings in place; what is None, or not in a dict of sampling fields, stays. Returns the processor.

        Raises:
            ValueError: an unknown or unusable value, or a ``timestamp_format`` that the encoding does not write.
        """
        if thinking is not None:
            if thinking and not self.has_thinking_mode(self.chat_template):
                raise ValueError("thinking=True: this checkpoint's chat template has no thinking mode")
            self.thinking = thinking
        if encoding is not None:
            self.encoding = find_encoding(encoding).name
        if timestamp_format is not None:
            self.timestamp_format = check_timestamp_format(timestamp_format)
            if not self.time_encoding.takes_timestamp_format:
                raise ValueError(
                    f"timestamp_format: without effect with encoding {self.encoding!r}; leave it out, or take "
                    "interleaved_timestamp"
                )
        if prompt is not None:
            self.prompt = read_prompt(prompt)
        if frame_sampling is not None:
            self.frame_sampling = self.changed_sampling(frame_sampling)
        return self

    @staticmethod
    def has_thinking_mode(template: Any) -> bool:
        """Whether a chat template, or one of several by name, asks whether the model is to think."""
        return THINKING in str(template)

    @property
    def time_encoding(self) -> Encoding:
        """What :attr:`encoding` names."""
        return find_encoding(self.encoding)

    def changed_sampling(self, given: FrameSampling | dict[str, Any]) -> FrameSampling:
        """:attr:`frame_sampling` with other values of some fields, or another one.

        Raises:
            ValueError: a field that does not exist, or a size other than the model's.
        """
        sizes = {"patch_size": self.video_processor.patch_size, "merge_size": self.video_processor.merge_size}
        if isinstance(given, dict):
            if unknown := sorted(set(given) - set(sampling_keys())):
                raise ValueError(f"unknown video setting {', '.join(unknown)}; known: {', '.join(sampling_keys())}")
            given = replace(getattr(self, "frame_sampling", FrameSampling(**sizes)), **given)
        if (step := self.video_processor.temporal_patch_size) != FRAMES_PER_PATCH:
            raise ValueError(f"this model's patches hold {step} frames, but frames are sampled in pairs here")
        for name, size in sizes.items():
            if getattr(given, name) != size:
                raise ValueError(
                    f"frame_sampling has {name}={getattr(given, name)}, but this model's {name} is {size}; pass "
                    f"FrameSampling(..., {name}={size}), or a dict of the fields to change"
                )
        return given

    def to_dict(self) -> dict[str, Any]:
        """The parent's, with the sampling fields as a dict and the way to this class."""
        saved: dict[str, Any] = super().to_dict()
        return saved | {"frame_sampling": self.frame_sampling.to_dict(), "auto_map": auto_map(type(self))}

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """The parent's, and a file that tells programs without this package what to do."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        write_signpost(folder, type(self))
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoProcessor") -> None:
        """Nothing to do: the parent's would copy this package's source into every saved folder."""

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """The parent's; settings given here replace the saved ones and do not leak into the tokenizer's.

        Raises:
            ValueError: a name that does not exist, or that would sample or resize videos in the parent's way.
        """
        settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        processor: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        check_loading_options(processor, kwargs)
        return processor.configure(**settings)
