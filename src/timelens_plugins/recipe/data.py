"""What recipes read besides a trainer's own settings: annotations, videos, filters, the prompt, frame sampling."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timelens_plugins.answers import PROMPTS, read_prompt
from timelens_plugins.clips import OnBadVideo
from timelens_plugins.encodings import InterleavedTimestampsMixin, load_processor
from timelens_plugins.moments import Moment, filter_moments, load_moments
from timelens_plugins.moments.faults import skipped_by
from timelens_plugins.moments.report import LoadedMoments
from timelens_plugins.training.dataset import find_videos

__all__ = [
    "DataArguments",
    "annotated_moments",
    "available_moments",
    "described",
    "load_recipe_processor",
    "suitable_moments",
    "training_moments",
]

logger = logging.getLogger(__name__)


@dataclass
class DataArguments:
    """For TRL's ``TrlParser``. The defaults are those of the TimeLens recipe."""

    annotations: str = field(
        metadata={"help": "Annotation file in any format of timelens_plugins.moments, or a synthetic: name."}
    )
    annotation_format: str | None = field(
        default=None, metadata={"help": "Name of the format. Default: recognised from the content."}
    )
    on_bad_annotation: str = field(
        default="raise", metadata={"help": "At a structural fault: 'raise', or 'skip', which lists what was left out."}
    )
    video_root: str | None = field(
        default=None,
        metadata={"help": "Folder the annotations' video paths start from. Default: 'videos' beside the annotations."},
    )
    synthetic_folder: str = field(
        default="synthetic", metadata={"help": "Where to make what synthetic: names stand for."}
    )
    encoding: str | None = field(
        default=None,
        metadata={"help": "How the model is told times, see timelens_plugins.encodings. Default: the checkpoint's."},
    )
    prompt: str | None = field(
        default=None,
        metadata={
            "help": f"What asks for an event: {', '.join(PROMPTS)}, a text with {{query}}, or a file of one. Saved "
            "with the checkpoint, which evaluation asks by. Default: the checkpoint's, or the benchmark's."
        },
    )
    thinking: bool | None = field(
        default=None,
        metadata={"help": "Whether a model that can think before it answers does. Default: as saved, or not."},
    )
    fps: float = field(default=2.0, metadata={"help": "Frames a second."})
    min_frames: int = field(default=4, metadata={"help": "Frames of a clip, at least."})
    max_frames: int = field(default=448, metadata={"help": "Frames of a clip, at most."})
    min_tokens: int = field(default=64, metadata={"help": "Vision tokens of a frame pair, at least."})
    total_tokens: int = field(default=14336, metadata={"help": "Vision tokens of a clip, at most."})
    batch_frames: bool | None = field(
        default=None,
        metadata={"help": "Attention of the vision tower for all frames of a clip in one batch. Default: on a GPU."},
    )
    min_duration: float = field(default=5.0, metadata={"help": "Shorter videos are left out, in seconds."})
    max_duration: float = field(default=500.0, metadata={"help": "Longer videos are left out, in seconds."})
    max_words: int = field(default=200, metadata={"help": "Queries of more words are left out."})
    audio_queries: bool = field(default=False, metadata={"help": "Keep queries about sounds."})

    def __post_init__(self) -> None:
        if self.prompt is not None:
            read_prompt(self.prompt)

    @property
    def videos(self) -> Path:
        """The folder that the annotations' video paths start from. Annotations are a file here, see below."""
        return Path(self.video_root or Path(self.annotations).parent / "videos")

    @property
    def sampling(self) -> dict[str, Any]:
        """Settings of ``load_processor``."""
        names = ("fps", "min_frames", "max_frames", "min_tokens", "total_tokens")
        return {name: getattr(self, name) for name in names}


def load_recipe_processor(arguments: DataArguments, checkpoint: str, revision: str) -> InterleavedTimestampsMixin:
    """The processor of a checkpoint with the recipe's encoding, prompt and frames."""
    return load_processor(
        checkpoint,
        arguments.encoding,
        prompt=arguments.prompt,
        thinking=arguments.thinking,
        revision=revision,
        **arguments.sampling,
    )


def training_moments(arguments: DataArguments, on_bad_video: OnBadVideo = "error") -> list[Moment]:
    """Load and filter the annotations and find their videos; logs what was loaded and what was left out.

    Args:
        arguments: ``annotations`` is a file here: synthetic names are made into files before.
        on_bad_video: as of :func:`available_moments`.

    Raises:
        AnnotationError: a structural fault of the annotations.
        FileNotFoundError: videos are missing.
        ValueError: the filters leave nothing.
    """
    kept = suitable_moments(arguments, annotated_moments(arguments))
    return available_moments(arguments, kept, on_bad_video)


def available_moments(
    arguments: DataArguments, moments: Sequence[Moment], on_bad_video: OnBadVideo = "error"
) -> list[Moment]:
    """The moments with the paths of their files, whose extension may differ from the stated one.

    Args:
        arguments: the settings.
        moments: to be read.
        on_bad_video: ``"skip"`` leaves videos that do not exist to who reads them, and counts them in the log.

    Raises:
        FileNotFoundError: videos are missing; with ``"skip"``, all of them are.
    """
    return find_videos(moments, "keep" if on_bad_video == "skip" else "raise", arguments.videos)


def annotated_moments(arguments: DataArguments) -> LoadedMoments:
    """Load the annotations and log their report.

    Raises:
        AnnotationError: a structural fault.
    """
    path = Path(arguments.annotations)
    with skipped_by("set on_bad_annotation: skip"):
        loaded = load_moments(
            path,
            arguments.annotation_format,
            video_root=arguments.videos,
            on_error=arguments.on_bad_annotation,  # type: ignore[arg-type]  # checked there
        )
    logger.info("%s", loaded.report.summary())
    return loaded


def described(arguments: DataArguments, loaded: LoadedMoments, kept: Sequence[Moment]) -> str:
    """The annotations in a line, and how many of them are trained on: for ``moments_dataset(description=…)``."""
    report = loaded.report
    return (
        f"{arguments.annotations} ({report.format}): {report.moments:,} annotations of {report.videos:,} videos, of "
        f"which {len(kept):,} passed the filters (videos of {arguments.min_duration:g} to {arguments.max_duration:g} "
        f"s, queries of at most {arguments.max_words} words{'' if arguments.audio_queries else ', none about sounds'})"
    )


def suitable_moments(arguments: DataArguments, moments: Sequence[Moment]) -> list[Moment]:
    """The moments that the filters keep; logs what was left out. Their videos are not looked for.

    Raises:
        ValueError: the filters leave nothing.
    """
    kept, report = filter_moments(
        moments,
        min_duration=arguments.min_duration,
        max_duration=arguments.max_duration,
        max_words=arguments.max_words,
        audio_queries=arguments.audio_queries,
    )
    logger.info("%s", report.summary())
    if not kept:
        raise ValueError(f"{arguments.annotations}: the filters leave no moment to train on ({report.summary()})")
    return kept
