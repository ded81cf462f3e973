"""Settings that supervised fine-tuning and GRPO have in common: what of a model is trained, and how clips are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from timelens_plugins.clips import OnBadVideo
from timelens_plugins.training.parts import Vision

__all__ = ["ClipSettings"]


@dataclass
class ClipSettings:
    """The first base class of both configurations; ``refuse_settings`` checks the values."""

    vision: Vision = field(
        default="merger",
        metadata={"help": "What of the vision tower is trained: 'frozen', 'merger' (its mergers only) or 'full'."},
    )
    merger_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the mergers. Default: learning_rate."}
    )
    on_bad_video: OnBadVideo = field(
        default="error",
        metadata={
            "help": "At a video that cannot be read: 'error' stops with its name; 'skip' leaves what asks about it out "
            "of the loss, names it in the log and counts it. It is never replaced by another."
        },
    )
    clip_workers: int = field(
        default=2, metadata={"help": "Threads that decode the next clips while the model computes; 0 for none."}
    )
    clips_ahead: int = field(
        default=8,
        metadata={
            "help": "Decoded clips held in memory at most, on each process; one of 14k tokens takes about 0.4 GB."
        },
    )
    cache: str | None = field(
        default=None,
        metadata={"help": "Folder where decoded frames are kept, for further epochs and runs about the same videos."},
    )
    cache_gb: float | None = field(default=None, metadata={"help": "Of the cache at most. Default: 20."})
    video_backend: str = field(
        default="auto",
        metadata={"help": "Reads the videos: 'auto' (PyAV, then torchcodec), 'pyav', 'torchcodec' or 'decord'."},
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Must stay False: a loss that is no number ends the run."}
    )
