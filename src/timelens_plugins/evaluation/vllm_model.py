"""The lmms-eval model ``timelens`` with ``engine=vllm``: the same tasks, prompts, frames and journal, in vLLM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timelens_plugins.encodings import load_processor
from timelens_plugins.encodings.messages import sampling_keys
from timelens_plugins.evaluation.arguments import as_flag, clip_options
from timelens_plugins.evaluation.generation import generation_of
from timelens_plugins.evaluation.model import DTYPES, TimeLens
from timelens_plugins.inference.vllm.engine import VllmEngine
from timelens_plugins.inference.vllm.model import VllmModel
from timelens_plugins.inference.vllm.settings import VllmSettings
from timelens_plugins.renamed import refuse_renamed

__all__ = ["TimeLensVllm"]


class TimeLensVllm(TimeLens):
    """``lmms-eval --model timelens --model_args engine=vllm,pretrained=PATH,…``.

    Args:
        pretrained, revision, dtype, encoding, prompt, thinking, system_prompt, video_backend, clip_workers, cache,
            cache_gb, on_bad_video, journal: as with ``engine=transformers``. In a journal, answers of transformers and
            of vLLM do not count for each other.
        engine: ``vllm``.
        batch_size: 1; ``concurrency`` is how many answers are generated at the same time.
        options: ``fps``, ``min_frames``, ``max_frames``, ``min_tokens``, ``total_tokens``, ``max_pixels``, ``times``;
            and the fields of :class:`~timelens_plugins.inference.vllm.settings.VllmSettings`.

    Raises:
        TypeError: an argument that does not exist, by name.
        ValueError: a value outside its range; a checkpoint that vLLM would compute otherwise than transformers.
        VllmError: several processes.
    """

    def __init__(
        self,
        pretrained: str,
        engine: str = "vllm",
        dtype: str = "auto",
        batch_size: int | str = 1,
        encoding: str | None = None,
        prompt: str | None = None,
        thinking: bool | None = None,
        system_prompt: str | None = None,
        video_backend: str = "auto",
        cache: str | None = None,
        cache_gb: float | None = None,
        clip_workers: int | None = None,
        on_bad_video: str = "error",
        journal: str | None = None,
        revision: str = "main",
        **options: Any,
    ) -> None:
        refuse_renamed(options, "--model_args")
        frames = [name for name in sampling_keys() if name not in ("patch_size", "merge_size")]
        known = {*frames, *VllmSettings.names()}
        if unknown := sorted(options.keys() - known):
            raise TypeError(f"engine=vllm has no argument {', '.join(unknown)}; it has {', '.join(sorted(known))}")
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if on_bad_video not in ("error", "skip"):
            raise ValueError(f"on_bad_video must be 'error' or 'skip', got {on_bad_video!r}")
        if str(batch_size) != "1":
            raise ValueError(
                f"engine=vllm takes no batch_size, got {batch_size!r}: concurrency= is how many answers are generated "
                "at the same time"
            )
        if isinstance(options.get("enforce_eager"), str):
            options["enforce_eager"] = as_flag("enforce_eager", options["enforce_eager"])
        settings = VllmSettings(**{k: v for k, v in options.items() if k not in frames})
        clips = clip_options(video_backend, cache, cache_gb, clip_workers)
        self._set_up(prompt, journal, None, {"engine": engine, "pretrained": pretrained, "revision": revision})
        self.processor = load_processor(
            pretrained,
            encoding,
            revision=revision,
            thinking=None if thinking is None else as_flag("thinking", thinking),
            **{k: v for k, v in options.items() if k in frames},
        )
        self._vllm = VllmModel(pretrained, self.processor, settings, dtype=dtype, revision=revision)
        self._batch_size = 1
        self._say_prompt(prompt)
        self._options = {
            **clips,
            "on_bad_video": on_bad_video,
            "system_prompt": system_prompt,
        }

    def _engine(self, generation: Mapping[str, Any]) -> VllmEngine:
        own = generation_of(generation, self._vllm.generation_config)
        return VllmEngine(self._vllm, own, **self._options)
