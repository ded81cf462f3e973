"""The processor mixin: frames with times in; text, ids and vision tensors out, in any of the time encodings.

It overrides these methods of transformers' ``ProcessorMixin``; everything else is the parent's:

- ``__call__``: the parent guesses 24 fps where times are unknown and resizes frames once more. Here every video is
  made of frames of the final size with known times first, and images made of frames are put among the user's own
  afterwards.
- ``_process_videos``: the parent knows one layout per family; here the encoding decides.
- ``replace_video_token``: Qwen3-VL's writes its time markers always; some encodings must not have them.
- ``get_text_with_replacements``: the parent replaces the placeholder inside its ``<|vision_start|>…<|vision_end|>``
  pair. A replacement that brings its own markers (Qwen3-VL's, and images) then stands between markers no checkpoint
  was trained with; here the pair belongs to the placeholder.
- ``apply_chat_template``: the parent lets keys with value None turn texts into videos, and decodes paths by
  torchcodec only.
- saving and loading: the settings travel in ``processor_config.json``; see ``signpost`` for programs without this
  package.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin, processing_utils

from timelens_plugins.answers import text_prefix_instruction
from timelens_plugins.timestamps import encodings
from timelens_plugins.timestamps.encodings import Encoding, check_encoding, check_timestamp_format
from timelens_plugins.timestamps.messages import WINDOW_KEYS, Message, build_messages, sampling_keys, strip_none
from timelens_plugins.timestamps.overlay import draw_overlays
from timelens_plugins.timestamps.signpost import auto_map, write_signpost
from timelens_plugins.timestamps.video_inputs import TimedFrames, take_video_options, timed_videos
from timelens_plugins.video import FrameSampling, VideoClip, sample_frames

__all__ = ["InterleavedTimestampsMixin"]

SETTINGS = ("encoding", "frame_sampling", "timestamp_format")

_IMAGE_LAYOUTS = ("interleaved_timestamp", "interleaved_index")
_OVERLAYS = ("overlay_timestamp", "overlay_index")
_NATIVE_MARKER = re.compile(r"<\d+\.\d seconds>")

# With `sanitize_control_tokens`, transformers marks control tokens that a user wrote by a character before them.
_UNMARKED: str = getattr(processing_utils, "_UNMARKED", "")

# Keys under which images made of frames travel through the parent's call, beside the user's own images.
_FRAME_PIXELS, _FRAME_GRIDS, _FRAME_COUNTS = "frame_pixel_values", "frame_grid_thw", "frame_counts"


class InterleavedTimestampsMixin(ProcessorMixin):
    """Time encodings for the processors of Qwen-like models, as the first of two base classes::

        class MyProcessor(InterleavedTimestampsMixin, Qwen2_5_VLProcessor): ...

    Called like any transformers processor::

        processor(text=[...], videos=[clip, ...], padding=True, padding_side="left", return_tensors="pt")
        processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")

    A video is a ``VideoClip``, a path (sampled under :attr:`frame_sampling`), or frames with ``video_metadata``.
    Frames of unknown times are an error. Frames are never resized or sampled again: pixels, grids and ids of
    ``native`` equal those of qwen-vl-utils and the parent with ``do_resize=False, do_sample_frames=False``.

    Args:
        image_processor, tokenizer, video_processor, chat_template: as the parent's.
        encoding: one of :data:`ENCODINGS`; :attr:`default_encoding` where None.
        frame_sampling: frame rate and pixel budget for paths, as ``FrameSampling`` or as a dict of its fields; patch
            and merge size default to the video processor's.
        timestamp_format: text before each frame of ``interleaved_timestamp``, with ``{t}`` in seconds.

    Raises:
        ValueError: an unknown encoding or a sampling field that does not exist or does not fit the video processor.
    """

    default_encoding: ClassVar[Encoding] = "interleaved_timestamp"
    image_token: str
    video_token: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # AutoProcessor looks up saved class names among the registered values; no config class is claimed.
        AutoProcessor.register(cls, cls, exist_ok=True)

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        video_processor: Any = None,
        chat_template: Any = None,
        encoding: str | None = None,
        frame_sampling: FrameSampling | dict[str, Any] | None = None,
        timestamp_format: str = encodings.TIMESTAMP_FORMAT,
    ) -> None:
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template)
        self.configure(
            encoding=encoding or self.default_encoding,
            frame_sampling=frame_sampling or {},
            timestamp_format=timestamp_format,
        )

    # ------------------------------------------------------------------ settings

    def configure(
        self,
        *,
        encoding: str | None = None,
        frame_sampling: FrameSampling | dict[str, Any] | None = None,
        timestamp_format: str | None = None,
    ) -> Self:
        """Change settings in place; what is None, or not in a dict of sampling fields, stays. Returns the processor."""
        if encoding is not None:
            self.encoding = check_encoding(encoding)
        if timestamp_format is not None:
            self.timestamp_format = check_timestamp_format(timestamp_format)
        if frame_sampling is not None:
            self.frame_sampling = self._sampling(frame_sampling)
        return self

    def _sampling(self, given: FrameSampling | dict[str, Any]) -> FrameSampling:
        sizes = {"patch_size": self.video_processor.patch_size, "merge_size": self.video_processor.merge_size}
        if isinstance(given, dict):
            if unknown := sorted(set(given) - set(sampling_keys())):
                raise ValueError(f"unknown video setting {', '.join(unknown)}; known: {', '.join(sampling_keys())}")
            given = replace(getattr(self, "frame_sampling", FrameSampling(**sizes)), **given)
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
        return saved | {"frame_sampling": asdict(self.frame_sampling), "auto_map": auto_map(type(self))}

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
        """The parent's; settings given here replace the saved ones and do not leak into the tokenizer's."""
        settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        processor: Self = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        return processor.configure(**settings)

    # ------------------------------------------------------------------ conversations

    def grounding_messages(
        self,
        video: VideoClip | str | PathLike[str],
        query: str,
        *,
        video_start: float | None = None,
        video_end: float | None = None,
    ) -> list[Message]:
        """:func:`build_messages` in this processor's encoding."""
        return build_messages(video, query, self.encoding, video_start=video_start, video_end=video_end)

    def apply_chat_template(  # type: ignore[override]
        self,
        conversation: Any,
        chat_template: str | None = None,
        tools: Any = None,
        documents: Any = None,
        *,
        tokenize: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The parent's, on message parts without None values and, where it tokenizes, with the videos decoded.

        A part ``{"type": "video", "video": path}`` may hold ``video_start`` and ``video_end`` in seconds, and fields of
        ``FrameSampling`` that differ from :attr:`frame_sampling`.
        """
        conversation = strip_none(conversation)
        if tokenize:
            conversation = self._decoded(conversation)
        return super().apply_chat_template(conversation, chat_template, tools, documents, tokenize=tokenize, **kwargs)

    def _decoded(self, conversation: Any) -> Any:
        if isinstance(conversation, list):
            return [self._decoded(item) for item in conversation]
        if not isinstance(conversation, dict) or not isinstance(conversation.get("content"), list):
            return conversation
        return {**conversation, "content": [self._decoded_part(part) for part in conversation["content"]]}

    def _decoded_part(self, part: Any) -> Any:
        if not isinstance(part, dict) or part.get("type") != "video":
            return part
        options = {key: value for key, value in part.items() if key not in ("type", "video", "url", "path")}
        if unknown := sorted(set(options) - {*WINDOW_KEYS, *sampling_keys()}):
            raise ValueError(
                f"a video part has unknown keys {', '.join(unknown)}; known besides the video: "
                f"{', '.join((*WINDOW_KEYS, *sampling_keys()))}"
            )
        source = next((part[key] for key in ("video", "url", "path") if key in part), None)
        if not isinstance(source, str | PathLike):
            if options:
                raise ValueError(f"a video part with {', '.join(options)} needs a path, got a {type(source).__name__}")
            return part
        window = {key: options.pop(key) for key in WINDOW_KEYS if key in options}
        return {"type": "video", "video": sample_frames(source, self._sampling(options), **window)}

    # ------------------------------------------------------------------ the call

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Text, ids and vision tensors of prompts with videos; see the class for what a video may be.

        Raises:
            ValueError: frames of unknown times, frames of a wrong size, as many placeholders as videos not found, or an
                option that would sample or resize frames again.
        """
        if videos is None:
            return super().__call__(images=images, text=text, audio=audio, **kwargs)
        metadata = take_video_options(kwargs)
        timed = timed_videos(videos, metadata, self.frame_sampling)
        if text is None and self.encoding != "native":
            raise ValueError(f"encoding {self.encoding!r} writes into the prompt; pass text as well")
        prompts = [text] if isinstance(text, str) else list(text or [])
        output = super().__call__(
            images=images,
            text=text,
            videos=[video.frames for video in timed],
            audio=audio,
            video_metadata=[video.metadata for video in timed],
            **kwargs,
        )
        return self._merge_images(output, prompts)

    def prompt_times(self, clip: VideoClip) -> list[float]:
        """Seconds, ascending: the times a model is told of this clip, before rounding to one decimal.

        The first frame's of each pair for ``interleaved_*``, the mean of each pair's for ``native``, every frame's
        else. What :func:`snap_spans` needs.
        """
        times = [float(t) for t in clip.times]
        step = self.video_processor.temporal_patch_size
        if self.encoding in _IMAGE_LAYOUTS:
            return encodings.block_times(times, step)
        if self.encoding == "native":
            return [(pair[0] + pair[-1]) / 2 for pair in (times[i : i + step] for i in range(0, len(times), step))]
        return times

    def drawn_frames(self, frames: Tensor, times: Sequence[float]) -> Tensor:
        """Frames ``(T, 3, H, W)`` as the model sees them: with their times in seconds drawn on, for ``overlay_*``."""
        if self.encoding not in _OVERLAYS:
            return frames
        return draw_overlays(frames, encodings.overlay_texts(self.encoding, times))

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        timed = [TimedFrames(f, m) for f, m in zip(videos, kwargs["video_metadata"], strict=True)]
        if self.encoding in _IMAGE_LAYOUTS:
            return self._process_as_images(timed, **kwargs)
        videos = [self.drawn_frames(v.frames, v.times) for v in timed]
        if "cap_pixels_per_frame" in self.video_processor.valid_kwargs.__annotations__:
            kwargs.setdefault("cap_pixels_per_frame", False)  # silences a warning about resizing, which is off
        processed, texts = super()._process_videos(videos, **kwargs)
        texts = [self._with_markers(text) for text in texts]
        if self.encoding == "text_prefix":
            texts = [text_prefix_instruction(v.times, v.duration) + text for v, text in zip(timed, texts, strict=True)]
        return processed, texts

    def _process_as_images(self, videos: list[TimedFrames], **kwargs: Any) -> tuple[Any, list[str]]:
        """One image per frame pair, its first frame, which the image processor repeats to fill the temporal patch."""
        step = self.video_processor.temporal_patch_size
        passed = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "device")
        options = {name: kwargs[name] for name in passed if kwargs.get(name) is not None}
        merge = self.image_processor.merge_size**2
        pixels, grids, texts = [], [], []
        for video in videos:
            images = self.image_processor(list(video.frames[::step]), do_resize=False, return_tensors="pt", **options)
            times = encodings.block_times(video.times, step)
            captions = encodings.interleaved_texts(self.encoding, times, self.timestamp_format)
            counts = (images["image_grid_thw"].prod(-1) // merge).tolist()
            texts.append(
                "".join(
                    caption + self._with_markers(self.image_token * count)
                    for caption, count in zip(captions, counts, strict=True)
                )
            )
            pixels.append(images["pixel_values"])
            grids.append(images["image_grid_thw"])
        processed = {
            _FRAME_PIXELS: torch.cat(pixels),
            _FRAME_GRIDS: torch.cat(grids),
            _FRAME_COUNTS: [len(grid) for grid in grids],
            "video_metadata": [video.metadata for video in videos],
        }
        return processed, texts

    def replace_video_token(self, video_inputs: dict[str, Any], video_idx: int, **kwargs: Any) -> str:
        """The parent's text for one video, without time markers where the encoding brings the times by other means."""
        text: str = super().replace_video_token(video_inputs, video_idx, **kwargs)
        return text if self.encoding == "native" else _NATIVE_MARKER.sub("", text)

    # ------------------------------------------------------------------ placeholders

    @property
    def _vision_markers(self) -> tuple[str, str]:
        return getattr(self, "vision_start_token", "<|vision_start|>"), getattr(
            self, "vision_end_token", "<|vision_end|>"
        )

    def _with_markers(self, pads: str) -> str:
        start, end = self._vision_markers
        return pads if start in pads else start + pads + end

    @property
    def _placeholder(self) -> re.Pattern[str]:
        """An image or video placeholder, the latter with the marker pair around it."""
        start, end = map(re.escape, self._vision_markers)
        video, image = re.escape(self.video_token), re.escape(self.image_token)
        return re.compile(f"{_UNMARKED}(?:(?P<video>{start}{video}{end}|{video})|(?P<image>{image}))")

    def get_text_with_replacements(
        self,
        text: list[str],
        images_replacements: Sequence[str] = (),
        videos_replacements: Sequence[str] = (),
        audio_replacements: Sequence[str] = (),
    ) -> tuple[list[str], list[Any]]:
        """The parent's, but a video's replacement takes the place of the marker pair as well."""
        waiting = {"image": iter(images_replacements), "video": iter(videos_replacements)}
        expanded, offsets = [], []
        for prompt in text:
            pieces, found, length, last = [], [], 0, 0
            for match in self._placeholder.finditer(prompt):
                kind = match.lastgroup
                assert kind is not None
                replacement = next(waiting[kind], None)
                if replacement is None:
                    continue
                before = prompt[last : match.start()]
                pieces += [before, replacement]
                length += len(before)
                found.append(
                    {
                        "type": kind,
                        "span": match.span(),
                        "new_span": (length, length + len(replacement)),
                        "text": match.group(),
                        "replacement": replacement,
                    }
                )
                length += len(replacement)
                last = match.end()
            expanded.append("".join([*pieces, prompt[last:]]))
            offsets.append(found)
        return expanded, offsets

    def _merge_images(self, output: BatchFeature, prompts: list[str]) -> BatchFeature:
        """Puts images made of frames among the user's own, in the order of the prompts."""
        if _FRAME_PIXELS not in output:
            return output
        pixels, grids = output.pop(_FRAME_PIXELS), output.pop(_FRAME_GRIDS)
        counts = torch.as_tensor(output.pop(_FRAME_COUNTS)).tolist()
        if "pixel_values" in output:
            own_grids = torch.as_tensor(output["image_grid_thw"])
            own_pixels = iter(torch.as_tensor(output["pixel_values"]).split(own_grids.prod(-1).tolist()))
            frame_grids = iter(grids.split(counts))
            frame_pixels = iter(pixels.split([int(grid.prod(-1).sum()) for grid in grids.split(counts)]))
            sources = {"image": (own_pixels, iter(own_grids.split(1))), "video": (frame_pixels, frame_grids)}
            order = [match.lastgroup for prompt in prompts for match in self._placeholder.finditer(prompt)]
            merged = [tuple(map(next, sources[str(kind)])) for kind in order]
            pixels, grids = (torch.cat(tensors) for tensors in zip(*merged, strict=True))
        output["pixel_values"], output["image_grid_thw"] = pixels, grids
        return output
