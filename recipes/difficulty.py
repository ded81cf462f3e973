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
from dataclasses import dataclass, field

import torch
from transformers import AutoModelForImageTextToText
from trl import TrlParser

from timelens_plugins.difficulty.estimate import Answering, difficulty_settings, estimate_difficulty
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.synthetic.materialise import materialise
from timelens_plugins.timestamps import load_processor
from timelens_plugins.training.arguments import DataArguments, training_moments


@dataclass
class EstimateArguments:
    """Model, answers, output."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint folder, hub name, or a synthetic: name."})
    output: str = field(metadata={"help": "The file of difficulty rows (JSON Lines) to write."})
    model_revision: str = field(default="main", metadata={"help": "Of a hub repository."})
    dtype: str = field(default="auto", metadata={"help": "Of the weights: auto, float32, bfloat16 or float16."})
    device: str | None = field(default=None, metadata={"help": "Default: this process's GPU, or the CPU."})
    attn_implementation: str | None = field(default=None, metadata={"help": "As transformers' from_pretrained."})
    samples: int = field(default=1, metadata={"help": "Answers a moment: 1, greedy, or several, sampled."})
    temperature: float = field(default=1.0, metadata={"help": "Of sampled answers."})
    top_p: float = field(default=1.0, metadata={"help": "Of sampled answers."})
    max_new_tokens: int = field(default=512, metadata={"help": "Of an answer."})
    max_rows: int = field(default=16, metadata={"help": "Answers of a video decoded at the same time."})
    seed: int = field(default=0, metadata={"help": "Of sampled answers."})
    decoder_threads: int = field(default=2, metadata={"help": "Videos decoded ahead of the model."})
    video_backend: str = field(default="auto", metadata={"help": "auto, pyav, decord or torchcodec."})
    on_bad_video: str = field(
        default="skip",
        metadata={"help": "An unreadable video is listed beside the output ('skip'), or stops the run ('error')."},
    )
    shard: int | None = field(default=None, metadata={"help": "Which process this is. Default: RANK, or 0."})
    shards: int | None = field(default=None, metadata={"help": "Of how many. Default: WORLD_SIZE, or 1."})

    def __post_init__(self) -> None:
        if self.on_bad_video not in ("skip", "error"):
            raise ValueError(f"on_bad_video must be 'skip' or 'error', got {self.on_bad_video!r}")
        if (self.shard is None) != (self.shards is None):
            raise ValueError("shard and shards are set together, or not at all")
        if self.shard is None or self.shards is None:
            self.shard, self.shards = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


SETTINGS = (DataArguments, EstimateArguments)


def main(data: DataArguments, arguments: EstimateArguments) -> int:
    checkpoint = materialise(arguments.model_name_or_path, data.synthetic_folder)
    data.annotations = materialise(data.annotations, data.synthetic_folder)
    answering = Answering(
        samples=arguments.samples,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_new_tokens=arguments.max_new_tokens,
        max_rows=arguments.max_rows,
        seed=arguments.seed,
    )
    moments = training_moments(data, arguments.on_bad_video)  # type: ignore[arg-type]  # checked above
    processor = load_processor(checkpoint, data.encoding, revision=arguments.model_revision, **data.sampling)
    model = AutoModelForImageTextToText.from_pretrained(
        checkpoint,
        revision=arguments.model_revision,
        dtype=arguments.dtype,
        attn_implementation=arguments.attn_implementation,
    ).eval()
    answerer = VideoAnswerer(
        model.to(arguments.device or _device()),
        processor,
        answering.generation_config(model),
        samples=answering.samples,
        max_rows=answering.max_rows,
        decoder_threads=arguments.decoder_threads,
        video_backend=arguments.video_backend,
        on_bad_video=arguments.on_bad_video,  # type: ignore[arg-type]  # checked above
    )
    outcome = estimate_difficulty(
        answerer,
        moments,
        arguments.output,
        difficulty_settings(
            model, processor, arguments.model_name_or_path, answering, revision=arguments.model_revision
        ),
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


def _device() -> str:
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    sys.exit(main(*TrlParser(SETTINGS).parse_args_and_config()))
