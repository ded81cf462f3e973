"""What can be set for supervised fine-tuning on top of ``TrainingArguments``, and what of theirs does not fit it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from transformers import TrainingArguments

from timelens_plugins.training.checkpoints import check_total_limit
from timelens_plugins.training.clips import OnBadVideo
from timelens_plugins.training.parts import Vision

__all__ = ["TimeLensSFTConfig"]


@dataclass
class TimeLensSFTConfig(TrainingArguments):
    """transformers' ``TrainingArguments`` with the settings of packed video rows.

    All of the parent's fields mean what they mean there; batch sizes count rows, that is videos. Refused, with the
    reason: what would change the loss or bypass the shared prefix.
    """

    share_prefix: bool = field(
        default=True,
        metadata={
            "help": "Compute the prompt of a video once for all its queries, in one packed row. False computes every "
            "query with its own copy of the video, as other trainers do: the same losses at several times the cost."
        },
    )
    max_queries_per_row: int | None = field(
        default=None,
        metadata={
            "help": "Bounds memory: a video with more queries becomes several rows of nearly equal size. Default: none."
        },
    )
    snap_targets: bool = field(
        default=False,
        metadata={
            "help": "Move the target's start down and its end up to the times that the model is told, as TimeLens-7B "
            "was trained."
        },
    )
    vision: str = field(
        default="merger",
        metadata={"help": "What of the vision tower is trained: 'frozen', 'merger' (its mergers only) or 'full'."},
    )
    merger_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the mergers. Default: learning_rate."}
    )
    on_bad_video: str = field(
        default="error",
        metadata={
            "help": "At a video that cannot be read: 'error' stops with its name; 'skip' leaves its queries out of the "
            "loss, names it in the log and counts it. It is never replaced by another."
        },
    )
    clip_workers: int = field(
        default=2, metadata={"help": "Threads that decode the next clips while the model computes; 0 for none."}
    )
    clips_ahead: int = field(
        default=4,
        metadata={
            "help": "Decoded clips held in memory for later steps at most, on each process; one of 14k tokens takes "
            "about 0.4 GB. Those of the current step, gradient_accumulation_steps times the batch, come on top."
        },
    )
    video_backend: str = field(
        default="auto", metadata={"help": "Reads the videos: 'auto', 'pyav', 'decord' or 'torchcodec'."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: rows are read by this trainer, not by the model."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, values in (("vision", get_args(Vision)), ("on_bad_video", get_args(OnBadVideo))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}")
        for name, least in (("max_queries_per_row", 1), ("clip_workers", 0), ("clips_ahead", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        check_total_limit(self.save_total_limit)
        self._refuse_what_cannot_work()

    def _refuse_what_cannot_work(self) -> None:
        wanted = {
            "remove_unused_columns": (False, "rows of moments are read by the trainer, not by the model's forward"),
            "dataloader_num_workers": (0, "rows hold only paths, and clips are decoded by clip_workers"),
            "use_liger_kernel": (
                False,
                "Liger's fused loss replaces the model's forward and bypasses the shared prefix",
            ),
            "label_smoothing_factor": (0.0, "the loss is that of the answer's tokens alone"),
            "neftune_noise_alpha": (None, "its noise would differ between siblings that share a prompt"),
            "average_tokens_across_devices": (True, "the loss is the mean over the tokens of all processes"),
        }
        for name, (value, reason) in wanted.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name}={getattr(self, name)} does not work here: {reason}. Set {name}={value}")
        if self.train_sampling_strategy not in ("random", "sequential"):
            raise ValueError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} needs token lengths, which rows of paths do "
                "not have: use 'random' or 'sequential'"
            )
