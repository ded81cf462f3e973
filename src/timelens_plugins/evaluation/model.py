"""The lmms-eval chat model ``timelens``: Qwen3-VL and Qwen2.5-VL checkpoints under the official evaluation protocol.

Frame rate, pixel budget and decoding default to the protocol's; each is a ``--model_args`` name of its own. The
family is the config's ``model_type``, the time encoding the one saved with the processor. No system turn unless one
is given.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, GenerationConfig

from timelens_plugins.inference.engine import Answer, Question, VideoAnswerer
from timelens_plugins.inference.fingerprint import fingerprint
from timelens_plugins.inference.journal import Journal
from timelens_plugins.timestamps import load_processor, restore_text_positions

__all__ = ["TimeLens"]

logger = logging.getLogger(__name__)

DTYPES = ("auto", "float32", "bfloat16", "float16")
_GENERATION_KEYS = frozenset(
    {"max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "num_beams", "repetition_penalty"}
)
MAX_NEW_TOKENS = 512  # where a task says nothing, the protocol's


class TimeLens(lmms):
    """``lmms-eval --model timelens --model_args pretrained=PATH,…``.

    Args:
        pretrained: checkpoint folder or hub name of a Qwen3-VL or Qwen2.5-VL model.
        device: ``"cuda"``, ``"cuda:1"``, ``"cpu"``, …; by default a GPU where there is one.
        device_map: as transformers' ``from_pretrained``, instead of ``device``.
        dtype: of the weights: ``auto`` (the checkpoint's), ``float32``, ``bfloat16``, ``float16``.
        attn_implementation: as transformers' ``from_pretrained``.
        batch_size: answers decoded at the same time, all about one video. On the command line it has a flag of its own,
            ``--batch_size``.
        share_prefill: prefill a video once for all its questions.
        encoding: how the model is told times, see :mod:`timelens_plugins.timestamps`; default: the saved processor's.
        prompt: template with ``{query}``, or a file that holds one, instead of the task's text (rows need ``query``).
        system_prompt: a system turn; none by default, as in the protocol.
        fps, min_frames, max_frames, min_tokens, total_tokens, times: see :class:`timelens_plugins.video.FrameSampling`.
        video_backend: ``auto``, ``decord``, ``pyav`` or ``torchcodec``.
        decoder_threads: videos decoded ahead of the model.
        on_bad_video: ``error`` stops at an unreadable video; ``skip`` scores its questions as unanswered, names it in
            the log, and gives the count at the end.
        journal: folder of finished answers; a killed run started again with the same arguments continues from it.
        revision: of a hub repository. Code that comes with a checkpoint is never run.

    Raises:
        TypeError: an argument that does not exist, by name.
        ValueError: a value outside its range, or a model type other than the supported ones.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        device_map: str | None = None,
        dtype: str = "auto",
        attn_implementation: str | None = None,
        batch_size: int | str = 1,
        share_prefill: bool = True,
        max_batch_size: int | None = None,
        encoding: str | None = None,
        prompt: str | None = None,
        system_prompt: str | None = None,
        fps: float = 2.0,
        min_frames: int = 4,
        max_frames: int = 768,
        min_tokens: int = 64,
        total_tokens: int = 14336,
        times: str = "index",
        video_backend: str = "auto",
        decoder_threads: int = 2,
        on_bad_video: str = "error",
        journal: str | None = None,
        revision: str = "main",
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if on_bad_video not in ("error", "skip"):
            raise ValueError(f"on_bad_video must be 'error' or 'skip', got {on_bad_video!r}")
        if max_batch_size is not None or not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be a number of questions, at least 1; got {batch_size!r}")
        self.accelerator = Accelerator()
        if self.accelerator.num_processes > 1:
            # lmms-eval leaves its process group to the interpreter's exit, where processes abort one another.
            atexit.register(self.accelerator.state.destroy_process_group)
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._device = _pick_device(device, self.accelerator)
        self.processor = load_processor(
            pretrained,
            encoding=encoding,
            revision=revision,
            fps=float(fps),
            min_frames=int(min_frames),
            max_frames=int(max_frames),
            min_tokens=int(min_tokens),
            total_tokens=int(total_tokens),
            times=times,
        )
        model = AutoModelForImageTextToText.from_pretrained(
            pretrained,
            dtype=dtype,
            attn_implementation=attn_implementation,
            device_map=device_map,
            revision=revision,
        ).eval()
        restore_text_positions(model)
        if device_map is None:
            model = model.to(self._device)
        self._model = model
        self._batch_size = int(batch_size)
        self._prompt = _read_prompt(prompt)
        self._journal = journal
        self._options: dict[str, Any] = {
            "share_prefill": _flag("share_prefill", share_prefill),
            "max_rows": int(batch_size),
            "decoder_threads": int(decoder_threads),
            "video_backend": video_backend,
            "on_bad_video": on_bad_video,
            "system_prompt": system_prompt,
        }
        self._settings = {
            "pretrained": pretrained,
            "revision": revision,
            "fingerprint": fingerprint(model),  # a path may be trained again
            "dtype": str(model.dtype),
            "encoding": self.processor.encoding,
            "prompt": self._prompt,
            "system_prompt": system_prompt,
            **asdict(self.processor.frame_sampling),
        }

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
        items = self._read(requests)
        results: list[Answer | None] = [None] * len(items)
        journal = self._open_journal()
        progress = tqdm(total=len(items), desc="Answering", unit="question", disable=self.rank != 0)
        try:
            if journal is not None:
                for index, item in enumerate(items):
                    if item.key in journal:
                        record = journal[item.key]
                        results[index] = Answer((record["text"],), (record["output_tokens"],))
                        progress.update()
            for generation in dict.fromkeys(item.generation for item in items):
                wanted = [i for i, item in enumerate(items) if item.generation == generation and results[i] is None]
                settings = json.loads(generation)
                until = settings.pop("until")
                answerer = self._answerer(settings)
                for position, answer in answerer.answer([items[i].question for i in wanted]):
                    index = wanted[position]
                    answer = Answer((_cut(answer.texts[0], until),), answer.output_tokens, answer.error)
                    results[index] = answer
                    progress.update()
                    if journal is not None and answer.error is None and items[index].key not in journal:
                        journal.add(
                            items[index].key, {"text": answer.texts[0], "output_tokens": answer.output_tokens[0]}
                        )
                for path, error in answerer.skipped.items():
                    logger.error("not answered: every question about %s (%s)", path, error)
        finally:
            progress.close()
            if journal is not None:
                journal.close()
        done = [answer for answer in results if answer is not None]
        if len(done) != len(items):
            raise RuntimeError(f"{len(items) - len(done)} of {len(items)} questions have no answer; this is a defect")
        return [
            GenerationResult(text=a.texts[0], token_counts=TokenCounts(output_tokens=a.output_tokens[0])) for a in done
        ]

    def _answerer(self, generation: Mapping[str, Any]) -> VideoAnswerer:
        own = self._model.generation_config
        # A checkpoint's sampling defaults do not apply: what a task does not set is off.
        off = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} if generation["do_sample"] else {}
        config = GenerationConfig(
            **(off | dict(generation)), eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id, use_cache=True
        )
        return VideoAnswerer(self._model, self.processor, config, **self._options)

    def _read(self, requests: Sequence[Instance]) -> list[_Item]:
        items, seen = [], dict[str, int]()
        for request in requests:
            _, doc_to_messages, generation_kwargs, doc_id, task, split = request.args
            doc = self.task_dict[task][split][doc_id]
            question = _question(doc_to_messages(doc), task, doc_id)
            if self._prompt is not None:
                if "query" not in doc:
                    raise ValueError(f"prompt= needs rows with a 'query', which task '{task}' does not have")
                question = Question(
                    question.video, self._prompt.format(query=doc["query"]), question.video_start, question.video_end
                )
            generation = json.dumps(_generation(generation_kwargs, task), sort_keys=True)
            content = json.dumps([task, split, doc_id, question.clip, question.text, generation], default=str)
            repeat = seen[content] = seen.get(content, -1) + 1
            key = hashlib.sha256(f"{content}#{repeat}".encode()).hexdigest()
            items.append(_Item(question, generation, key))
        return items

    def _open_journal(self) -> Journal | None:
        if self._journal is None:
            return None
        name = f"answers-{self.rank}-of-{self.world_size}.jsonl"
        return Journal(Path(self._journal).expanduser() / name, self._settings)


