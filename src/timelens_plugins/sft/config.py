"""What can be set for supervised fine-tuning on top of ``TrainingArguments``, and what of theirs does not fit it."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from timelens_plugins.training.refusals import Wanted, refuse_settings
from timelens_plugins.training.settings import ClipSettings

__all__ = ["TimeLensSFTConfig"]

_WANTED: Wanted = {
    "average_tokens_across_devices": (True, "the loss is the mean over the tokens of all processes"),
}


@dataclass
class TimeLensSFTConfig(ClipSettings, TrainingArguments):
    """transformers' ``TrainingArguments`` with the settings of packed video rows.

    All of the parent's fields mean what they mean there; batch sizes count rows, that is videos. Refused, with the
    reason: what would change the loss or bypass the shared prefix (:mod:`timelens_plugins.training.refusals`).
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
    snap_spans: bool = field(
        default=False,
        metadata={
            "help": "Move the target's start down and its end up to the times that the model is told, as TimeLens-7B "
            "was trained."
        },
    )
    clips_ahead: int = field(
        default=4,
        metadata={
            "help": "Decoded clips held in memory for later steps at most, on each process; one of 14k tokens takes "
            "about 0.4 GB. Those of the current step, gradient_accumulation_steps times the batch, come on top."
        },
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay False: rows are read by this trainer, not by the model."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_settings(self, _WANTED, counts=("max_queries_per_row",))
        if self.train_sampling_strategy not in ("random", "sequential"):
            raise ValueError(
                f"train_sampling_strategy={self.train_sampling_strategy!r} needs token lengths, which rows of paths do "
                "not have: use 'random' or 'sequential'"
            )
