"""The processor mixin: frames with times in; text, ids and vision tensors out, in any of the time encodings.

It overrides these methods of transformers' ``ProcessorMixin``; everything else is the parent's:

- ``__call__``: the parent guesses 24 fps where times are unknown, resizes frames once more, and ignores options.
  Here every video is made of frames of the final size with known times first, and images made of frames are put
  among the user's own afterwards.
- ``_process_videos``: the parent knows one layout per family; here the encoding decides.
- ``replace_video_token``: Qwen3-VL's writes its time markers always; some encodings must not have them.
- ``get_text_with_replacements``: the parent replaces the placeholder inside its ``<|vision_start|>…<|vision_end|>``
  pair. A replacement that brings its own markers (Qwen3-VL's, and images) then stands between markers no checkpoint
  was trained with; here the pair belongs to the placeholder.
- ``apply_chat_template``: the parent lets keys with value None turn texts into videos, leaves out message parts of an
  unknown type, takes control tokens in texts for its own, decodes paths by torchcodec only, and from 5.24 on turns
  clips into dicts.
- saving and loading: see ``settings``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from timelens_plugins.encodings.messages import (
    SOURCE_KEYS,
    WINDOW_KEYS,
    Message,
    build_messages,
    check_parts,
    sampling_keys,
    strip_none,
)
from timelens_plugins.encodings.options import take_call_options
from timelens_plugins.encodings.overlay import draw_overlays
from timelens_plugins.encodings.plain_text import PlainTextTokenizer, broken_control_tokens, has_broken_tokens
from timelens_plugins.encodings.settings import THINKING, SavedSettings
from timelens_plugins.encodings.video_inputs import HeldClip, TimedFrames, timed_videos
from timelens_plugins.video import VideoClip, sample_frames

__all__ = ["InterleavedTimestampsMixin"]


# Releases before this method count the mask's places in the text before videos are put into it.
_MASKS_FOLLOW_VIDEOS = hasattr(ProcessorMixin, "_adjust_assistant_masks_indices")

_OPENED_THOUGHT = re.compile(r"<think>\s*\Z")

# Keys under which images made of frames travel through the parent's call, beside the user's own images.
_FRAME_PIXELS, _FRAME_GRIDS, _FRAME_COUNTS = "frame_pixel_values", "frame_grid_thw", "frame_counts"


class InterleavedTimestampsMixin(SavedSettings):
    """Time encodings for processors of vision-language models, as the first of two base classes::

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
        prompt: text that asks for ``{query}``, which the model was trained with; by default the benchmark's.
        thinking: whether a chat template with a thinking mode lets the model think before it answers.

    Raises:
        ValueError: an unknown encoding, a sampling field that does not exist or does not fit the video processor, or
            thinking that the chat template does not know.
    """

    time_marker: ClassVar[re.Pattern[str]] = re.compile(r"<\d+\.\d seconds>")
    """The time that the family writes beside each frame pair."""
    marks_first_frame: ClassVar[bool] = False
    """Whether that time is the first frame's of a pair, and not the mean of both."""
    image_markers: ClassVar[tuple[str, str] | None] = None
    """What stands around an image, where that is not what stands around a video."""
    image_token: str
    video_token: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # AutoProcessor looks up saved class names among the registered values; no config class is claimed.
        AutoProcessor.register(cls, cls, exist_ok=True)

    # ------------------------------------------------------------------ conversations

    def grounding_messages(
        self,
        video: VideoClip | str | PathLike[str],
        query: str,
        *,
        video_start: float | None = None,
        video_end: float | None = None,
    ) -> list[Message]:
        """:func:`build_messages` in this processor's encoding, by its prompt."""
        return build_messages(
            video, query, self.encoding, video_start=video_start, video_end=video_end, prompt=self.prompt
        )

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
        ``FrameSampling`` that differ from :attr:`frame_sampling`. Control tokens in texts stay text, see
        ``plain_text``: what the parent does if ``sanitize_control_tokens`` is set is done always. A template with a
        thinking mode, which is on by itself in Qwen3.5's, is told :attr:`thinking`.

        Raises:
            ValueError: message parts of an unknown type or with unknown keys.
        """
        if kwargs.pop("sanitize_control_tokens", True) is not True:
            raise ValueError("sanitize_control_tokens=False: texts never write control tokens here")
        if kwargs.get("return_assistant_tokens_mask") and not _MASKS_FOLLOW_VIDEOS:
            raise ValueError("return_assistant_tokens_mask: this transformers misplaces the mask after a video")
        if self.has_thinking_mode(chat_template or self.chat_template):
            kwargs.setdefault(THINKING, self.thinking)
        conversation = strip_none(conversation)
        check_parts(conversation)
        conversation = broken_control_tokens(conversation, self.tokenizer)
        conversation = self._with_clips(conversation, decode=tokenize)
        return super().apply_chat_template(conversation, chat_template, tools, documents, tokenize=tokenize, **kwargs)

    @property
    def opened_thought(self) -> str:
        """What a generation prompt ends with of the answer: ``<think>`` where the chat template opens a thought."""
        asked = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]
        opened = _OPENED_THOUGHT.search(self.apply_chat_template(asked, add_generation_prompt=True))
        return opened[0] if opened else ""

    def answer_texts(self, completions: Sequence[Sequence[int] | Tensor]) -> list[str]:
        """What a model wrote, without special tokens, behind :attr:`opened_thought`: a thought that breaks off before
        its end is one then, and no answer."""
        opened = self.opened_thought
        return [opened + text for text in self.batch_decode(completions, skip_special_tokens=True)]

    def _with_clips(self, conversation: Any, *, decode: bool) -> Any:
        if isinstance(conversation, list):
            return [self._with_clips(item, decode=decode) for item in conversation]
        if not isinstance(conversation, dict) or not isinstance(conversation.get("content"), list):
            return conversation
        parts = [self._with_clip(part, decode) if part["type"] == "video" else part for part in conversation["content"]]
        return {**conversation, "content": parts}

    def _with_clip(self, part: dict[str, Any], decode: bool) -> dict[str, Any]:
        options = {key: value for key, value in part.items() if key in (*WINDOW_KEYS, *sampling_keys())}
        source = next((part[key] for key in SOURCE_KEYS if key in part), None)
        if isinstance(source, VideoClip):
            source = HeldClip(source)
        if not isinstance(source, str | PathLike):
            if options:
                raise ValueError(f"a video part with {', '.join(options)} needs a path, got a {type(source).__name__}")
            if decode and source is None:
                raise ValueError(f"a video part without a video: {part}")
            return part if source is None else {"type": "video", "video": source}
        if not decode:
            return part
        window = {key: options.pop(key) for key in WINDOW_KEYS if key in options}
        return {"type": "video", "video": HeldClip(sample_frames(source, self.changed_sampling(options), **window))}

    # ------------------------------------------------------------------ the call

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **kwargs: Any
    ) -> BatchFeature:
        """Text, ids and vision tensors of prompts with videos; see the class for what a video may be.

        Raises:
            ValueError: frames of unknown times, frames of a wrong size, as many placeholders as videos not found, or an
                option that does not exist or would sample or resize frames again.
        """
        if has_broken_tokens(text) and not isinstance(self.tokenizer, PlainTextTokenizer):
            plain = copy.copy(self)
            plain.tokenizer = PlainTextTokenizer(self.tokenizer)
            return plain(images=images, text=text, videos=videos, audio=audio, **kwargs)
        if audio is not None:
            raise ValueError(f"{type(self).__name__} takes no audio")
        metadata = take_call_options(self, kwargs, videos=videos is not None)
        prompts = [text] if isinstance(text, str) else list(text or [])
        timed = [] if videos is None else timed_videos(videos, metadata, self.frame_sampling)
        if text is not None:
            self._check_placeholders(prompts, len(timed))
        if videos is None:
            return super().__call__(images=images, text=text, **kwargs)
        if text is None and not self.time_encoding.family_markers:
            raise ValueError(f"encoding {self.encoding!r} writes into the prompt; pass text as well")
        output = super().__call__(
            images=images,
            text=text,
            videos=[video.frames for video in timed],
            video_metadata=[video.metadata for video in timed],
            **kwargs,
        )
        return self._merge_images(output, prompts)

    def prompt_times(self, clip: VideoClip) -> list[float]:
        """Seconds, ascending: the times a model is told of this clip, before rounding to one decimal.

        The first frame's of each pair for ``interleaved_*``, the family's own for ``native`` (the mean of each pair's,
        or the first frame's), every frame's else. What :func:`snap_spans` needs.
        """
        times = [float(t) for t in clip.times]
        step = self.video_processor.temporal_patch_size
        return self.time_encoding.told_times(times, step, marks_first_frame=self.marks_first_frame)

    def drawn_frames(self, frames: Tensor, times: Sequence[float]) -> Tensor:
        """Frames ``(T, 3, H, W)`` as the model sees them: with their times in seconds drawn on, for ``overlay_*``."""
        texts = self.time_encoding.drawn_texts(times)
        return frames if texts is None else draw_overlays(frames, texts)

    def _process_videos(self, videos: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        timed = [TimedFrames(f, m) for f, m in zip(videos, kwargs["video_metadata"], strict=True)]
        timed = [replace(video, frames=self.drawn_frames(video.frames, video.times)) for video in timed]
        encoding = self.time_encoding
        if encoding.as_images:
            processed, texts = self._process_as_images(timed, **kwargs)
        else:
            if "cap_pixels_per_frame" in self.video_processor.valid_kwargs.__annotations__:
                kwargs.setdefault("cap_pixels_per_frame", False)  # silences a warning about resizing, which is off
            processed, texts = super()._process_videos([video.frames for video in timed], **kwargs)
            texts = [self._with_markers(text) for text in texts]
        if encoding.before_video is not None:
            texts = [encoding.before_video(v.times, v.duration) + text for v, text in zip(timed, texts, strict=True)]
        return processed, texts

    def _process_as_images(self, videos: list[TimedFrames], **kwargs: Any) -> tuple[Any, list[str]]:
        """One image per frame pair, its first frame, which the image processor repeats to fill the temporal patch."""
        step = self.video_processor.temporal_patch_size
        passed = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "device")
        options = {name: kwargs[name] for name in passed if kwargs.get(name) is not None}
        merge = self.image_processor.merge_size**2
        start, end = self._image_markers
        pixels, grids, texts = [], [], []
        for video in videos:
            images = self.image_processor(list(video.frames[::step]), do_resize=False, return_tensors="pt", **options)
            captions = self.time_encoding.image_texts(video.times[::step], self.timestamp_format)
            counts = (images["image_grid_thw"].prod(-1) // merge).tolist()
            texts.append(
                "".join(
                    caption + start + self.image_token * count + end
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
        return text if self.time_encoding.family_markers else self.time_marker.sub("", text)

    # ------------------------------------------------------------------ placeholders

    @property
    def placeholder(self) -> str:
        """What the chat template writes for a video, and this processor replaces."""
        start, end = self._vision_markers
        return start + self.video_token + end

    @property
    def vision_end(self) -> str:
        """The token behind the last vision token of a clip, which no text token crosses."""
        return self._image_markers[1] if self.time_encoding.as_images else self._vision_markers[1]

    @property
    def block_breaks(self) -> re.Pattern[str]:
        """The places in a prompt between what belongs to one frame pair and what follows, for display."""
        behind = rf"(?<={re.escape(self.vision_end)})(?!$)"
        if self.image_markers is None or self.time_encoding.as_images:
            return re.compile(behind)
        within, before = map(re.escape, (self._vision_markers[0], self.image_markers[0]))
        return re.compile(rf"(?<!{within})(?={before})|{behind}")

    @property
    def _vision_markers(self) -> tuple[str, str]:
        return getattr(self, "vision_start_token", "<|vision_start|>"), getattr(
            self, "vision_end_token", "<|vision_end|>"
        )

    @property
    def _image_markers(self) -> tuple[str, str]:
        return self.image_markers or self._vision_markers

    def _with_markers(self, pads: str) -> str:
        start, end = self._vision_markers
        return pads if start in pads else start + pads + end

    @property
    def _placeholders(self) -> re.Pattern[str]:
        """An image or video placeholder, the latter with the marker pair around it."""
        start, end = map(re.escape, self._vision_markers)
        video, image = re.escape(self.video_token), re.escape(self.image_token)
        return re.compile(f"(?P<video>{start}{video}{end}|{video})|(?P<image>{image})")

    def _check_placeholders(self, prompts: list[str], videos: int) -> None:
        found = sum(match.lastgroup == "video" for prompt in prompts for match in self._placeholders.finditer(prompt))
        if found and not videos:
            raise ValueError(f"Found total {found} video placeholders in the text, but no videos were passed")
        if found != videos:
            raise ValueError(
                f"Found total {found} video placeholders in the text and {videos} videos; there must be as many"
            )

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
            for match in self._placeholders.finditer(prompt):
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
            order = [match.lastgroup for prompt in prompts for match in self._placeholders.finditer(prompt)]
            merged = [tuple(map(next, sources[str(kind)])) for kind in order]
            pixels, grids = (torch.cat(tensors) for tensors in zip(*merged, strict=True))
        output["pixel_values"], output["image_grid_thw"] = pixels, grids
        return output
