"""From rows of the data set to groups with a prompt: clips read ahead, and a stand-in for those that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from timelens_plugins.grpo.groups import Group
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.timestamps import InterleavedTimestampsMixin
from timelens_plugins.training.clips import ClipKey, ClipLoader
from timelens_plugins.video import VideoClip

__all__ = ["PromptSource", "black_prompt", "clip_of"]


class PromptSource:
    """Makes groups of rows, from clips that are decoded ahead of their use.

    Args:
        clips: reads and skips videos.
        generations: G, how often a prompt comes in a row in training batches.
    """

    def __init__(self, clips: ClipLoader, generations: int) -> None:
        self.clips = clips
        self._generations = generations
        # The clips of generation batches that were announced and not yet used. Without their order: a batch that is
        # restored from a checkpoint was shuffled after it was announced.
        self._waiting: list[Counter[ClipKey]] = []
        self._latest: list[Any] | None = None
        self._stand_in: Prompt | None = None

    def announce(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A data collator: passes the rows on, and has their clips read."""
        prompts = [row["prompt"] for row in rows[:: self._generations]]
        if prompts != self._latest:  # a generation batch comes once for every part that is used of it
            self._latest = prompts
            clips = [clip_of(prompt) for prompt in prompts]
            self._waiting.append(Counter(clips))
            self.clips.request(clips)
        return rows

    def expect(self, prompts: list[Any]) -> None:
        """These prompts come now: their clips are requested, unless that was done ahead.

        Batches that were announced before theirs will not come any more, and their clips are let go.
        """
        clips = [clip_of(prompt) for prompt in prompts]
        try:
            place = self._waiting.index(Counter(clips))
        except ValueError:
            self.clips.request(clips)
            return
        for passed in self._waiting[:place]:
            self.clips.withdraw(passed.elements())
        del self._waiting[: place + 1]

    def group(self, row: Mapping[str, Any]) -> Group:
        """The group of a row that was announced or expected.

        Raises:
            VideoError: the video cannot be read, and the clip loader was told not to skip.
        """
        key = clip_of(row["prompt"])
        clip = self.clips.take(key)
        if clip is not None:
            return Group(row, clip.prompt(row["prompt"]), clip.times)
        if self._stand_in is None:
            self._stand_in = black_prompt(self.clips.processor)
        return Group(row, self._stand_in, error=f"{key.video}: {self.clips.skipped[key.video]}")

    def clear(self) -> None:
        """Let go of what was announced and will not be used."""
        self._waiting.clear()
        self._latest = None
        self.clips.clear()


def clip_of(prompt: Sequence[Mapping[str, Any]]) -> ClipKey:
    """The clip of a conversation with one video, given as a path.

    Raises:
        ValueError: another number of videos, or one that is not a path.
    """
    parts = [p for m in prompt if not isinstance(m["content"], str) for p in m["content"] if p.get("type") == "video"]
    if len(parts) != 1 or not isinstance(parts[0].get("video"), str):
        raise ValueError(f"a prompt must hold one video, given as a path; got {parts} in {prompt}")
    return ClipKey(parts[0]["video"], parts[0].get("video_start"), parts[0].get("video_end"))


def black_prompt(processor: InterleavedTimestampsMixin) -> Prompt:
    """The smallest prompt with a video.

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
    messages = processor.grounding_messages(clip, "nothing")
    chat = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return Prompt.from_inputs(processor(text=[chat], videos=[clip], return_tensors="pt"))
