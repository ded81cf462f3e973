"""The engine ``vllm``: questions about clips to vLLM, those of a video one after the other, each answer checked."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from timelens_plugins.inference.answering import Answer, Begin, Engine, Question
from timelens_plugins.inference.vllm.model import VllmError, VllmModel
from timelens_plugins.inference.vllm.parity import ParityError
from timelens_plugins.inference.vllm.request import VllmPrompt, vllm_prompts
from timelens_plugins.shared_prefix.sampling import NO_SAMPLING
from timelens_plugins.video import FrameCache, VideoClip, VideoError, sample_frames

__all__ = ["VllmEngine"]

logger = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True, eq=False)
class _Sent:
    """A question that vLLM is at."""

    index: int
    name: str
    ids: list[int]


class VllmEngine(Engine[VideoClip]):
    """Answers by vLLM.

    Answers come in the order in which they are complete. The questions about a video are sent one after the other, so
    that all but the first find its prompt in vLLM's prefix cache; how much of the prompts they found there is counted.

    Args:
        model: that answers; started by the first question that is not in a journal.
        generation: ``max_new_tokens``, ``do_sample``, ``temperature``, ``top_p``, ``top_k``, ``repetition_penalty``, as
            lmms-eval's tasks give them.
        samples: answers a question.
        seed: of sampled answers to questions that have none: they depend on it and on the question, and not on what is
            asked beside it. None for vLLM's own generator.
        log_probs: also return the log-prob of each token of an answer.
        system_prompt, clip_workers, video_backend, cache, on_bad_video: as of
            :class:`~timelens_plugins.inference.engine.VideoAnswerer`.

    Raises:
        ValueError: a generation setting that vLLM does not have.
    """

    def __init__(
        self,
        model: VllmModel,
        generation: Mapping[str, Any],
        samples: int = 1,
        *,
        seed: int | None = None,
        log_probs: bool = False,
        system_prompt: str | None = None,
        clip_workers: int | None = None,
        video_backend: str = "auto",
        cache: FrameCache | None = None,
        on_bad_video: Literal["error", "skip"] = "error",
    ) -> None:
        self.model, self.samples, self.log_probs = model, samples, log_probs
        self.on_bad_video, self.clip_workers = on_bad_video, clip_workers
        self.frame_sampling, self.cache = model.processor.frame_sampling, cache
        self.skipped = {}
        self.failures: dict[str, str] = {}
        """Question -> why vLLM did not take it."""
        self.counts: Counter[str] = Counter()
        """``answered``, ``earlier``, ``cut`` (of both), ``failed`` questions; ``prompt``, ``cached`` and ``output``
        tokens."""
        self._system, self._backend, self._seed = system_prompt, video_backend, seed
        self._sampling = _sampling(generation, samples, model.generation_config.eos_token_id)
        if log_probs:
            self._sampling["logprobs"] = 0
        if self._sampling["temperature"] > 0:
            processor = model.processor  # a sampled vision token would stand for nothing
            pads = processor.tokenizer.convert_tokens_to_ids([processor.image_token, processor.video_token])
            self._sampling["logit_bias"] = dict.fromkeys(pads, -100.0)

    @property
    def prompt(self) -> str:
        """The one that was saved with the checkpoint."""
        return self.model.processor.prompt

    def settings(self) -> dict[str, Any]:
        """Model, processor, vLLM, system turn and backend; every weight is read."""
        return {**self.model.identity(), "system_prompt": self._system, "video_backend": self._backend}

    def recall(self, answer: Answer) -> None:
        """Count an answer of an earlier run."""
        self.counts["earlier"] += 1
        self.counts["cut"] += bool(answer.details.get("cut"))

    def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
        """As they are complete; vLLM is started by the first."""
        sent: dict[str, _Sent] = {}
        held: list[tuple[list[int], VideoClip]] = []
        try:
            for indices, clip in self._clips(questions, begin):
                if isinstance(clip, VideoError):
                    yield from self._unread(clip, questions[indices[0]].video, indices)
                    continue
                held.append((indices, clip))
                if len(held) >= self.model.settings.parity:  # clips that vLLM is compared by, before it is asked
                    yield from self._ask_all(held, questions, sent)
                    held.clear()
            yield from self._ask_all(held, questions, sent)
            while sent:
                yield from self._step(sent)
        finally:
            if sent:
                self._llm.llm_engine.abort_request(list(sent))

    def close(self) -> None:
        """Print what was answered, cut and failed, and how much of the prompts the prefix cache held."""
        counts = self.counts
        for question, error in list(self.failures.items())[:_SHOWN]:
            logger.error("not answered: %s (%s)", question, error)
        if len(self.failures) > _SHOWN:
            logger.error("not answered: %d further questions", len(self.failures) - _SHOWN)
        if counts["cut"]:
            logger.warning(
                "%d answers were cut by the limit of tokens (max_new_tokens, or what max_model_len leaves): raise it",
                counts["cut"],
            )
        print(
            f"vLLM: {counts['answered']} questions answered, {counts['earlier']} by earlier runs, {counts['failed']} "
            f"failed; {counts['prompt']} prompt and {counts['output']} output tokens, "
            f"{counts['cached'] / max(1, counts['prompt']):.1%} of the prompt tokens found in the prefix cache",
            flush=True,
        )

    def _prepare(self, path: str, start: float | None, end: float | None) -> VideoClip:
        sampling = self.model.processor.frame_sampling
        return sample_frames(path, sampling, video_start=start, video_end=end, backend=self._backend, cache=self.cache)

    @property
    def _llm(self) -> Any:
        return self.model.start(())

    def _ask_all(
        self, held: Sequence[tuple[list[int], VideoClip]], questions: Sequence[Question], sent: dict[str, _Sent]
    ) -> Iterator[tuple[int, Answer]]:
        """Send the questions about some clips, and hand over what is complete meanwhile."""
        if not held:
            return
        names = [f"{questions[indices[0]].video}: {questions[indices[0]].text!r}" for indices, _ in held]
        first = [
            (name, clip, questions[indices[0]].text, self._system)
            for name, (indices, clip) in zip(names, held, strict=True)
        ]
        llm = self.model.start(first)
        for indices, clip in held:
            prompts = vllm_prompts(self.model.processor, clip, [questions[i].text for i in indices], self._system)
            for index, prompt in zip(indices, prompts, strict=True):
                while len(sent) >= 2 * self.model.settings.concurrency:  # each holds its clip's frames
                    yield from self._step(sent)
                name = f"{questions[index].video}: {questions[index].text!r}"
                try:
                    sent[self._send(llm, prompt, questions[index])] = _Sent(
                        index, name, prompt.prompt.input_ids.tolist()
                    )
                except VllmError as error:
                    self.counts["failed"] += 1
                    self.failures[name] = str(error)
                    if self.model.settings.on_failed_request == "error":
                        while sent:  # what is under way is not lost
                            yield from self._step(sent)
                        raise VllmError(f"{name}: {error}") from error
                    yield index, self._failed(str(error))

    def _send(self, llm: Any, prompt: VllmPrompt, question: Question) -> str:
        """The name of the request."""
        import vllm

        length, most = len(prompt.prompt), llm.model_config.max_model_len
        if length >= most:
            vision = int((prompt.prompt.mm_token_type_ids > 0).sum())
            raise VllmError(
                f"its prompt of {length} tokens, {vision} of them of the video, leaves no room for an answer in "
                f"max_model_len={most}: show less of the video (total_tokens, max_frames), or raise max_model_len"
            )
        sampling = vllm.SamplingParams(**self._sampling, seed=self._seed_of(question))
        try:
            [name] = llm.enqueue([prompt.request], sampling, use_tqdm=False)
        except Exception as error:  # vLLM raises many kinds; whichever it is, it is raised again, named
            raise VllmError(f"vLLM does not take its prompt: {type(error).__name__}: {error}") from error
        return str(name).partition("-")[0]  # vLLM appends characters of its own, and leaves them out of its outputs

    def _step(self, sent: dict[str, _Sent]) -> Iterator[tuple[int, Answer]]:
        """What is complete after one step of vLLM."""
        for output in self._llm.llm_engine.step():
            if output.finished:
                question = sent.pop(output.request_id)
                yield question.index, self._read(question, output)

    def _read(self, question: _Sent, output: Any) -> Answer:
        found = list(output.prompt_token_ids)
        if found != question.ids:
            raise ParityError(
                f"{question.name}: vLLM read {len(found)} prompt ids, the processor writes {len(question.ids)}, and "
                "they are not the same; take engine=transformers, and report it with the versions of timelens doctor"
            )
        completions = sorted(output.outputs, key=lambda completion: int(completion.index))
        ids = tuple(tuple(completion.token_ids) for completion in completions)
        cut = any(completion.finish_reason == "length" for completion in completions)
        self.counts.update(
            answered=1,
            cut=cut,
            prompt=len(found),
            cached=output.num_cached_tokens or 0,
            output=sum(map(len, ids)),
        )
        scores = None
        if self.log_probs:
            scores = tuple(
                tuple(step[token].logprob for token, step in zip(c.token_ids, c.logprobs, strict=True))
                for c in completions
            )
        return Answer(
            tuple(self.model.processor.answer_texts([list(row) for row in ids])),
            tuple(map(len, ids)),
            token_ids=ids,
            log_probs=scores,
            details={"cut": True} if cut else {},
        )

    def _seed_of(self, question: Question) -> int | None:
        if question.seed is not None or self._seed is None:
            return question.seed
        content = json.dumps([self._seed, question.video.rpartition("/")[2], *question.clip[1:], question.text])
        return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest()) >> 2


def _sampling(generation: Mapping[str, Any], samples: int, eos: int | list[int] | None) -> dict[str, Any]:
    """Generation settings as those of ``vllm.SamplingParams``."""
    given = {name: value for name, value in generation.items() if value is not None and name != "until"}
    sampled = bool(given.pop("do_sample", False))
    if samples > 1 and not sampled:
        raise ValueError(f"{samples} samples of a greedy answer would be equal; set do_sample")
    settings: dict[str, Any] = {"n": samples, "temperature": 0.0, "detokenize": False}
    if "max_new_tokens" in given:
        settings["max_tokens"] = int(given.pop("max_new_tokens"))
    if "repetition_penalty" in given:
        settings["repetition_penalty"] = float(given.pop("repetition_penalty"))
    ends = [eos] if isinstance(eos, int) else list(eos or ())
    settings |= {"stop_token_ids": ends} if ends else {}
    if sampled:
        settings["temperature"] = float(given.pop("temperature", 1.0))
        settings |= {name: given.pop(name) for name in ("top_p", "top_k") if name in given}
    neutral = NO_SAMPLING | {"num_beams": 1}
    if unknown := sorted(name for name, value in given.items() if value != neutral.get(name)):
        raise ValueError(f"the engine 'vllm' has no generation setting {', '.join(unknown)}")
    return settings
