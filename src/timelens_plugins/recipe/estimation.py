"""Settings of estimates of difficulty: model, answers, output."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timelens_plugins.answers import read_prompt
from timelens_plugins.atomic import refuse_special
from timelens_plugins.inference.engines import check_engine, parse_engine_args
from timelens_plugins.recipe.data import DataArguments
from timelens_plugins.video.backends import preference
from timelens_plugins.video.frame_cache import check_bound

if TYPE_CHECKING:
    from timelens_plugins.inference.api.engine import ApiSettings
    from timelens_plugins.inference.vllm.settings import VllmSettings

__all__ = ["EstimateArguments", "api_settings", "vllm_settings"]

_OF_TRANSFORMERS = frozenset({"device", "attn_implementation", "batch_frames", "max_rows"})
_OF_A_MODEL = frozenset(
    (
        *("encoding", "fps", "min_frames", "max_frames", "min_tokens", "total_tokens", "times"),
        *("model_revision", "dtype"),
        *_OF_TRANSFORMERS,
    )
)
_HERE = frozenset({"model", "prompt", "clip_workers", "video_backend", "cache", "cache_gb", "on_bad_video"})
"""Settings of the engine that have names of their own in the recipe."""


@dataclass
class EstimateArguments:
    """Model, answers, output."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint folder, hub name, or a synthetic: name."})
    output: str = field(metadata={"help": "The file of difficulty rows (JSON Lines) to write."})
    engine: str = field(
        default="transformers",
        metadata={"help": "What answers: transformers, vllm, or api (model_name_or_path is a model at an endpoint)."},
    )
    engine_args: str | None = field(
        default=None,
        metadata={"help": "Of engine=api or vllm, as in lmms-eval's model_args: base_url=http://localhost:8000/v1."},
    )
    model_revision: str = field(default="main", metadata={"help": "Of a hub repository."})
    dtype: str = field(default="auto", metadata={"help": "Of the weights: auto, float32, bfloat16 or float16."})
    device: str | None = field(default=None, metadata={"help": "Default: this process's GPU, or the CPU."})
    attn_implementation: str | None = field(default=None, metadata={"help": "As transformers' from_pretrained."})
    samples: int = field(default=1, metadata={"help": "Answers a moment: 1, greedy, or several, sampled."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampled answers."})
    top_p: float = field(default=1.0, metadata={"help": "Of sampled answers."})
    max_new_tokens: int = field(default=512, metadata={"help": "Of an answer."})
    max_rows: int = field(default=16, metadata={"help": "Answers decoded at the same time; sampled ones of one video."})
    seed: int = field(default=0, metadata={"help": "Of sampled answers."})
    clip_workers: int | None = field(
        default=None, metadata={"help": "Videos decoded ahead of the model. Default: as many as it takes not to wait."}
    )
    video_backend: str = field(default="auto", metadata={"help": "auto, pyav, decord or torchcodec."})
    cache: str | None = field(
        default=None, metadata={"help": "Folder where decoded frames are kept for further runs about the same videos."}
    )
    cache_gb: float | None = field(default=None, metadata={"help": "Of the cache at most. Default: 20."})
    on_bad_video: str = field(
        default="skip",
        metadata={"help": "An unreadable video is listed beside the output ('skip'), or stops the run ('error')."},
    )
    shard: int | None = field(default=None, metadata={"help": "Which process this is. Default: RANK, or 0."})
    shards: int | None = field(default=None, metadata={"help": "Of how many. Default: WORLD_SIZE, or 1."})

    def __post_init__(self) -> None:
        if self.on_bad_video not in ("skip", "error"):
            raise ValueError(f"on_bad_video must be 'skip' or 'error', got {self.on_bad_video!r}")
        check_engine(self.engine)
        if self.engine_args and self.engine == "transformers":
            raise ValueError("engine=transformers takes no engine_args: its settings have names of their own")
        if (self.shard is None) != (self.shards is None):
            raise ValueError("shard and shards are set together, or not at all")
        if self.shard is None or self.shards is None:
            self.shard, self.shards = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if not 0 <= self.shard < self.shards:
            raise ValueError(
                f"shard={self.shard} of shards={self.shards}: the first of n processes is 0, the last n - 1"
            )
        if self.clip_workers is not None and self.clip_workers < 1:
            raise ValueError(f"clip_workers must be at least 1, got {self.clip_workers}; leave it out to have it found")
        preference(self.video_backend)
        check_bound(self.cache, self.cache_gb)

    def check_output(self) -> None:
        """Try whether the rows could be written, before anything is answered.

        Raises:
            ValueError: ``output`` is empty or a folder.
            OSError: it is a device, or its folder cannot be made or written to.
        """
        path = Path(self.output)
        if not path.name or path.is_dir():
            raise ValueError(f"output={self.output!r} is a folder; name the file of rows to write")
        refuse_special(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def api_settings(data: DataArguments, arguments: EstimateArguments) -> ApiSettings:
    """The settings of ``engine=api``; those of a model that is loaded here would have no effect, and are errors.

    Raises:
        ValueError: a setting that has no effect, or a value out of range.
    """
    from timelens_plugins.inference.api.engine import ApiSettings

    if idle := _given(data, arguments, _OF_A_MODEL):
        raise ValueError(f"engine=api: {', '.join(idle)} would have no effect; its preset decides frames and images")
    options = _known(arguments, {f.name for f in fields(ApiSettings) if f.init} - _HERE)
    return ApiSettings(
        arguments.model_name_or_path,
        prompt=None if data.prompt is None else read_prompt(data.prompt),
        clip_workers=arguments.clip_workers,
        video_backend=arguments.video_backend,
        cache=arguments.cache,
        cache_gb=arguments.cache_gb,
        on_bad_video=arguments.on_bad_video,  # type: ignore[arg-type]  # checked above
        **options,
    )


def vllm_settings(data: DataArguments, arguments: EstimateArguments) -> VllmSettings:
    """The settings of ``engine=vllm``; those of transformers alone would have no effect, and are errors.

    Raises:
        ValueError: a setting that has no effect, or a value out of range.
    """
    from timelens_plugins.inference.vllm.settings import VllmSettings

    if idle := _given(data, arguments, _OF_TRANSFORMERS):
        raise ValueError(f"engine=vllm: {', '.join(idle)} would have no effect; see engine_args")
    return VllmSettings(**_known(arguments, set(VllmSettings.names())))


def _given(data: DataArguments, arguments: EstimateArguments, names: frozenset[str]) -> list[str]:
    """Those of some settings that have another value than their default."""
    return [
        f.name
        for part in (data, arguments)
        for f in fields(part)
        if f.name in names and getattr(part, f.name) != f.default
    ]


def _known(arguments: EstimateArguments, known: set[str]) -> dict[str, Any]:
    options = parse_engine_args(arguments.engine_args)
    if unknown := sorted(options.keys() - known):
        raise ValueError(f"engine_args: unknown {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    return options
