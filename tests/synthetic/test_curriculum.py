"""What the base model is taught, and what it is not."""

from __future__ import annotations

import numpy as np
import pytest

from timelens_plugins.synthetic import curriculum as module
from timelens_plugins.synthetic.curriculum import RECALL_LEVELS, Curriculum
from timelens_plugins.synthetic.grounder import build_grounder_tokenizer
from timelens_plugins.synthetic.lessons import LessonWriter
from timelens_plugins.synthetic.world import Scene, split_of


@pytest.fixture(scope="module")
def writer() -> LessonWriter:
    return LessonWriter(build_grounder_tokenizer())


def test_the_base_model_never_sees_the_benchmarks_prompt_or_scenes(
    writer: LessonWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes: list[Scene] = []
    make = module.make_scene
    monkeypatch.setattr(module, "make_scene", lambda *a, **k: scenes.append(make(*a, **k)) or scenes[-1])
    curriculum = Curriculum(writer, np.random.default_rng(0))
    for level in range(curriculum.last_level + 1):
        for lesson in curriculum.draw(level, 8):
            text = writer.tokenizer.decode(lesson.input_ids)
            assert "Please find" not in text
            assert "The event happens in" not in text
    assert len(scenes) >= 4
    assert {split_of(s.cast) for s in scenes} == {split_of(s.timeline) for s in scenes} == {"pretrain"}


def test_times_follow_the_clip_wherever_it_begins(writer: LessonWriter) -> None:
    """Every time to be learnt is the number of a second shown, or the end of the last one."""
    curriculum = Curriculum(writer, np.random.default_rng(1))
    begins = set()
    for level in range(curriculum.last_level + 1):
        for lesson in curriculum.draw(level, 8):
            shown = [int(writer.tokenizer.decode([number])) for _, number in lesson.stamps]
            assert shown == list(range(lesson.offset, lesson.offset + len(shown)))
            begins.add(lesson.offset)
            for position, words in lesson.cues:
                learnt = int(writer.tokenizer.decode([lesson.labels[position + 1]]))
                assert learnt in shown
                assert writer.tokenizer.decode(words) in writer.tokenizer.decode(lesson.input_ids[: position + 1])
    assert 0 in begins
    assert len(begins) > 3
    assert [duration for duration, _ in RECALL_LEVELS] == sorted(duration for duration, _ in RECALL_LEVELS)
