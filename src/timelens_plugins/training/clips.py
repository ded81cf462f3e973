"""Clips made ready in the background: decoded, resized and through the processor while the model computes.

A trainer says which clips it will need (:meth:`ClipLoader.request`) and takes them when it needs them
(:meth:`ClipLoader.take`). Each clip is read once while it is wanted, however many rows want it.
"""

from __future__ import annotations

import copy
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self

import torch

from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.timestamps import InterleavedTimestampsMixin
from timelens_plugins.video import VideoClip, VideoError, sample_frames

__all__ = ["ClipKey", "ClipLoader", "LoadedClip", "OnBadVideo", "chat_text", "load_clip"]

logger = logging.getLogger(__name__)

OnBadVideo = Literal["error", "skip"]

Messages = Sequence[Mapping[str, Any]]

_PLACEHOLDER = "<|vision_start|><|video_pad|><|vision_end|>"
_CONTROL_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|image_pad|>")


class ClipKey(NamedTuple):
    """What has to be decoded: a file, or the window ``video_start..video_end`` (seconds) of it."""

    video: str
    video_start: float | None = None
    video_end: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ClipKey:
        """The clip of a row of :func:`~timelens_plugins.training.dataset.moments_dataset`."""
        return cls(row["video"], row.get("video_start"), row.get("video_end"))


@dataclass(frozen=True, eq=False)
class LoadedClip:
    """A clip that went through the processor once; prompts about it share its vision tensors.

    Attributes:
        key: what was decoded.
        times: seconds, ascending: the times the model is told, for :func:`~timelens_plugins.timestamps.snap_spans`.
        duration: seconds of the clip.
        prefix: the prompt up to the end of the video, for a conversation that begins with it.
        clip: the frames.
    """

    key: ClipKey
    times: tuple[float, ...]
    duration: float
    prefix: Prompt
    clip: VideoClip
    _processor: InterleavedTimestampsMixin
    _head: str

    def prompt(self, conversation: Messages) -> Prompt:
        """The generation prompt of a conversation whose one video part is this clip; ids as the processor's own.

        Only text is tokenised where the conversation begins with the clip's user turn, as all of
        :func:`~timelens_plugins.timestamps.build_messages` do; with anything else before the video (a system turn) the
        clip goes through the processor again.

        Raises:
            ValueError: not one video, or control tokens of the model in a text.
        """
        chat = chat_text(self._processor, conversation)
        head, _, tail = chat.partition(_PLACEHOLDER)
        prefix = self.prefix if head == self._head else make_prefix(self._processor, self.clip, head)
        return _continued(prefix, _tokenised(self._processor, tail))


