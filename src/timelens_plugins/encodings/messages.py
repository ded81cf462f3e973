"""The conversation that asks a model for an event, the same for evaluation and training."""

from __future__ import annotations

from os import PathLike
from typing import Any

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.encodings.encoding import find_encoding
from timelens_plugins.video import FrameSampling, VideoClip

__all__ = ["SOURCE_KEYS", "WINDOW_KEYS", "build_messages", "check_parts", "sampling_keys", "strip_none"]

Message = dict[str, Any]

WINDOW_KEYS = ("video_start", "video_end")
"""Optional keys of a video part: the window of the file to show, in seconds. Times are counted from its start."""

SOURCE_KEYS = ("video", "url", "path")
"""Keys of a video part that hold the video; one of them."""


def build_messages(
    video: VideoClip | str | PathLike[str],
    query: str,
    encoding: str = "native",
    *,
    video_start: float | None = None,
    video_end: float | None = None,
    question: str | None = None,
    prompt: str = GROUNDING_PROMPT,
    system: str | None = None,
) -> list[Message]:
    """One user turn: the video, then the prompt for ``query`` in the wording the encoding needs.

    Args:
        video: a clip, or a path (decoded by the processor; the right thing in dataset rows).
        query: the sentence that describes the event; not read where there is a question.
        encoding: of the processor that will read the messages.
        video_start, video_end: window of the file in seconds; only for a path.
        question: stands in place of the prompt, in data that asks in its own words.
        prompt: template with ``{query}``; by default the benchmark's.
        system: text of a system turn before it; none by default, as in the official protocol.
    """
    told = find_encoding(encoding)
    text = told.question(query, prompt) if question is None else told.preamble + question
    part: Message = {"type": "video", "video": video if isinstance(video, VideoClip) else str(video)}
    window = {"video_start": video_start, "video_end": video_end}
    if isinstance(video, VideoClip) and window != {"video_start": None, "video_end": None}:
        raise ValueError("video_start and video_end choose a window of a file; a VideoClip is one already")
    part |= {key: value for key, value in window.items() if value is not None}
    asked = [{"role": "user", "content": [part, {"type": "text", "text": text}]}]
    return asked if system is None else [{"role": "system", "content": [{"type": "text", "text": system}]}, *asked]


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


def check_parts(conversation: Any) -> None:
    """Refuses what a chat template would leave out, or take for something else, in silence.

    Args:
        conversation: one, or a batch of them, after :func:`strip_none`.

    Raises:
        ValueError: a message part of an unknown type or with unknown keys, or with several sources.
    """
    if isinstance(conversation, list | tuple):
        for item in conversation:
            check_parts(item)
    elif isinstance(conversation, dict) and isinstance(conversation.get("content"), list | tuple):
        for part in conversation["content"]:
            _check_part(part)


def _check_part(part: Any) -> None:
    known = {"text": ("text",), "image": ("image", "base64", "url", "path"), "video": SOURCE_KEYS}
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in known:
        raise ValueError(
            f"a message part of unknown type {kind!r}: {part!r}; a part is "
            '{"type": "text", "text": ...}, {"type": "video", "video": path or clip} or {"type": "image", "image": ...}'
        )
    article = "an" if kind == "image" else "a"
    options = (*WINDOW_KEYS, *sampling_keys()) if kind == "video" else ()
    if unknown := sorted(set(part) - {"type", *known[kind], *options}):
        besides = f"; known besides the {kind}: {', '.join(options)}" if options else ""
        raise ValueError(f"{article} {kind} part has unknown keys {', '.join(unknown)}{besides}")
    if len(sources := [key for key in known[kind] if key in part]) > 1:
        raise ValueError(f"{article} {kind} part has {' and '.join(sources)}; pass one of them")
    video = next((part[key] for key in sources), None)
    if kind == "video" and isinstance(video, list | tuple) and any(isinstance(item, str) for item in video):
        raise ValueError(
            f"a video part holds a list of {len(video)} file names, whose times are unknown; pass the path of a video, "
            "or a clip (timelens_plugins.video.sample_frames)"
        )
