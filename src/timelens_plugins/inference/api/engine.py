"""The engine ``api``: questions about clips to an endpoint, several requests at a time, every one accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import timelens_plugins
from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.inference.answering import Answer, Begin, Engine, Question
from timelens_plugins.inference.api.account import Account
from timelens_plugins.inference.api.endpoint import (
    DEFAULT_URL,
    Endpoint,
    EndpointError,
    RequestFailedError,
)
from timelens_plugins.inference.api.images import PresetSampling, clip_parts
from timelens_plugins.inference.api.presets import Preset, read_preset
from timelens_plugins.inference.api.replies import Choice
from timelens_plugins.video import VideoError, open_cache, sample_frames

__all__ = ["ApiEngine", "ApiSettings"]

logger = logging.getLogger(__name__)

Parts = list[dict[str, Any]]
_SHOWN = 3


@dataclass(frozen=True)
class ApiSettings:
    """An endpoint, a model at it, and how it is asked.

    Attributes:
        model: by the endpoint's name.
        base_url: of the endpoint, with the version: ``https://…/v1``.
        key_variable: environment variable that holds the key; not needed for an endpoint on this machine.
        preset: ``gpt``, ``gemini`` or a YAML or JSON file, see :class:`~timelens_plugins.inference.api.presets.Preset`.
        concurrency: requests at the same time.
        requests_per_minute: of all together; None for no limit but the endpoint's.
        max_retries, retry_seconds, timeout: see :class:`~timelens_plugins.inference.api.endpoint.Endpoint`.
        on_failed_request: ``error`` stops at a request without a reply; ``skip`` leaves its question unanswered, names
            and counts it.
        system_prompt: a system turn; None for none.
        prompt: with ``{query}``, instead of the preset's.
        clip_workers: clips prepared ahead.
        video_backend: see :func:`timelens_plugins.video.sample_frames`.
        cache: folder where decoded frames are kept for the next run, of at most ``cache_gb`` (20).
        on_bad_video: ``error`` or ``skip``.

    Raises:
        ValueError: a value out of range, by its name; a preset that cannot be read.
    """

    model: str
    base_url: str = DEFAULT_URL
    key_variable: str = "OPENAI_API_KEY"
    preset: str = "gpt"
    concurrency: int = 4
    requests_per_minute: float | None = None
    max_retries: int = 6
    retry_seconds: float = 1.0
    timeout: float = 600.0
    on_failed_request: Literal["error", "skip"] = "error"
    system_prompt: str | None = None
    prompt: str | None = None
    clip_workers: int | None = None
    video_backend: str = "auto"
    cache: str | None = None
    cache_gb: float | None = None
    on_bad_video: Literal["error", "skip"] = "error"
    rules: Preset = field(init=False)

    def __post_init__(self) -> None:
        for name, kinds, least in (
            ("concurrency", int, 1),
            ("clip_workers", int, 1),
            ("max_retries", int, 0),
            ("retry_seconds", (int, float), 0),
            ("timeout", (int, float), 1e-3),
            ("requests_per_minute", (int, float), 1e-3),
            ("cache_gb", (int, float), 1e-9),
        ):
            value = getattr(self, name)
            if name in ("requests_per_minute", "clip_workers", "cache_gb") and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value < float("inf"):
                raise ValueError(f"{name} must be a number of at least {least}, got {value!r}")
        for name in ("on_failed_request", "on_bad_video"):
            if getattr(self, name) not in ("error", "skip"):
                raise ValueError(f"{name} must be 'error' or 'skip', got {getattr(self, name)!r}")
        if not isinstance(self.model, str) or not self.model:
            raise ValueError(f"the model must be a name that the endpoint knows, got {self.model!r}")
        object.__setattr__(self, "rules", read_preset(str(self.preset)))
        if self.prompt is not None:
            object.__setattr__(self, "rules", replace(self.rules, prompt=self.prompt))

    def among(self, processes: int) -> ApiSettings:
        """Those of one of several processes, which keep the limit of requests together."""
        limit = self.requests_per_minute
        return self if limit is None else replace(self, requests_per_minute=limit / processes)


class ApiEngine(Engine[Parts]):
    """Answers by requests to an endpoint.

    Answers come in the order in which they are complete. Where a request fails and is not skipped, no further one goes
    out; those under way are waited for and their answers handed over, as they are paid for, before the error is raised.

    Args:
        settings: endpoint, model, rules.
        generation: ``max_new_tokens``, ``do_sample``, ``temperature``, ``top_p``, as lmms-eval's tasks give them.
        samples: answers a question, asked for with ``n``, and again where the endpoint gives fewer.

    Raises:
        ValueError: a generation setting that chat completions do not have.
        EndpointError: no key; see :class:`~timelens_plugins.inference.api.endpoint.Endpoint`.
    """

    def __init__(
        self,
        settings: ApiSettings,
        generation: Mapping[str, Any],
        samples: int = 1,
    ) -> None:
        self.options, self.samples = settings, samples
        self.rules = settings.rules
        self.on_bad_video, self.clip_workers = settings.on_bad_video, settings.clip_workers
        self.skipped = {}
        self.failures: dict[str, str] = {}
        """Question -> why its request failed."""
        self.account = Account(self.rules.input_price, self.rules.output_price)
        self.cache = open_cache(settings.cache, settings.cache_gb)
        self.frame_sampling = self._sampling = PresetSampling(preset=self.rules)
        self._fields = _request_fields(generation, samples, self.rules)
        self._endpoint = Endpoint(
            settings.base_url,
            settings.key_variable,
            self.account,
            requests_per_minute=settings.requests_per_minute,
            max_retries=settings.max_retries,
            retry_seconds=settings.retry_seconds,
            timeout=settings.timeout,
        )

    @property
    def prompt(self) -> str:
        """The preset's, or the benchmark's."""
        return self.rules.prompt or GROUNDING_PROMPT

    def settings(self) -> dict[str, Any]:
        """Endpoint, model and rules; not what only decides how fast, or what is paid."""
        return {
            "engine": "api",
            "model": self.options.model,
            "base_url": self._endpoint.base_url,
            "preset": self.rules.settings(),
            "system_prompt": self.options.system_prompt,
            "video_backend": self.options.video_backend,
            "software": f"timelens-plugins {timelens_plugins.__version__}",
        }

    def recall(self, answer: Answer) -> None:
        """Count an answer of an earlier run."""
        self.account.earlier(answer.details)

    def close(self) -> None:
        """Print what was asked, answered and paid, and give connections back."""
        for question, error in list(self.failures.items())[:_SHOWN]:
            logger.error("not answered: %s (%s)", question, error)
        if len(self.failures) > _SHOWN:
            logger.error("not answered: %d further questions", len(self.failures) - _SHOWN)
        if cut := self.account.questions["cut"]:
            logger.warning(
                "%d answers were cut by the limit of new tokens, to which the thoughts of a model count: raise "
                "max_new_tokens",
                cut,
            )
        print("\n".join(f"{self.options.model}: {line}" for line in self.account.summary()), flush=True)
        self._endpoint.close()

    def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
        """As they are complete."""
        pool = ThreadPoolExecutor(self.options.concurrency, thread_name_prefix="request")
        under_way: dict[Future[Answer], int] = {}
        try:
            for indices, parts in self._clips(questions, begin):
                if isinstance(parts, VideoError):
                    yield from self._unread(parts, questions[indices[0]].video, indices)
                    continue
                for index in indices:
                    # As many as are made at once wait in line, so that no thread does; each holds its clip's images.
                    while len(under_way) >= 2 * self.options.concurrency:
                        yield from self._done(under_way, questions)
                    under_way[pool.submit(self._ask, parts, questions[index].text)] = index
            while under_way:
                yield from self._done(under_way, questions)
        except BaseException:
            self._endpoint.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _done(
        self, under_way: dict[Future[Answer], int], questions: Sequence[Question]
    ) -> Iterator[tuple[int, Answer]]:
        """The answers that are there, at least one."""
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            index = under_way.pop(future)
            try:
                answer = future.result()
            except (RequestFailedError, EndpointError) as error:
                what = f"{questions[index].video}: {questions[index].text!r}"
                self.account.failed()
                if isinstance(error, EndpointError) or self.options.on_failed_request == "error":
                    yield from self._rest(under_way)
                    raise type(error)(f"{what}: {error}") from error
                self.failures[what] = str(error)
                yield index, self._failed(str(error))
            else:
                yield index, answer

    def _rest(self, under_way: dict[Future[Answer], int]) -> Iterator[tuple[int, Answer]]:
        """What comes of the requests under way, when no further one is made."""
        self._endpoint.stop()
        for future in list(under_way):
            index = under_way.pop(future)
            if not future.cancel() and future.exception() is None:
                yield index, future.result()

    def _ask(self, parts: Parts, text: str) -> Answer:
        system = self.options.system_prompt
        messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": [*parts, {"type": "text", "text": text}]})
        body = {"model": self.options.model, "messages": messages, **self._fields}
        choices: list[Choice] = []
        tokens: Counter[str] = Counter()
        models: set[str] = set()
        counted = True
        while (left := self.samples - len(choices)) > 0:
            reply = self._endpoint.complete(body | ({"n": left} if left > 1 else {}))
            choices += reply.choices[:left]
            counted = counted and reply.prompt_tokens is not None and reply.output_tokens is not None
            tokens["prompt"] += reply.prompt_tokens or 0
            tokens["output"] += reply.output_tokens or 0
            models |= {reply.model} - {None}  # type: ignore[arg-type]  # mypy does not take None out
        details: dict[str, Any] = {
            "finish": [choice.finish for choice in choices],
            **{kind: True for kind in ("refused", "cut") if any(getattr(choice, kind) for choice in choices)},
            **({"empty": True} if not all(choice.text for choice in choices) else {}),
            **({"prompt_tokens": tokens["prompt"], "output_tokens": tokens["output"]} if counted else {}),
            **({"models": sorted(models)} if models else {}),
        }
        self.account.answered(details)
        # An endpoint counts the tokens of a reply, not of each of its completions.
        each = tokens["output"] // self.samples
        return Answer(tuple(choice.text for choice in choices), (each,) * self.samples, details=details)

    def _prepare(self, path: str, start: float | None, end: float | None) -> Parts:
        backend = self.options.video_backend
        clip = sample_frames(path, self._sampling, video_start=start, video_end=end, backend=backend, cache=self.cache)
        return clip_parts(clip, self.rules)


def _request_fields(generation: Mapping[str, Any], samples: int, rules: Preset) -> dict[str, Any]:
    """Generation settings as fields of a request."""
    given = {name: value for name, value in generation.items() if value is not None and name != "until"}
    fields: dict[str, Any] = dict(rules.extra)
    if "max_new_tokens" in given:
        fields[rules.length_field] = int(given.pop("max_new_tokens"))
    sampled = bool(given.pop("do_sample", False))
    if samples > 1 and not sampled:
        raise ValueError(f"{samples} samples of a greedy answer would be equal; set do_sample")
    temperature = given.pop("temperature", None)
    if rules.send_temperature:
        fields["temperature"] = float(1.0 if temperature is None else temperature) if sampled else 0.0
    if sampled and "top_p" in given:
        fields["top_p"] = float(given.pop("top_p"))
    neutral = {"num_beams": 1, "repetition_penalty": 1.0, "top_k": 0, "top_p": 1.0}
    if unknown := sorted(name for name, value in given.items() if value != neutral.get(name)):
        raise ValueError(f"the engine 'api' has no generation setting {', '.join(unknown)}: chat completions do not")
    return fields