class ClipLoader:
    """Reads clips ahead in threads.

    Args:
        processor: from :func:`~timelens_plugins.timestamps.load_processor`; its ``frame_sampling`` decides frames and
            pixels. Each thread works with a copy.
        workers: threads; 0 reads each clip when it is taken.
        on_bad_video: at an unreadable video :meth:`take` raises its :class:`VideoError` (``"error"``), or logs it,
            counts it and returns None (``"skip"``).
        ahead: clips held in memory, being read or read and not yet taken for the last time. Never exceeded, except by
            a clip that is taken before its turn.
        backend: as :func:`~timelens_plugins.video.sample_frames`.

    Attributes:
        skipped: path -> fault, of videos that :meth:`take` skipped.
        decoded: how many clips were read so far.
    """

    def __init__(
        self,
        processor: InterleavedTimestampsMixin,
        workers: int = 2,
        on_bad_video: OnBadVideo = "error",
        *,
        ahead: int = 4,
        backend: str = "auto",
    ) -> None:
        if on_bad_video not in ("error", "skip"):
            raise ValueError(f"on_bad_video must be 'error' or 'skip', got {on_bad_video!r}")
        if workers < 0 or ahead < 1:
            raise ValueError(f"workers must be at least 0 and ahead at least 1, got {workers} and {ahead}")
        self.processor, self.on_bad_video = processor, on_bad_video
        self.skipped: dict[str, str] = {}
        self.decoded = 0
        self._backend, self._ahead = backend, ahead
        # Fast tokenizers cannot be used, nor copied, by two threads at a time.
        self._copies = [copy.deepcopy(processor) for _ in range(workers)]
        self._wanted: OrderedDict[ClipKey, int] = OrderedDict()  # how often each clip will still be taken, in order
        self._held: dict[ClipKey, Future[LoadedClip]] = {}
        self._lock = threading.Lock()
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="clips") if workers else None

    def request(self, clips: Iterable[ClipKey | Mapping[str, Any]]) -> None:
        """Announce that each of these clips (or rows that hold one) will be taken once more, in this order."""
        with self._lock:
            for clip in clips:
                key = clip if isinstance(clip, ClipKey) else ClipKey.of(clip)
                self._wanted[key] = self._wanted.get(key, 0) + 1
            self._start_next()

    def take(self, clip: ClipKey | Mapping[str, Any]) -> LoadedClip | None:
        """The clip, once it is ready. Kept for the other takes that were requested, let go after the last.

        Returns:
            None for an unreadable video where ``on_bad_video="skip"``.

        Raises:
            VideoError: an unreadable video where ``on_bad_video="error"``.
        """
        key = clip if isinstance(clip, ClipKey) else ClipKey.of(clip)
        with self._lock:
            future = self._held.get(key) or self._start(key)
        try:
            return future.result()
        except VideoError as error:
            if self.on_bad_video == "error":
                raise
            if key.video not in self.skipped:
                logger.error("skipped: %s", error)
            self.skipped[key.video] = error.fault
            return None
        finally:
            with self._lock:
                self._wanted_once_less(key)
                self._start_next()

    def withdraw(self, clips: Iterable[ClipKey | Mapping[str, Any]]) -> None:
        """Take requests back: each of these clips will be taken once less than was announced."""
        with self._lock:
            for clip in clips:
                self._wanted_once_less(clip if isinstance(clip, ClipKey) else ClipKey.of(clip))
            self._start_next()

    def clear(self) -> None:
        """Forget what was requested and never taken, as when a loop over the data ends early."""
        with self._lock:
            for future in self._held.values():
                future.cancel()
            self._wanted.clear()
            self._held.clear()

    def close(self) -> None:
        """:meth:`clear`, and stop the threads."""
        self.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wanted_once_less(self, key: ClipKey) -> None:
        self._wanted[key] = self._wanted.get(key, 1) - 1
        if self._wanted[key] <= 0:
            del self._wanted[key]
            if (future := self._held.pop(key, None)) is not None:
                future.cancel()  # where it has not begun

    def _start_next(self) -> None:
        if self._pool is None:
            return
        for key in self._wanted:
            if len(self._held) >= self._ahead:
                return
            if key not in self._held:
                self._start(key)

    def _start(self, key: ClipKey) -> Future[LoadedClip]:
        if self._pool is not None:
            future = self._pool.submit(self._load, key)
        else:
            future = Future()
            try:
                future.set_result(self._load(key))
            except Exception as error:  # raised where the clip is taken, as a thread's would be
                future.set_exception(error)
        self._held[key] = future
        self.decoded += 1
        return future

    def _load(self, key: ClipKey) -> LoadedClip:
        clip = sample_frames(
            key.video,
            self.processor.frame_sampling,
            video_start=key.video_start,
            video_end=key.video_end,
            backend=self._backend,
        )
        if not hasattr(self._local, "processor"):
            # No more threads than copies; without threads, the caller's own.
            self._local.processor = self._copies.pop() if self._copies else self.processor
        return replace(load_clip(self._local.processor, key, clip), _processor=self.processor)


def load_clip(processor: InterleavedTimestampsMixin, key: ClipKey, clip: VideoClip) -> LoadedClip:
    """A decoded clip that went through the processor."""
    video = [{"role": "user", "content": [{"type": "video", "video": clip}]}]
    head = chat_text(processor, video).partition(_PLACEHOLDER)[0]
    return LoadedClip(
        key=key,
        times=tuple(processor.prompt_times(clip)),
        duration=clip.duration,
        prefix=make_prefix(processor, clip, head),
        clip=clip,
        _processor=processor,
        _head=head,
    )


def chat_text(
    processor: InterleavedTimestampsMixin, conversation: Messages, *, add_generation_prompt: bool = True
) -> str:
    """The chat template's text, with one video placeholder.

    Raises:
        ValueError: another number of videos, or control tokens of the model in a text.
    """
    for message in conversation:
        parts = message["content"]
        texts = [parts] if isinstance(parts, str) else [part.get("text") or "" for part in parts]
        if found := [token for token in _CONTROL_TOKENS if any(token in text for text in texts)]:
            raise ValueError(f"a text of a conversation holds {', '.join(found)}, which only the processor may write")
    chat: str = processor.apply_chat_template(conversation, tokenize=False, add_generation_prompt=add_generation_prompt)
    if chat.count(_PLACEHOLDER) != 1:
        raise ValueError(f"expected one video in a conversation, got {chat.count(_PLACEHOLDER)}: {chat!r}")
    return chat


def make_prefix(processor: InterleavedTimestampsMixin, clip: VideoClip, head: str) -> Prompt:
    """Everything up to the end of the video, whose end marker no later token crosses."""
    prompt = Prompt.from_inputs(processor(text=[head + _PLACEHOLDER], videos=[clip], return_tensors="pt"))
    marker = processor.tokenizer.convert_tokens_to_ids("<|vision_end|>")
    if int(prompt.input_ids[-1]) != marker:
        raise RuntimeError(f"a prompt that ends with a video ends with token {int(prompt.input_ids[-1])}, not {marker}")
    return prompt


def _tokenised(processor: InterleavedTimestampsMixin, text: str) -> torch.Tensor:
    return torch.tensor(processor.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=torch.long)


def _continued(prefix: Prompt, ids: torch.Tensor) -> Prompt:
    return replace(
        prefix,
        input_ids=torch.cat([prefix.input_ids, ids]),
        mm_token_type_ids=torch.cat([prefix.mm_token_type_ids, torch.zeros_like(ids)]),
    )
