"""What the demo's base model is taught, from easy to hard: which scenes are drawn and what is asked about them.

*Recall* levels show one-second events and have the assistant list them: many facts a clip, each in one place. Clips
grow from level to level. The last level mixes recall with the world's real events, start and end, of which several are
visible at once: as lists and as short questions. The benchmark's prompt and answer never occur: that is left to
fine-tuning.

From the second level on, half of the clips begin anywhere within a longer video, so that numbers must be read from the
stamps, not counted.
"""

from __future__ import annotations

import numpy as np

from timelens_plugins.synthetic.lessons import Lesson, LessonWriter, flash_scene
from timelens_plugins.synthetic.world import Scene, WorldConfig, make_scene

__all__ = ["RECALL_LEVELS", "Curriculum", "mixed_scenes"]

RECALL_LEVELS: tuple[tuple[int, int], ...] = ((5, 4), (8, 7), (12, 10), (16, 14), (20, 16))
"""Seconds of a clip and one-second events in it."""

_DURATIONS = (12, 20)  # of the last level, in seconds
_LONGEST = 21  # seconds of the videos that clips may be windows of
_NOISE = (10.0, 14.0, 18.0)


class Curriculum:
    """Draws lessons of a level.

    Args:
        writer: of the tokenizer to be used.
        rng: the only source of chance.
        recall_share: share of recall lessons in the last level.
        word_weight: weight of words in the loss of a real event, where a time has 1: the order of a list is random, so
            that words can be learnt only in part.
    """

    def __init__(
        self, writer: LessonWriter, rng: np.random.Generator, *, recall_share: float = 0.4, word_weight: float = 0.05
    ) -> None:
        self.writer, self.rng = writer, rng
        self.recall_share, self.word_weight = recall_share, word_weight

    @property
    def last_level(self) -> int:
        """The level that mixes recall and real events."""
        return len(RECALL_LEVELS)

    def draw(self, level: int, count: int) -> list[Lesson]:
        """``count`` lessons about clips of one duration."""
        if level < self.last_level:
            duration, flashes = RECALL_LEVELS[level]
            return [self._recall(duration, flashes) for _ in range(count)]
        duration = self._whole(*_DURATIONS)
        recall = round(count * self.recall_share)
        return [
            self._recall(duration, self._whole(8, duration - 3)) if i < recall else self._events(duration)
            for i in range(count)
        ]

    def scene(self, duration: int) -> Scene:
        """A scene of the ``pretrain`` split."""
        config = WorldConfig(durations=(duration, duration), noise=float(self.rng.choice(_NOISE)))
        return make_scene(int(self.rng.integers(2**62)), config, split="pretrain")

    def flashes(self, duration: int, count: int) -> Scene:
        """A scene of one-second events."""
        return flash_scene(self.rng, duration, count, float(self.rng.choice(_NOISE)))

    def _recall(self, duration: int, flashes: int) -> Lesson:
        scene = self.flashes(duration, flashes)
        lesson = self.writer.open(scene, self._offset(duration))
        self.writer.listing(lesson, [actor.events[-1] for actor in scene.actors], ends=False)
        return lesson

    def _events(self, duration: int) -> Lesson:
        scene = self.scene(duration)
        lesson = self.writer.open(scene, self._offset(duration))
        events = [scene.events[i] for i in self.rng.permutation(len(scene.events))]
        if self.rng.random() < 0.5:
            self.writer.listing(lesson, events, ends=True, word_weight=self.word_weight)
        else:
            for event in events:
                self.writer.question(lesson, event, word_weight=self.word_weight)
        return lesson

    def _offset(self, duration: int) -> int:
        if duration == RECALL_LEVELS[0][0] or self.rng.random() < 0.5:
            return 0
        return self._whole(0, _LONGEST - duration)

    def _whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))


def mixed_scenes(curriculum: Curriculum, count: int, *, crowded: bool) -> list[Scene]:
    """Scenes of 12 s to learn to see with: one-second events, and with ``crowded`` real scenes in turn with them."""
    return [curriculum.scene(12) if crowded and i % 2 else curriculum.flashes(12, 12) for i in range(count)]
