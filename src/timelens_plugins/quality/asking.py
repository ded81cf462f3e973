"""Models that are asked about videos: an engine by its name, and a journal of what it has answered.

What was answered is asked no second time, however a run ended; what has no answer (a video that cannot be read, a
request that failed) is asked again by the next run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from timelens_plugins.answers import read_prompt
from timelens_plugins.difficulty.estimate import Answering, engine_settings
from timelens_plugins.inference import Journal
from timelens_plugins.inference.answering import Answer, Engine, Question
from timelens_plugins.inference.engines import check_engine, parse_engine_args

__all__ = ["Asker", "ModelChoice", "open_engine", "parse_choice"]

_MODEL = ("dtype", "device", "device_map", "attn_implementation", "revision")
_PROCESSOR = ("encoding", "timestamp_format", "prompt", "thinking")
_SAMPLING = ("fps", "min_frames", "max_frames", "min_tokens", "total_tokens", "max_pixels", "times")
_ANSWERER = ("share_prefix", "max_rows", "clip_workers", "video_backend", "system_prompt")
_OURS = frozenset({"model", "on_bad_video", "rules"})
"""Settings of an engine that are not options: what this module sets itself."""


@dataclass(frozen=True)
class ModelChoice:
    """A model, and what runs it.

    Attributes:
        engine: a name in ``inference.engines.ENGINES``.
        model: checkpoint folder or hub name; of ``api``, the endpoint's name for it.
        options: of the engine, as lmms-eval's ``--model_args`` name them.
    """

    engine: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_choice(text: str) -> ModelChoice:
    """``engine=api,model=NAME,base_url=…``: a choice in one text; the engine is ``transformers`` where it is not said.

    Raises:
        ValueError: an entry that is no ``name=value``, or no model.
    """
    options = parse_engine_args(text)
    engine, model = options.pop("engine", "transformers"), options.pop("model", None)
    if not isinstance(model, str):
        raise ValueError(f"{text!r} names no model: write model=…, and what else its engine takes")
    return ModelChoice(str(engine), model, options)


def open_engine(choice: ModelChoice, answering: Answering) -> Engine[Any]:
    """An engine with its model, ready to answer.

    Videos that cannot be read are skipped with their error, and so are requests that an endpoint or vLLM does not take,
    unless the options say otherwise.

    Args:
        choice: the model.
        answering: how often and how long it answers.

    Raises:
        ValueError: an unknown engine or option, or a value out of range.
        EngineNotInstalledError: what the engine needs is not installed.
    """
    check_engine(choice.engine)
    return _OPENERS[choice.engine](choice.model, choice.options, answering)


def _transformers(model: str, options: Mapping[str, Any], answering: Answering) -> Engine[Any]:
    import torch

    from timelens_plugins.families.load import load_model
    from timelens_plugins.inference.engine import VideoAnswerer

    _refuse_unknown(options, (*_MODEL, *_PROCESSOR, *_SAMPLING, *_ANSWERER))
    loading: dict[str, Any] = {name: options[name] for name in (*_MODEL, *_PROCESSOR, *_SAMPLING) if name in options}
    if "device" not in loading and "device_map" not in loading:
        loading["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    loaded, processor = load_model(model, **loading)
    answerer = {"max_rows": answering.max_rows} | {name: options[name] for name in _ANSWERER if name in options}
    generation = answering.generation_config(loaded)
    return VideoAnswerer(loaded, processor, generation, samples=answering.samples, on_bad_video="skip", **answerer)


def _vllm(model: str, options: Mapping[str, Any], answering: Answering) -> Engine[Any]:
    from timelens_plugins.encodings import load_processor
    from timelens_plugins.inference.vllm.engine import VllmEngine
    from timelens_plugins.inference.vllm.model import VllmModel
    from timelens_plugins.inference.vllm.settings import VllmSettings

    ours, loading = ("clip_workers", "video_backend", "system_prompt"), ("dtype", "revision")
    _refuse_unknown(options, (*loading, *_PROCESSOR, *_SAMPLING, *ours, *VllmSettings.names()))

    def given(names: Sequence[str]) -> dict[str, Any]:
        return {name: options[name] for name in names if name in options}

    processor = load_processor(model, **given(("revision", *_PROCESSOR, *_SAMPLING)))
    settings = VllmSettings(**({"on_failed_request": "skip"} | given(VllmSettings.names())))
    running = VllmModel(model, processor, settings, **given(loading))
    seed = answering.seed if answering.samples > 1 else None
    generation = answering.generation()
    return VllmEngine(running, generation, answering.samples, seed=seed, on_bad_video="skip", **given(ours))


def _api(model: str, options: Mapping[str, Any], answering: Answering) -> Engine[Any]:
    from timelens_plugins.inference.api.engine import ApiEngine, ApiSettings

    _refuse_unknown(options, tuple(f.name for f in fields(ApiSettings) if f.name not in _OURS))
    options = {"on_failed_request": "skip", **options}
    if options.get("prompt") is not None:
        options["prompt"] = read_prompt(str(options["prompt"]))
    settings = ApiSettings(model, on_bad_video="skip", **options)
    return ApiEngine(settings, answering.generation(), answering.samples)


_OPENERS: Mapping[str, Callable[[str, Mapping[str, Any], Answering], Engine[Any]]] = {
    "transformers": _transformers,
    "vllm": _vllm,
    "api": _api,
}


def _refuse_unknown(options: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := sorted(options.keys() - set(known)):
        raise ValueError(f"engine_args: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")


class Asker:
    """A model that is asked in several rounds. A context manager.

    Args:
        choice: the model.
        journal: folder of its finished answers, which several models may share.
        max_new_tokens: of an answer, which is greedy.

    Attributes:
        asked, earlier: questions answered by this run and by earlier ones; equal ones count once.
        output_tokens: that this run's answers took.
    """

    def __init__(self, choice: ModelChoice, journal: str | Path, *, max_new_tokens: int) -> None:
        answering = Answering(max_new_tokens=max_new_tokens)
        self.name = choice.model
        self.engine = open_engine(choice, answering)
        self.prompt = None if choice.options.get("prompt") is None else self.engine.prompt
        """The one that is among the model's options; None where there is none."""
        self.settings = engine_settings(self.engine, choice.model, answering)
        self.journal = Journal(journal, self.settings)
        self.asked = self.earlier = self.output_tokens = 0
        self._known: dict[Question, Answer] = {}

    def ask(self, questions: Sequence[Question], label: str, *, progress: bool = False) -> list[Answer]:
        """The answers, in order; those without one carry their error."""
        new = [question for question in dict.fromkeys(questions) if question not in self._known]
        answers = self._kept(new)
        left = [question for question in new if question not in answers]
        with tqdm(total=len(new), initial=len(answers), desc=label, unit="question", disable=not progress) as bar:
            for index, answer in self.engine.answer(left):
                question = left[index]
                answers[question] = answer
                if answer.error is None:
                    self.asked += 1
                    self.output_tokens += sum(answer.output_tokens)
                    self._keep(question, answer)
                bar.update()
        known = self._known | answers
        self._known = {question: answer for question, answer in known.items() if answer.error is None}
        return [known[question] for question in questions]

    def close(self) -> None:
        """Give back what the engine holds; it says what it has to say."""
        self.engine.close()
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _kept(self, questions: Sequence[Question]) -> dict[Question, Answer]:
        """Answers of earlier runs."""
        found: dict[Question, Answer] = {}
        records = self.journal.lookup((_key(question), question.video) for question in questions)
        for question, record in zip(questions, records, strict=True):
            if record is not None:
                details = record.get("details", {})
                answer = Answer(tuple(record["texts"]), tuple(record["output_tokens"]), details=details)
                self.engine.recall(answer)
                self.earlier += 1
                found[question] = answer
        return found

    def _keep(self, question: Question, answer: Answer) -> None:
        record: dict[str, Any] = {"texts": list(answer.texts), "output_tokens": list(answer.output_tokens)}
        record |= {"details": dict(answer.details)} if answer.details else {}
        self.journal.add(_key(question), question.video, record)


def _key(question: Question) -> str:
    """What a question is known by; the journal tells a video by its content, so that its folder may move."""
    content = json.dumps([Path(question.video).name, question.video_start, question.video_end, question.text])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
