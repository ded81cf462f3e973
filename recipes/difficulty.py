"""Estimate how hard moments are for a model: one row a moment with the model's answers and their IoU.

    python recipes/difficulty.py --config recipes/configs/tiny_difficulty.yaml
    accelerate launch recipes/difficulty.py --config my.yaml --samples 8

Settings: ``DataArguments`` and ``EstimateArguments``, by YAML and flags. Several processes, started by accelerate or
torchrun, or by hand with ``--shard`` and ``--shards``, share the videos; they need no connection to each other, only
the same output folder. The same command continues a run that was killed.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import torch

from timelens_plugins.difficulty.estimate import Answering, difficulty_settings, engine_settings, estimate_difficulty
from timelens_plugins.families.load import load_model
from timelens_plugins.inference.answering import Engine
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.recipe import (
    DataArguments,
    EstimateArguments,
    api_settings,
    before_training,
    files_of,
    load_recipe_processor,
    start,
    training_moments,
    vllm_settings,
)
from timelens_plugins.video import open_cache

SETTINGS = (DataArguments, EstimateArguments)


def main(data: DataArguments, arguments: EstimateArguments) -> int:
    with before_training():
        arguments.check_output()
        data.annotations = files_of(data.annotations, data.synthetic_folder)
        answering = Answering(
            samples=arguments.samples,
            temperature=arguments.temperature,
            top_p=arguments.top_p,
            max_new_tokens=arguments.max_new_tokens,
            max_rows=arguments.max_rows,
            seed=arguments.seed,
        )
        moments = training_moments(data, arguments.on_bad_video)  # type: ignore[arg-type]  # checked above
        build = {"transformers": _model, "vllm": _vllm, "api": _endpoint}[arguments.engine]
        engine, settings = build(data, arguments, answering)
    settings |= {"video_backend": arguments.video_backend}  # the frames of some files depend on it
    outcome = estimate_difficulty(
        engine,
        moments,
        arguments.output,
        settings,
        seed=answering.seed,
        shard=arguments.shard or 0,
        shards=arguments.shards or 1,
        video_root=str(data.videos),
    )
    if outcome is not None:
        print(f"{outcome.rows} rows written to {outcome.output}")
        for video, error in outcome.failed.items():
            print(f"not answered: {video}: {error}")
        if outcome.failed:
            listing = f"{outcome.output}.failed.jsonl"
            print(f"{outcome.unanswered} moments of {len(outcome.failed)} videos have no row, see {listing}")
        if not outcome.rows:
            print(f"{outcome.output} is empty: no video could be read", file=sys.stderr)
            return 1
    return 0


def _model(
    data: DataArguments, arguments: EstimateArguments, answering: Answering
) -> tuple[Engine[Any], dict[str, Any]]:
    """A checkpoint, loaded here."""
    checkpoint = files_of(arguments.model_name_or_path, data.synthetic_folder)
    processor = load_recipe_processor(data, checkpoint, arguments.model_revision)
    model, _ = load_model(
        checkpoint,
        processor=processor,
        revision=arguments.model_revision,
        dtype=arguments.dtype,
        device=arguments.device or _device(),
        attn_implementation=arguments.attn_implementation,
        batch_frames=data.batch_frames,
    )
    engine = VideoAnswerer(
        model,
        processor,
        answering.generation_config(model),
        samples=answering.samples,
        max_rows=answering.max_rows,
        clip_workers=arguments.clip_workers,
        video_backend=arguments.video_backend,
        cache=open_cache(arguments.cache, arguments.cache_gb),
        on_bad_video=arguments.on_bad_video,  # type: ignore[arg-type]  # checked above
    )
    return engine, difficulty_settings(
        model, processor, arguments.model_name_or_path, answering, revision=arguments.model_revision
    )


def _vllm(
    data: DataArguments, arguments: EstimateArguments, answering: Answering
) -> tuple[Engine[Any], dict[str, Any]]:
    """A checkpoint in vLLM; transformers loads it first, to tell which it is."""
    from timelens_plugins.inference.vllm.engine import VllmEngine
    from timelens_plugins.inference.vllm.model import VllmModel, mark

    checkpoint = files_of(arguments.model_name_or_path, data.synthetic_folder)
    processor = load_recipe_processor(data, checkpoint, arguments.model_revision)
    model = VllmModel(
        checkpoint, processor, vllm_settings(data, arguments), dtype=arguments.dtype, revision=arguments.model_revision
    )
    engine = VllmEngine(
        model,
        answering.generation(),
        answering.samples,
        seed=answering.seed if answering.samples > 1 else None,
        clip_workers=arguments.clip_workers,
        video_backend=arguments.video_backend,
        cache=open_cache(arguments.cache, arguments.cache_gb),
        on_bad_video=arguments.on_bad_video,  # type: ignore[arg-type]  # checked above
    )
    settings = difficulty_settings(
        model.in_transformers(),
        processor,
        arguments.model_name_or_path,
        answering,
        revision=arguments.model_revision,
    )
    return engine, settings | mark()


def _endpoint(
    data: DataArguments, arguments: EstimateArguments, answering: Answering
) -> tuple[Engine[Any], dict[str, Any]]:
    """A model behind an OpenAI-compatible endpoint."""
    from timelens_plugins.inference.api.engine import ApiEngine

    engine = ApiEngine(
        api_settings(data, arguments).among(arguments.shards or 1), answering.generation(), answering.samples
    )
    return engine, engine_settings(engine, arguments.model_name_or_path, answering)


def _device() -> str:
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    start(main, SETTINGS)
