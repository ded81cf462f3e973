"""The lmms-eval chat model ``timelens``: checkpoints of the known families under the official evaluation protocol.

Frame rate, pixel budget and decoding default to the protocol's; each is a ``--model_args`` name of its own. The
family is the config's ``model_type``, the time encoding the one saved with the processor. No system turn unless one
is given.
"""

from __future__ import annotations

import atexit
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from tqdm import tqdm
from transformers import GenerationConfig

from timelens_plugins.answers import GROUNDING_PROMPT, ask, read_prompt
from timelens_plugins.clips import ClipKey
from timelens_plugins.evaluation.arguments import as_flag, as_number, as_whole, check_filled, clip_options
from timelens_plugins.evaluation.generation import cut_at, generation_of, task_generation
from timelens_plugins.evaluation.processes import Processes
from timelens_plugins.evaluation.questions import SEED, Item, item_of, question_of
from timelens_plugins.families.load import load_model
from timelens_plugins.inference.answering import Answer, Engine
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.inference.engines import check_engine
from timelens_plugins.inference.journal import Journal, check_folder
from timelens_plugins.inference.shares import in_order
from timelens_plugins.renamed import refuse_renamed

__all__ = ["DTYPES", "TimeLens"]

logger = logging.getLogger(__name__)

DTYPES = ("auto", "float32", "bfloat16", "float16")
_LOOKING = 8  # threads that look at the headers of files


