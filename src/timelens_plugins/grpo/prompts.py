"""From rows of the data set to groups with a prompt: clips read ahead, and a stand-in for those that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from timelens_plugins.clips import ClipKey, ClipLoader, black_clip
from timelens_plugins.grpo.groups import Group
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.training.dataset import warn_of_target_outside

__all__ = ["PromptSource", "clip_of"]

ROUNDING = 1e-9  # seconds between a window and what a data set keeps of it in a prompt


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
        firsts = rows[:: self._generations]
        prompts = [row["prompt"] for row in firsts]
        if prompts != self._latest:  # a generation batch comes once for every part that is used of it
            self._latest = prompts
            clips = [clip_of(row) for row in firsts]
            self._waiting.append(Counter(clips))
            self.clips.request(clips)
        return rows

    def expect(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """These rows come now: their clips are requested, unless that was done ahead.

        Batches that were announced before theirs will not come any more, and their clips are let go.
        """
        clips = [clip_of(row) for row in rows]
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
        key = clip_of(row)
        clip = self.clips.take(key)
        if clip is not None:
            warn_of_target_outside(row, clip.clip.duration)
            return Group(row, clip.prompt(row["prompt"]), clip.times, clip=clip)
        if self._stand_in is None:
            black, processor = black_clip(self.clips.processor), self.clips.processor
            self._stand_in = black.prompt(processor.grounding_messages(black.clip, "nothing"))
        return Group(row, self._stand_in, error=f"{key.video}: {self.clips.skipped[key.video]}")

    def clear(self) -> None:
        """Let go of what was announced and will not be used."""
        self._waiting.clear()
        self._latest = None
        self.clips.clear()


def clip_of(row: Mapping[str, Any]) -> ClipKey:
    """The clip of a row whose prompt holds one video, given as a path.

    Its window is that of the row's own columns where it has them: a data set keeps ten decimals of the numbers in a
    prompt, and two roads to one window must not read it twice, nor differ by a frame.

    Raises:
        ValueError: another number of videos, one that is not a path, or columns that name another clip.
    """
    messages = row["prompt"]
    parts = [p for m in messages if not isinstance(m["content"], str) for p in m["content"] if p.get("type") == "video"]
    if len(parts) != 1 or not isinstance(parts[0].get("video"), str):
        raise ValueError(f"a prompt must hold one video, given as a path; got {parts} in {messages}")
    asked = ClipKey.of(parts[0])
    if not {"video", "video_start", "video_end"} <= row.keys():
        return asked
    exact = ClipKey.of(row)
    if asked.video != exact.video or not all(map(_alike, asked[1:], exact[1:])):
        raise ValueError(f"a row's prompt asks for {asked}, its columns name {exact}")
    return exact


def _alike(rounded: float | None, exact: float | None) -> bool:
    if rounded is None or exact is None:
        return rounded is exact
    return abs(rounded - exact) <= ROUNDING
