"""Training sequences straight from scenes, without files: what the base model of the demo is taught with.

Ids and pixels are those of the real processor for the same scene as an mp4 file sampled at 2 fps, up to the compression
of the file. One lesson is one conversation about one clip; only labelled tokens count in the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from timelens_plugins.answers import GROUNDING_PROMPT, format_answer
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.grounder import FRAME_SIZE
from timelens_plugins.synthetic.shapes import COLORS, SHAPES
from timelens_plugins.synthetic.world import ACTIONS, Event, Scene, place_actor, render

__all__ = ["Batch", "Lesson", "LessonWriter", "flash_scene", "frame_times", "patches"]

FPS = 2.0
FILE_FPS = 8.0
IGNORED = -100
_PATCH = 16


def frame_times(duration: float) -> NDArray[np.float64]:
    """Seconds of the frames that sampling at 2 fps takes from a file of 8 fps: evenly spread from first to last."""
    frames = round(duration * FILE_FPS)
    count = int(duration * FPS) // 2 * 2
    return np.round(np.linspace(0, frames - 1, count)) / FILE_FPS


def patches(video: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Frames in the order of Qwen3-VL's vision tower.

    Args:
        video: RGB of shape ``(frames, side, side, 3)``, an even number of frames.

    Returns:
        Shape ``(frames / 2 * (side / 16)**2, 3 * 2 * 16 * 16)``, blocks of 2 x 2 patches together.
    """
    frames, side = video.shape[:2]
    blocks = side // (2 * _PATCH)
    cut = video.reshape(frames // 2, 2, blocks, 2, _PATCH, blocks, 2, _PATCH, 3)
    # (time, frame, block row, row in block, y, block column, column in block, x, channel)
    ordered = cut.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(ordered.reshape(-1, 3 * 2 * _PATCH * _PATCH))


def flash_scene(rng: np.random.Generator, duration: int, flashes: int, noise: float = 14.0) -> Scene:
    """A scene of one-second events, each in a second of its own: many short facts to recall, none to compare."""
    looks = [(color, shape) for color in COLORS for shape in SHAPES]
    actors = []
    for look, second in zip(rng.permutation(len(looks))[:flashes], rng.permutation(duration)[:flashes], strict=True):
        color, shape = looks[look]
        span = Span(int(second), int(second) + 1)
        action = str(rng.choice(ACTIONS)) if rng.random() < 0.4 else None
        cell = int(rng.integers(4))
        actors.append(place_actor(rng, color, shape, cell, span, action, span if action else None))
    return Scene(float(duration), tuple(actors), noise, int(rng.integers(2**31)))


@dataclass
class Lesson:
    """Token ids and labels of one conversation, and the pixels of its clip.

    ``stamps`` and ``cues`` are the two halves of a look-up, for teachers that want to help with them: at each visual
    token the number of its second, and before each time to be learnt the words it is asked for.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    offset: int = 0
    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    stamps: list[tuple[int, int]] = field(default_factory=list)
    cues: list[tuple[int, list[int]]] = field(default_factory=list)

    def say(self, ids: Sequence[int], weight: float = 0.0) -> None:
        """Append tokens; with a positive weight they are to be learnt."""
        self.input_ids += ids
        self.labels += ids if weight > 0 else [IGNORED] * len(ids)
        self.weights += [weight] * len(ids)


@dataclass
class Batch:
    """Right-padded lessons as tensors of shape ``(lessons, tokens)``, and all their patches."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    pixel_values_videos: torch.Tensor
    video_grid_thw: torch.Tensor

    @property
    def position_ids(self) -> torch.Tensor:
        """``(3, lessons, tokens)``: with one visual token a patch, all three axes count tokens."""
        lessons, tokens = self.input_ids.shape
        return torch.arange(tokens).expand(3, lessons, tokens)


class LessonWriter:
    """Writes lessons in the token layout of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, special tokens included."""
        if text not in self._cache:
            self._cache[text] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._cache[text]

    def open(self, scene: Scene, offset: int = 0) -> Lesson:
        """A lesson that has shown the clip and waits for the user's text.

        All times of the lesson, those shown and those answered, are ``offset`` seconds later than in the scene.
        """
        times = frame_times(scene.duration)
        lesson = Lesson(patches(render(scene, size=FRAME_SIZE, times=times)), offset)
        lesson.say(self.ids("<|im_start|>user\n"))
        for first, second in times.reshape(-1, 2):
            stamp = f"{(first + second) / 2 + offset:.1f}"
            lesson.say(self.ids(f"<{stamp} seconds>"))
            lesson.say(self.ids("<|vision_start|><|video_pad|>"))
            lesson.stamps.append((len(lesson.input_ids) - 1, self.ids(stamp.split(".")[0])[0]))
            lesson.say(self.ids("<|vision_end|>"))
        return lesson

    def ask(self, lesson: Lesson, text: str) -> None:
        """The user's text, up to where the assistant begins."""
        if "<|im_end|>" in self.tokenizer.decode(lesson.input_ids[-2:]):
            lesson.say(self.ids("\n<|im_start|>user\n"))
        lesson.say(self.ids(text) + self.ids("<|im_end|>\n<|im_start|>assistant\n"))

    def grounding(self, lesson: Lesson, event: Event) -> None:
        """One turn of the benchmark's task."""
        self.ask(lesson, GROUNDING_PROMPT.format(query=event.query))
        start = len(lesson.input_ids)
        span = Span(event.span.start + lesson.offset, event.span.end + lesson.offset)
        lesson.say(self.ids(format_answer([span])) + self.ids("<|im_end|>"), 1.0)
        cue = self.ids(" " + event.query.split(" ", 1)[1])
        times = {self.ids(f"{t:.0f}")[0] for t in span}
        for position in range(start, len(lesson.input_ids)):
            if lesson.input_ids[position] in times:
                lesson.cues.append((position - 1, cue))

    def listing(self, lesson: Lesson, events: Sequence[Event], *, ends: bool, word_weight: float = 0.0) -> None:
        """A list of events with their times, in the order given: ``red circle appears 3 - 7;``.

        The words say what is meant; the numbers are to be learnt.
        """
        self.ask(lesson, "List the events.")
        for event in events:
            words = event.query.split(" ", 1)[1]
            lesson.say(self.ids(f" {words} "), word_weight)
            self._times(lesson, event, self.ids(f" {words}"), ends)
            lesson.say(self.ids(";"))
        lesson.say(self.ids("<|im_end|>"), word_weight)

    def question(self, lesson: Lesson, event: Event, *, word_weight: float = 0.0) -> None:
        """One short question and answer: ``When? a red circle appears``, ``3 - 7``."""
        self.ask(lesson, f"When? {event.query}")
        self._times(lesson, event, self.ids(" " + event.query.split(" ", 1)[1]), ends=True)
        lesson.say(self.ids("<|im_end|>"), word_weight)

    def _times(self, lesson: Lesson, event: Event, cue: list[int], ends: bool) -> None:
        lesson.cues.append((len(lesson.input_ids) - 1, cue))
        lesson.say(self.ids(f"{event.span.start + lesson.offset:.0f}"), 1.0)
        if ends:
            lesson.say(self.ids(" - "))
            lesson.cues.append((len(lesson.input_ids) - 1, cue))
            lesson.say(self.ids(f"{event.span.end + lesson.offset:.0f}"), 1.0)

    def collate(self, lessons: Sequence[Lesson]) -> Batch:
        """One batch, padded at the right: causal attention needs no mask there."""
        tokens = max(len(lesson.input_ids) for lesson in lessons)
        shape = (len(lessons), tokens)
        ids = torch.full(shape, int(self.tokenizer.pad_token_id))
        labels, weights = torch.full(shape, IGNORED), torch.zeros(shape)
        for row, lesson in enumerate(lessons):
            count = len(lesson.input_ids)
            ids[row, :count] = torch.tensor(lesson.input_ids)
            labels[row, :count] = torch.tensor(lesson.labels)
            weights[row, :count] = torch.tensor(lesson.weights)
        pixels = torch.from_numpy(np.concatenate([lesson.pixels for lesson in lessons]))
        side = FRAME_SIZE // _PATCH
        grid = torch.tensor([[len(lesson.pixels) // side**2, side, side] for lesson in lessons])
        return Batch(ids, labels, weights, pixels.float().div_(127.5).sub_(1), grid)
