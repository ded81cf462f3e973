"""Processes of an evaluation answer each other's questions: each clip on one of them, more of them on a fast one."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from requests_of import requests_for

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.evaluation import model as model_module
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.evaluation.processes import Processes, _called_on_all
from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.inference.answering import Question
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.video import expected_tokens

COUNT = 2


class Threads:
    """What processes share, for threads."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(COUNT, timeout=120)
        self.given: list[Any] = [None] * COUNT
        self.claimed: set[str] = set()
        self.lock = threading.Lock()


class Thread(Processes):
    """One of them, in the place of a process."""

    def __init__(self, index: int, shared: Threads) -> None:
        self.index, self.count, self.shared = index, COUNT, shared

    def gather(self, value: Any) -> list[Any]:
        self.shared.given[self.index] = value
        self.shared.barrier.wait()
        given = list(self.shared.given)
        self.shared.barrier.wait()
        return given

    def claim(self, work: str) -> bool:
        with self.shared.lock:
            new = work not in self.shared.claimed
            self.shared.claimed.add(work)
            return new


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "qwen3_vl", initializer_range=0.4)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two questions about each of six clips, those of a clip apart, so that they are dealt to both processes."""
    folder = tmp_path_factory.mktemp("videos")
    write_training_set(folder, {"charades": 6}, size=64, progress=False)
    videos = sorted((folder / "videos").rglob("*.mp4"))
    texts = [GROUNDING_PROMPT.format(query=f"event {n}") for n in range(2)]
    return [{"video": str(v), "text": text} for v in videos for text in texts] + [
        {"video": str(videos[0]), "text": texts[0] + " Be brief."}
    ]


def load(checkpoint: Path, asked: list[Question], slow: bool = False, **options: Any) -> TimeLens:
    """A model that notes which questions it answers."""
    model = TimeLens(str(checkpoint), device="cpu", total_tokens=64, min_tokens=4, fps=1.0, max_rows=1, **options)
    build = model._engine

    def noting(generation: Mapping[str, Any]) -> Any:
        engine = build(generation)
        answer, prepare = engine.answer, engine._prepare

        def noted(questions: Any, begin: Any) -> Any:
            for index, given in answer(questions, begin):
                asked.append(questions[index])
                yield index, given

        engine.answer = noted  # type: ignore[method-assign]
        if slow:
            engine._prepare = lambda *clip: (time.sleep(1.0), prepare(*clip))[1]  # type: ignore[method-assign]
        return engine

    model._engine = noting  # type: ignore[method-assign]
    return model


def answer(model: TimeLens, docs: list[dict[str, Any]], rows: list[int], **generation: Any) -> list[str]:
    requests = requests_for(model, docs, **generation)
    return [result.text for result in model.generate_until([requests[row] for row in rows])]


def test_the_largest_clips_first_and_the_answers_in_order(
    checkpoint: Path, docs: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Question] = []
    model = load(checkpoint, asked)
    whole = answer(model, docs, list(range(len(docs))))
    one_by_one = [answer(model, docs, [row])[0] for row in range(len(docs))]
    assert whole == one_by_one
    assert len(set(whole)) > 6
    sizes = [expected_tokens(q.video, model.processor.frame_sampling) for q in asked[: len(docs)]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 1
    assert "timelens: waiting for video: " in capsys.readouterr().out


@pytest.mark.parametrize("generation", [{}, {"do_sample": True, "temperature": 2.0}])
def test_two_processes_share_the_clips_and_a_slow_one_gives_work_away(
    checkpoint: Path,
    docs: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    generation: dict[str, Any],
) -> None:
    torch.manual_seed(3)
    expected = answer(load(checkpoint, []), docs, list(range(len(docs))), **generation)
    shared = Threads()
    of_thread = threading.local()
    monkeypatch.setattr(model_module.Processes, "of_run", lambda *_: getattr(of_thread, "processes", Processes()))
    asked: list[list[Question]] = [[], []]
    models = [load(checkpoint, asked[i], slow=i == 0, journal=str(tmp_path)) for i in range(COUNT)]

    def run(index: int) -> list[str]:
        of_thread.processes = Thread(index, shared)
        rows = list(range(index, len(docs), COUNT))
        rows += rows[-1:] * (index == 1)  # lmms-eval asks a row again where a process has fewer than another
        return answer(models[index], docs, rows, **generation)

    with ThreadPoolExecutor(COUNT) as pool:
        first, second = pool.map(run, range(COUNT))
    assert first == expected[0::2]
    assert second[:-1] == expected[1::2]
    own = [{question.clip for question in of_process} for of_process in asked]
    assert not own[0] & own[1], "every clip is read by one process"
    assert 1 <= len(own[0]) < len(own[1]), "the slow one gives work away"
    again = answer(load(checkpoint, asked[0], journal=str(tmp_path)), docs, list(range(len(docs))), **generation)
    assert again == expected
    assert sum(map(len, asked)) == len(docs) + bool(generation), "the journal has what both have answered"


def test_where_the_model_is_called_on_every_process() -> None:
    def body(call: Callable[[], Any]) -> Any:
        return call()

    def inside(module: str, name: str) -> Callable[[Callable[[], Any]], Any]:
        return FunctionType(body.__code__.replace(co_name=name), {"__name__": module})

    evaluate, cached = inside("lmms_eval.evaluator", "evaluate"), inside("lmms_eval.caching.response_cache", "execute")
    asked = lambda: _called_on_all(sys._getframe())  # noqa: E731
    assert evaluate(asked)
    assert not asked()
    assert not evaluate(lambda: cached(asked)), "a process whose answers are all in the cache does not come"
    assert Processes.of_run(0, 2).count == 1
    assert Processes.of_run(1, 2).index == 0
    alone = Processes()
    assert alone.gather("x") == ["x"]
    assert alone.claim("x")
    assert alone.claim("x")