@dataclass(frozen=True, slots=True)
class _Item:
    question: Question
    generation: str  # JSON, so that equal settings compare equal
    key: str


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


def _flag(name: str, value: object) -> bool:
    """A truth value as lmms-eval's argument strings give it."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError(f"{name} must be true or false, got {value!r}")


def _read_prompt(prompt: str | None) -> str | None:
    if prompt is None:
        return None
    if "{query}" not in prompt and Path(prompt).is_file():
        prompt = Path(prompt).read_text().strip()
    if "{query}" not in prompt:
        raise ValueError(f"prompt must contain {{query}} or be a file that does, got {prompt!r}")
    return prompt


def _question(messages: Sequence[Mapping[str, Any]], task: str, doc_id: int) -> Question:
    """The video and the text of one user turn."""
    where = f"task '{task}', row {doc_id}"
    if len(messages) != 1 or messages[0]["role"] != "user":
        raise ValueError(f"{where}: the model 'timelens' takes one user turn, got {[m['role'] for m in messages]}")
    videos, texts = [], []
    for part in messages[0]["content"]:
        if part["type"] == "video":
            videos.append(part["url"])
        elif part["type"] == "text":
            texts.append(part["text"])
        else:
            raise ValueError(
                f"{where}: the model 'timelens' takes a video and a text, got a part of type {part['type']!r}"
            )
    if len(videos) != 1:
        raise ValueError(f"{where}: the model 'timelens' takes one video, got {len(videos)}")
    source, text = videos[0], "".join(texts)
    if isinstance(source, Mapping):
        return Question(str(source["url"]), text, source.get("video_start"), source.get("video_end"))
    return Question(str(source), text)


def _generation(given: Mapping[str, Any], task: str) -> dict[str, Any]:
    """A task's generation settings in transformers' terms: greedy where the temperature is 0 or not given."""
    unknown = sorted(given.keys() - _GENERATION_KEYS - {"until"})
    if unknown:
        raise ValueError(
            f"task '{task}': unknown generation settings {', '.join(unknown)}; known: until, "
            f"{', '.join(sorted(_GENERATION_KEYS))}"
        )
    until = given.get("until") or []
    settings = {k: given[k] for k in _GENERATION_KEYS if given.get(k) is not None}
    settings.setdefault("max_new_tokens", MAX_NEW_TOKENS)
    temperature = settings.get("temperature", 0)
    settings["do_sample"] = bool(settings.get("do_sample", temperature > 0)) and temperature > 0
    if not settings["do_sample"]:
        for name in ("temperature", "top_p", "top_k"):
            settings.pop(name, None)
    return settings | {"until": [until] if isinstance(until, str) else list(until)}


def _cut(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    ends = [text.find(stop) for stop in until if stop and stop in text]
    return text[: min(ends)] if ends else text
