"""A prompt as text that a person can read, with the figures behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import InterleavedTimestampsMixin, processor_class
from timelens_plugins.families import find_family
from timelens_plugins.families.tiny import build_processor
from timelens_plugins.video import VideoClip

__all__ = ["PairRow", "PromptView", "shorten_pads", "stand_in_processor", "view_prompt"]

_LINE_BREAK_MARK = "⏎"


@dataclass(frozen=True)
class PairRow:
    """One frame pair, the unit of vision tokens.

    Attributes:
        frames: numbers of its frames in the file.
        times: seconds of its frames.
        seen: whether each frame's pixels reach the model; ``interleaved_*`` show the first frame of a pair only.
        tokens: vision tokens.
    """

    frames: tuple[int, ...]
    times: tuple[float, ...]
    seen: tuple[bool, ...]
    tokens: int


@dataclass(frozen=True)
class PromptView:
    """What a processor makes of a clip and a query."""

    clip: VideoClip
    processor: InterleavedTimestampsMixin
    ids: tuple[int, ...]
    vision_tokens: int
    second_per_grid: float | None
    pairs: tuple[PairRow, ...]

    @property
    def text(self) -> str:
        """The prompt decoded, runs of pads as one with a count."""
        return shorten_pads(self.processor, self.processor.tokenizer.decode(list(self.ids)))

    def report(self, note: str = "", every_pair: bool = False) -> Iterator[str]:
        """Lines to print; long tables are cut unless ``every_pair``. ``note`` says where the processor comes from."""
        clip, sampling = self.clip, self.processor.frame_sampling
        count, _, height, width = clip.frames.shape
        source = f"{clip.duration:.2f} s, {clip.total_frames} frames at {clip.fps:.3f} fps, read by {clip.backend}"
        yield f"video     {Path(clip.path).name}: {source}"
        if clip.video_start:
            yield f"          a window from {clip.video_start:.2f} s of the file; times are counted from there"
        yield f"sampled   {count} frames of {width}x{height} pixels, {clip.sample_fps:.2f} a second"
        yield f"          (asked: {sampling.fps:g} a second, {sampling.min_frames} to {sampling.max_frames} frames)"
        yield f"tokens    {len(self.ids)}: {self.vision_tokens} vision, {len(self.ids) - self.vision_tokens} text"
        share = self.vision_tokens / sampling.total_tokens
        over = ", more because min_tokens wins" if share > 1 else ""
        each = self.pairs[0].tokens
        yield f"budget    {share:.0%} of {sampling.total_tokens} vision tokens{over}; {each} a frame pair"
        yield f"encoding  {self.processor.encoding}, {type(self.processor).__name__}, times by {sampling.times}"
        if self.second_per_grid is not None:
            yield f"          rotary positions: {self.second_per_grid:.4f} s a frame pair"
        if note:
            yield f"note      {note}"
        yield ""
        yield f"prompt as the model sees it ({_LINE_BREAK_MARK} is a line break; other breaks are for reading)"
        yield from (f"  {line}" for line in _display_lines(self.text, self.processor.block_breaks))
        yield ""
        yield "pair  frames         seconds          vision tokens"
        yield from self._table(every_pair)

    def _table(self, every_pair: bool) -> Iterator[str]:
        head, tail = 20, 4
        hidden = 0 if every_pair else max(0, len(self.pairs) - head - tail)
        for number, row in enumerate(self.pairs, start=1):
            if hidden and number == head + 1:
                yield f"   …  {hidden} more pairs, shown with --all"
            if hidden and head < number <= head + hidden:
                continue
            frames = ", ".join(map(str, row.frames))
            seconds = zip(row.times, row.seen, strict=True)
            times = ", ".join(f"{time:.2f}" if seen else f"({time:.2f})" for time, seen in seconds)
            yield f"{number:>4}  {frames:<13}  {times:<15}  {row.tokens:>6}"
        if not all(seen for row in self.pairs for seen in row.seen):
            yield "Frames in brackets are not shown to the model: this encoding repeats the first one of each pair."


def view_prompt(processor: InterleavedTimestampsMixin, clip: VideoClip, query: str) -> PromptView:
    """Runs the processor on the benchmark's question about a clip."""
    prompt = load_clip(processor, clip).prompt(processor.grounding_messages(clip, query))
    images = "image_grid_thw" in prompt.vision
    merge = processor.video_processor.merge_size**2
    grids = prompt.vision["image_grid_thw" if images else "video_grid_thw"]
    per_pair = [int(h * w) // merge for t, h, w in grids.tolist() for _ in range(t)]
    step = processor.video_processor.temporal_patch_size
    numbers, times = clip.frame_indices.tolist(), clip.times.tolist()
    rows = []
    for pair, tokens in enumerate(per_pair):
        part = slice(pair * step, (pair + 1) * step)
        seen = tuple(not images or i == 0 for i in range(len(numbers[part])))
        rows.append(PairRow(tuple(numbers[part]), tuple(times[part]), seen, tokens))
    seconds = prompt.vision.get("second_per_grid_ts")
    return PromptView(
        clip=clip,
        processor=processor,
        ids=tuple(prompt.input_ids.tolist()),
        vision_tokens=int((prompt.mm_token_type_ids > 0).sum()),
        second_per_grid=None if seconds is None else float(seconds[0]),
        pairs=tuple(rows),
    )


def stand_in_processor(family: str) -> InterleavedTimestampsMixin:
    """A processor of the family over a small tokenizer trained on the spot, for looking at prompts without a
    checkpoint.

    Vision tokens, times and texts are exact; the number of text tokens is not that of the real tokenizer.
    """
    ready = processor_class(family)
    stock = build_processor(find_family(family).name)  # type: ignore[arg-type]  # one of each family is there
    return ready(
        stock.image_processor,
        stock.tokenizer,
        stock.video_processor,
        chat_template=stock.chat_template,
        encoding="native",
    )


def shorten_pads(processor: InterleavedTimestampsMixin, text: str) -> str:
    """Runs of image or video tokens as one with a count, ``×96``."""
    image, video = map(re.escape, (processor.image_token, processor.video_token))
    return re.sub(rf"({image}|{video})\1*", lambda run: f"{run[1]}×{len(run[0]) // len(run[1])}", text)


def _display_lines(text: str, breaks: re.Pattern[str]) -> Iterator[str]:
    for line in text.splitlines(keepends=True):
        yield from breaks.split(line.replace("\n", _LINE_BREAK_MARK))
