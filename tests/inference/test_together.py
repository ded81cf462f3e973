"""Answers about many videos, decoded together: the answers each question gets alone, within what memory allows."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.clips import ClipLoader
from timelens_plugins.families.load import load_model
from timelens_plugins.inference import engine
from timelens_plugins.inference.answering import Answer, Question
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.shared_prefix import Prefilled
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.video import VideoError, open_cache, sample_frames


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> list[Question]:
    """One to three about each of five videos, those of a video apart from each other."""
    folder = tmp_path_factory.mktemp("videos")
    write_training_set(folder, {"charades": 5}, size=64, progress=False)
    videos = sorted((folder / "videos").rglob("*.mp4"))
    asked = [(number, query) for query in range(3) for number in range(5) if query <= number % 3]
    return [Question(str(videos[n]), GROUNDING_PROMPT.format(query=f"event {q} of video {n}")) for n, q in asked]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoints: dict[str, Path], family: str) -> Any:
    return load_model(tiny_checkpoints[family], total_tokens=128, min_tokens=4)


def answerer(loaded: Any, **options: Any) -> VideoAnswerer:
    model, processor = loaded
    own = model.generation_config
    config = GenerationConfig(max_new_tokens=8, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    return VideoAnswerer(model, processor, config, **options)


def alone(loaded: Any, questions: Sequence[Question]) -> list[Answer]:
    return [next(iter(answerer(loaded).answer([question])))[1] for question in questions]


def answers_of(found: Sequence[tuple[int, Answer]]) -> list[Answer]:
    """Each question exactly once."""
    assert sorted(index for index, _ in found) == list(range(len(found)))
    return [answer for _, answer in sorted(found, key=lambda pair: pair[0])]


class Decoding:
    """The calls of ``complete``: videos, rows and bytes of each; what is above ``memory`` does not fit."""

    def __init__(self, memory: int | None = None) -> None:
        self.memory = memory
        self.calls: list[tuple[int, int, int]] = []
        self.complete = engine.complete

    def __call__(self, model: Any, prefilled: Sequence[Prefilled], *args: Any, **options: Any) -> Any:
        held = sum(one.bytes for one in prefilled)
        self.calls.append((len(prefilled), sum(map(len, prefilled)), held))
        if self.memory is not None and held > self.memory:
            raise torch.OutOfMemoryError("no memory")
        return self.complete(model, prefilled, *args, **options)


def test_together_is_alone(loaded: Any, questions: list[Question], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = alone(loaded, questions)
    assert len({answer.texts for answer in expected}) > 4
    for max_rows, calls in ((None, [(5, 9)]), (4, [(3, 6), (2, 3)]), (1, [(1, 1), (1, 2), (1, 3), (1, 1), (1, 2)])):
        spy = Decoding()
        monkeypatch.setattr(engine, "complete", spy)
        assert answers_of([*answerer(loaded, max_rows=max_rows).answer(questions)]) == expected
        assert [call[:2] for call in spy.calls] == calls


def test_a_second_run_reads_the_frames_that_the_first_has_kept(
    loaded: Any, questions: list[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timelens_plugins.file_state._SETTLED", -(10**12))
    expected = alone(loaded, questions)
    for counts in ({"kept": 5}, {"read": 5}):
        one = answerer(loaded, cache=open_cache(tmp_path))
        assert answers_of([*one.answer(questions)]) == expected
        assert one.cache is not None
        assert dict(one.cache.counts) == counts
    assert "5 clips read, 0 decoded and kept" in one.waiting()
    # A training with the same frames reads them as well.
    settings = SimpleNamespace(clip_workers=0, on_bad_video="error", clips_ahead=1, video_backend="auto")
    settings.cache, settings.cache_gb = str(tmp_path), None
    with ClipLoader.by_settings(loaded[1], settings) as loader:
        taken = loader.take(questions[0].clip)
    assert taken is not None
    assert torch.equal(taken.clip.frames, sample_frames(questions[0].video, loaded[1].frame_sampling).frames)
    assert loader.cache is not None
    assert dict(loader.cache.counts) == {"read": 1}


def test_where_memory_runs_out_fewer_are_decoded_together(
    loaded: Any, questions: list[Question], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = alone(loaded, questions)
    spy = Decoding()
    monkeypatch.setattr(engine, "complete", spy)
    answers_of([*answerer(loaded).answer(questions)])
    [(_, _, whole)] = spy.calls
    spy = Decoding(memory=whole // 2)
    monkeypatch.setattr(engine, "complete", spy)
    one = answerer(loaded)
    with caplog.at_level(logging.WARNING):
        assert answers_of([*one.answer(questions)]) == expected
    assert spy.calls[0][2] == whole
    assert "memory ran out" in caplog.text
    caplog.clear()
    spy.calls.clear()
    with caplog.at_level(logging.WARNING):
        assert answers_of([*one.answer(questions)]) == expected, "the engine remembers what fitted"
    assert len(spy.calls) > 1
    spy = Decoding(memory=whole // 2)
    monkeypatch.setattr(engine, "complete", spy)
    monkeypatch.setattr(loaded[0].config.get_text_config(), "max_position_embeddings", 20)
    one = answerer(loaded)
    answers_of([*one.answer(questions)])
    assert one.too_long == len(questions), "each counts once, however often it is prefilled"
    spy = Decoding(memory=1)
    monkeypatch.setattr(engine, "complete", spy)
    with pytest.raises(torch.OutOfMemoryError):
        list(answerer(loaded).answer(questions))


def test_a_prefill_that_does_not_fit_waits_for_the_others(
    loaded: Any, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, prefill, calls = alone(loaded, questions), engine.prefill, []

    def tight(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            taken = torch.empty(1)
            attempt.append(weakref.ref(taken))
            raise torch.OutOfMemoryError("no memory")
        return prefill(*args)

    def decode(*args: Any, **options: Any) -> Any:
        held.append(bool(attempt) and attempt[0]() is not None)
        return complete(*args, **options)

    attempt: list[Any] = []
    held: list[bool] = []
    complete = engine.complete
    monkeypatch.setattr(engine, "prefill", tight)
    monkeypatch.setattr(engine, "complete", decode)
    assert answers_of([*answerer(loaded).answer(questions)]) == expected
    assert len(calls) == 6
    assert held
    assert not any(held), "what the attempt took is free while the others are decoded"


def test_an_unreadable_video_does_not_cost_the_answers_before_it(
    loaded: Any, questions: list[Question], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(questions[0].video).read_bytes()[:500])
    asked = [*questions[:4], Question(str(broken), questions[0].text), *questions[4:]]
    expected = alone(loaded, questions)
    found: list[tuple[int, Answer]] = []
    with pytest.raises(VideoError, match="broken"):
        found.extend(answerer(loaded).answer(asked))
    # The questions of the first four videos; these were before the broken one.
    before = {i for i, q in enumerate(asked) if q.video in {question.video for question in questions[:4]}}
    assert {index for index, _ in found} == before
    skipping = answerer(loaded, on_bad_video="skip")
    answers = answers_of([*skipping.answer(asked)])
    assert answers[:4] + answers[5:] == expected
    assert answers[4].error is not None
    assert list(skipping.skipped) == [str(broken)]
