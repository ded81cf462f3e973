"""The conversation that asks a model for an event, the same for evaluation and training."""

from __future__ import annotations

from os import PathLike
from typing import Any

from timelens_plugins.answers import grounding_prompt
from timelens_plugins.timestamps.encodings import Encoding
from timelens_plugins.video import FrameSampling, VideoClip

__all__ = ["WINDOW_KEYS", "build_messages", "strip_none"]

Message = dict[str, Any]

WINDOW_KEYS = ("video_start", "video_end")
"""Optional keys of a video part: the window of the file to show, in seconds. Times are counted from its start."""


def build_messages(
    video: VideoClip | str | PathLike[str],
    query: str,
    encoding: Encoding = "native",
    *,
    video_start: float | None = None,
    video_end: float | None = None,
) -> list[Message]:
    """One user turn: the video, then the benchmark's prompt for ``query`` in the wording the encoding needs. No
    system turn.

    Args:
        video: a clip, or a path (decoded by the processor; the right thing in dataset rows).
        query: the sentence that describes the event.
        encoding: of the processor that will read the messages.
        video_start, video_end: window of the file in seconds; only for a path.
    """
    part: Message = {"type": "video", "video": video if isinstance(video, VideoClip) else str(video)}
    window = {"video_start": video_start, "video_end": video_end}
    if isinstance(video, VideoClip) and window != {"video_start": None, "video_end": None}:
        raise ValueError("video_start and video_end choose a window of a file; a VideoClip is one already")
    part |= {key: value for key, value in window.items() if value is not None}
    return [{"role": "user", "content": [part, {"type": "text", "text": grounding_prompt(query, encoding)}]}]


def strip_none(conversation: Any) -> Any:
    """A copy of one conversation, or a batch of them, without the keys of message parts whose value is None.

    Datasets stored with Arrow give every part the keys of all parts. Chat templates ask ``'video' in part``, so a
    text part with ``video: None`` would turn into a video.
    """
    if isinstance(conversation, list | tuple):
        return [strip_none(item) for item in conversation]
    if not isinstance(conversation, dict) or not isinstance(conversation.get("content"), list | tuple):
        return conversation
    parts = [
        {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else part
        for part in conversation["content"]
    ]
    return {**conversation, "content": parts}


def sampling_keys() -> tuple[str, ...]:
    """Keys a video part may carry to sample it differently from the processor's setting."""
    return tuple(FrameSampling.__dataclass_fields__)