class TimeLens(lmms):
    """``lmms-eval --model timelens --model_args pretrained=PATH,…``.

    Args:
        pretrained: checkpoint folder or hub name of a model of a known family.
        device: ``"cuda"``, ``"cuda:1"``, ``"cpu"``, …; by default a GPU where there is one.
        device_map: as transformers' ``from_pretrained``, instead of ``device``.
        dtype: of the weights: ``auto`` (the checkpoint's), ``float32``, ``bfloat16``, ``float16``.
        attn_implementation: as transformers' ``from_pretrained``.
        batch_frames: the vision tower's attention for all frames of a clip in one batch; by default on a GPU.
        max_rows: answers decoded at the same time, of as many videos as that takes and memory allows; by default 64.
            What is answered does not depend on it, up to rounding.
        batch_size: lmms-eval's name of ``max_rows``, for which the command has the flag ``--batch_size``; 1, its
            default, leaves the number to ``max_rows``.
        share_prefix: prefill a video once for all its questions.
        encoding: how the model is told times, see :mod:`timelens_plugins.encodings`; default: the saved processor's.
        prompt: a name (``thinking``, ``grounding``), a template with ``{query}``, or a file that holds one, instead of
            the task's text (rows need ``query``). By default the prompt that was saved with the checkpoint, where it
            was trained with another than the benchmark's.
            Other braces are text.
        thinking: whether a model whose chat template has a thinking mode thinks before it answers. Off unless the
            checkpoint was saved with it, also where its template has it on by itself.
        system_prompt: a system turn; none by default, as in the protocol.
        fps, min_frames, max_frames, min_tokens, total_tokens, max_pixels, times: see
            :class:`timelens_plugins.video.FrameSampling`.
        video_backend: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
        cache: folder where decoded frames are kept, of at most ``cache_gb`` (20): a further run about the same videos,
            also a training, reads them there.
        clip_workers: videos decoded ahead of the model; by default as many as it takes not to wait.
        on_bad_video: ``error`` stops at an unreadable video; ``skip`` scores its questions as unanswered, names it in
            the log, and gives the count at the end.
        journal: folder of finished answers, which any number of runs and processes may share. Answers of the same
            model files, processor and settings about the same content of a video count, all others start afresh, and
            the log says why; see :mod:`timelens_plugins.inference.journal`.
        engine: ``transformers``; ``vllm``, whose arguments are those of
            :class:`timelens_plugins.evaluation.vllm_model.TimeLensVllm`; with ``api``, ``pretrained`` is a model at an
            endpoint, and the other arguments are those of
            :class:`timelens_plugins.evaluation.api_model.TimeLensApi`.
        revision: of a hub repository. Code that comes with a checkpoint is never run.

    Raises:
        TypeError: an argument that does not exist, by name.
        ValueError: an argument that has another name now; a value outside its range, or a model type other than the
            supported ones.
    """

    is_simple = False

    def __new__(cls, *args: Any, engine: str = "transformers", **options: Any) -> TimeLens:
        """Of the class that goes with the engine."""
        check_engine(engine)
        check_filled(options)
        if cls is TimeLens and engine == "api":
            from timelens_plugins.evaluation.api_model import TimeLensApi

            return super().__new__(TimeLensApi)
        if cls is TimeLens and engine == "vllm":
            from timelens_plugins.evaluation.vllm_model import TimeLensVllm

            return super().__new__(TimeLensVllm)
        return super().__new__(cls)

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        device_map: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        batch_frames: bool | None = None,
        batch_size: int | str = 1,
        max_rows: int | None = None,
        share_prefix: bool = True,
        max_batch_size: int | None = None,
        encoding: str | None = None,
        prompt: str | None = None,
        thinking: bool | None = None,
        system_prompt: str | None = None,
        fps: float = 2.0,
        min_frames: int = 4,
        max_frames: int = 768,
        min_tokens: int = 64,
        total_tokens: int = 14336,
        max_pixels: int | None = None,
        times: str = "index",
        video_backend: str = "auto",
        cache: str | None = None,
        cache_gb: float | None = None,
        clip_workers: int | None = None,
        on_bad_video: str = "error",
        journal: str | None = None,
        revision: str = "main",
        engine: str = "transformers",
        **unknown: Any,
    ) -> None:
        refuse_renamed(unknown, "--model_args")
        if unknown:
            raise TypeError(f"the model 'timelens' has no argument {', '.join(unknown)}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if on_bad_video not in ("error", "skip"):
            raise ValueError(f"on_bad_video must be 'error' or 'skip', got {on_bad_video!r}")
        if max_batch_size is not None or not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be a number of questions, at least 1; got {batch_size!r}")
        if max_rows is not None and int(batch_size) != 1:
            raise ValueError(f"max_rows={max_rows} and batch_size={batch_size} are one setting: give one of them")
        if max_rows is None and int(batch_size) != 1:
            max_rows = int(batch_size)
        self._set_up(prompt, journal, device, {"pretrained": pretrained, "revision": revision})
        self._options: dict[str, Any] = {
            "share_prefix": as_flag("share_prefix", share_prefix),
            "max_rows": None if max_rows is None else as_whole("max_rows", max_rows),
            **clip_options(video_backend, cache, cache_gb, clip_workers),
            "on_bad_video": on_bad_video,
            "system_prompt": system_prompt,
        }
        self._model, self.processor = load_model(
            pretrained,
            encoding,
            dtype=dtype,
            device=self._device if device_map is None else None,
            device_map=device_map,
            attn_implementation=attn_implementation,
            batch_frames=None if batch_frames is None else as_flag("batch_frames", batch_frames),
            revision=revision,
            thinking=None if thinking is None else as_flag("thinking", thinking),
            fps=as_number("fps", fps),
            min_frames=as_whole("min_frames", min_frames),
            max_frames=as_whole("max_frames", max_frames),
            min_tokens=as_whole("min_tokens", min_tokens),
            total_tokens=as_whole("total_tokens", total_tokens),
            max_pixels=None if max_pixels is None else as_whole("max_pixels", max_pixels),
            times=times,
        )
        self._batch_size = int(batch_size)
        self._say_prompt(prompt)

    def _set_up(self, prompt: str | None, journal: str | None, device: str | None, note: dict[str, Any]) -> None:
        """What is the same with every engine; faults of prompt and journal are said before a model is loaded."""
        lmms.__init__(self)
        self._prompt = None if prompt is None else read_prompt(prompt)
        self._journal = None if journal is None else check_folder(Path(journal).expanduser())
        self._note = note
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            # lmms-eval leaves its process group to the interpreter's exit, where processes abort one another.
            atexit.register(self.accelerator.state.destroy_process_group)
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._device = _pick_device(device, self.accelerator)

    def _say_prompt(self, prompt: str | None) -> None:
        if prompt is None and self.processor.prompt != GROUNDING_PROMPT:
            logger.info("asked as it was trained: %r; prompt=grounding asks as the benchmark", self.processor.prompt)

    @property
    def _own_prompt(self) -> str:
        """What the model was trained with."""
        return self.processor.prompt

    @property
    def model(self) -> torch.nn.Module:
        """The transformers model."""
        return self._model

    @property
    def device(self) -> torch.device:
        """Where the inputs go, and where lmms-eval gathers its counts."""
        return self._device

    @property
    def batch_size(self) -> int:
        """Questions per forward."""
        return self._batch_size

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not available: the model answers in text."""
        raise TypeError("the model 'timelens' generates text; it cannot run loglikelihood tasks")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not available: grounding is one question, one answer."""
        raise TypeError("the model 'timelens' answers one turn; it cannot run multi-round tasks")

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers in the order of ``requests``."""
        own = self._read(requests)
        processes = Processes.of_run(self.rank, self.world_size)
        items = list(dict.fromkeys(item for asked in processes.gather(own) for item in asked))
        engines = {g: self._engine(json.loads(g)) for g in dict.fromkeys(item.generation for item in items)}
        journal = self._open_journal(engines)
        answers: dict[Item, Answer] = {}
        try:
            if journal is not None:
                answers = self._finished(journal, items, engines, set(own))
            with tqdm(desc="Answering", unit="question", disable=self.rank != 0) as progress:
                for number, (generation, engine) in enumerate(engines.items()):
                    wanted = [item for item in items if item.generation == generation and item not in answers]
                    progress.total = (progress.total or 0) + len(wanted) // processes.count
                    for item, answer in _answered(engine, wanted, processes, f"{number}"):
                        answers[item] = answer
                        progress.total = max(progress.total, progress.n + 1)  # what others have left comes on top
                        progress.update()
                        if journal is not None and answer.error is None:
                            record = {"text": answer.texts[0], "output_tokens": answer.output_tokens[0]}
                            record |= {"details": dict(answer.details)} if answer.details else {}
                            journal.add(item.key, item.question.video, record)
                    for path, error in engine.skipped.items():
                        logger.error("not answered: every question about %s (%s)", path, error)
        finally:
            for engine in engines.values():
                engine.close()
                if engine.seconds:
                    print(f"{self._name}: {engine.waiting()}", flush=True)
            if journal is not None:
                journal.close()
        answers = {item: answer for given in processes.gather(answers) for item, answer in given.items()}
        if missing := [item for item in own if item not in answers]:
            raise RuntimeError(f"{len(missing)} of {len(own)} questions have no answer; this is a defect")
        return [
            GenerationResult(text=a.texts[0], token_counts=TokenCounts(output_tokens=a.output_tokens[0]))
            for a in map(answers.__getitem__, own)
        ]

    @property
    def _name(self) -> str:
        return "timelens" if self.world_size == 1 else f"timelens, process {self.rank}"

    def _finished(
        self, journal: Journal, items: Sequence[Item], engines: Mapping[str, Engine[Any]], own: set[Item]
    ) -> dict[Item, Answer]:
        """The answers of earlier runs; engines take note of those to this process's ``own`` questions."""
        answers = {}
        found = journal.lookup((item.key, item.question.video) for item in items)
        for item, record in zip(items, found, strict=True):
            if record is not None:
                details = record.get("details", {})
                answers[item] = Answer((record["text"],), (record["output_tokens"],), details=details)
                if item in own:
                    engines[item.generation].recall(answers[item])
        self._say_other_seeds(journal, [item.key for item in own if item not in answers])
        return answers

    def _engine(self, generation: Mapping[str, Any]) -> Engine[Any]:
        """What answers questions under a task's generation settings, stop strings aside."""
        own = self._model.generation_config
        config = GenerationConfig(
            **generation_of(generation, own),
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
            use_cache=True,
        )
        return VideoAnswerer(self._model, self.processor, config, **self._options)

    def _read(self, requests: Sequence[Instance]) -> list[Item]:
        items, seen = [], Counter[str]()
        seed = torch.initial_seed()  # lmms-eval's --seed
        for request in requests:
            _, doc_to_messages, generation_kwargs, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            question = question_of(doc_to_messages(doc), task, doc_id)
            if (template := self._template(doc, task)) is not None:
                question = replace(question, text=ask(template, doc["query"]))
            generation = task_generation(generation_kwargs, task)
            items.append(item_of(question, generation, [task, split, doc_id], seed, seen))
        return items

    def _template(self, doc: Mapping[str, Any], task: str) -> str | None:
        """The prompt in the place of the task's text: what is set, else what the checkpoint was trained with."""
        if self._prompt is not None:
            if "query" not in doc:
                raise ValueError(f"prompt= needs rows with a 'query', which task '{task}' does not have")
            return self._prompt
        trained = self._own_prompt
        own_words = "query" not in doc or doc.get("question")
        return None if trained == GROUNDING_PROMPT or own_words else trained

    def _open_journal(self, engines: Mapping[str, Engine[Any]]) -> Journal | None:
        if self._journal is None or not engines:
            return None
        # Generation settings belong to the question: all engines of a run have the same settings otherwise.
        settings = {**next(iter(engines.values())).settings(), "prompt": self._prompt}
        return Journal(self._journal, settings, self._note)

    def _say_other_seeds(self, journal: Journal, missing: Sequence[str]) -> None:
        """Sampled answers of another ``--seed`` do not count, which the log says."""
        wanted = dict(key.split(SEED) for key in missing if SEED in key)
        known = [key.split(SEED) for key in journal if SEED in key]
        if others := [(key, seed) for key, seed in known if key in wanted and seed != wanted[key]]:
            logger.warning(
                "%s: %d sampled answers start afresh: seed: %s then, %s now. What was sampled then is kept",
                journal.path,
                len({key for key, _ in others}),
                " and ".join(sorted({seed for _, seed in others})),
                " and ".join(sorted({wanted[key] for key, _ in others})),
            )


def _answered(
    engine: Engine[Any], items: Sequence[Item], processes: Processes, name: str
) -> Iterator[tuple[Item, Answer]]:
    """Answers of an engine, clip by clip, the largest first; those that other processes give are left out."""
    clips: dict[ClipKey, list[Item]] = {}
    for item in items:
        clips.setdefault(item.question.clip, []).append(item)
    with ThreadPoolExecutor(_LOOKING) as pool:
        costs = list(pool.map(lambda clip: engine.cost(clip, len(clips[clip])), clips))
    groups = list(clips.values())
    mine, others = in_order(costs, processes.index, processes.count)
    ordered = [item for i in (*mine, *others) for item in groups[i]]
    questions = [item.question for item in ordered]
    for index, answer in engine.answer(questions, lambda clip: processes.claim(f"{name} {json.dumps(clip)}")):
        until = json.loads(ordered[index].generation)["until"]
        yield ordered[index], replace(answer, texts=(cut_at(answer.texts[0], until),))


def _pick_device(device: str | None, accelerator: Accelerator) -> torch.device:
    if accelerator.num_processes == 1:
        return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device is not None and torch.device(device).type != accelerator.device.type:
        remedy = "set" if torch.device(device).type == "cpu" else "do not set"
        raise ValueError(
            f"device={device} does not fit {accelerator.num_processes} processes on {accelerator.device.type}: leave "
            f"device out, and {remedy} ACCELERATE_USE_CPU=true"
        )
    return accelerator.device
