"""The prompt of a clip and a conversation: the only place that makes one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from timelens_plugins.encodings import InterleavedTimestampsMixin, tokenize_text
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.video import VideoClip

__all__ = ["LoadedClip", "black_clip", "chat_text", "load_clip"]

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class LoadedClip:
    """A clip that went through the processor once; prompts about it share its vision tensors.

    Attributes:
        processor: writes the text around the clip.
        clip: the frames.
        prefixes: text before the video -> the prompt up to the end of the video.
    """

    processor: InterleavedTimestampsMixin
    clip: VideoClip
    prefixes: dict[str, Prompt]

    @cached_property
    def times(self) -> tuple[float, ...]:
        """Seconds, ascending: the times the model is told, for :func:`~timelens_plugins.encodings.snap_spans`."""
        return tuple(self.processor.prompt_times(self.clip))

    def prompt(self, conversation: Messages) -> Prompt:
        """The generation prompt of a conversation whose one video part is this clip; ids as the processor's own.

        What follows the video starts behind a vision marker, which no token crosses, so that only text is tokenised.
        The clip goes through the processor again where something new stands before the video, such as a system turn.

        Raises:
            ValueError: not one video.
        """
        chat = chat_text(self.processor, conversation)
        head, _, tail = chat.partition(self.processor.placeholder)
        if head not in self.prefixes:
            self.prefixes[head] = _up_to_video(self.processor, self.clip, head)
        prefix = self.prefixes[head]
        ids = torch.tensor(tokenize_text(self.processor.tokenizer, tail), dtype=torch.long)
        return replace(
            prefix,
            input_ids=torch.cat([prefix.input_ids, ids]),
            mm_token_type_ids=torch.cat([prefix.mm_token_type_ids, torch.zeros_like(ids)]),
        )


def load_clip(processor: InterleavedTimestampsMixin, clip: VideoClip) -> LoadedClip:
    """A decoded clip that went through the processor, for conversations that begin with it."""
    head, *_ = chat_text(processor, [{"role": "user", "content": [{"type": "video", "video": clip}]}]).partition(
        processor.placeholder
    )
    return LoadedClip(processor, clip, {head: _up_to_video(processor, clip, head)})


def chat_text(
    processor: InterleavedTimestampsMixin, conversation: Messages, *, add_generation_prompt: bool = True
) -> str:
    """The chat template's text, with one video placeholder.

    Raises:
        ValueError: another number of videos.
    """
    chat: str = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=add_generation_prompt)
    if (videos := chat.count(processor.placeholder)) != 1:
        raise ValueError(f"expected one video in a conversation, got {videos}: {chat!r}")
    return chat


def black_clip(processor: InterleavedTimestampsMixin) -> LoadedClip:
    """Two black frames, the smallest clip that makes a prompt.

    It stands in for one that cannot be read: each process runs the same forwards, as sharded training must.
    """
    side = processor.frame_sampling.pixel_factor
    clip = VideoClip(
        path="",
        frames=torch.zeros(2, 3, side, side, dtype=torch.uint8),
        frame_indices=np.arange(2),
        times=np.array([0.0, 0.5]),
        fps=2.0,
        total_frames=2,
        duration=1.0,
        backend="none",
    )
    return load_clip(processor, clip)


def _up_to_video(processor: InterleavedTimestampsMixin, clip: VideoClip, head: str) -> Prompt:
    prompt = Prompt.from_inputs(processor(text=[head + processor.placeholder], videos=[clip], return_tensors="pt"))
    marker = processor.tokenizer.convert_tokens_to_ids(processor.vision_end)
    if int(prompt.input_ids[-1]) != marker:
        raise RuntimeError(f"a prompt that ends with a video ends with token {int(prompt.input_ids[-1])}, not {marker}")
    return prompt
