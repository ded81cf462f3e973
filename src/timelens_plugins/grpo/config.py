"""What can be set for video GRPO, on top of TRL's ``GRPOConfig``, and which of TRL's settings do not go with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from trl import GRPOConfig

from timelens_plugins.training.checkpoints import check_total_limit
from timelens_plugins.training.clips import OnBadVideo
from timelens_plugins.training.parts import Vision

__all__ = ["TimeLensGRPOConfig"]


@dataclass
class TimeLensGRPOConfig(GRPOConfig):
    """TRL's ``GRPOConfig`` with the settings of video prompts.

    All of the parent's fields mean what they mean there. Refused, with the reason: vLLM and continuous batching, Liger
    kernels, dataloader workers, and batch sizes that would tear a group apart.
    """

    share_prefix: bool = field(
        default=True,
        metadata={
            "help": "Prefill a prompt once for all its completions, and score them in one packed row. False computes "
            "the repeated batch, as other trainers do: the same losses at several times the cost."
        },
    )
    rollout_rows: int | None = field(
        default=None,
        metadata={
            "help": "Completions of a group decoded at the same time. Default: the whole group. Lower it where the "
            "rollout runs out of memory; groups are then decoded one by one."
        },
    )
    rollout_prompts: int | None = field(
        default=None,
        metadata={
            "help": "Prompts of a process whose groups are decoded together. Each holds its keys and values meanwhile, "
            "about 2 GB for 14k tokens of an 8B model. Default: 4; 1 with rollout_rows."
        },
    )
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
            "help": "At a video that cannot be read: 'error' stops with its name; 'skip' leaves its group out of the "
            "loss, names it in the log and counts it. It is never replaced by another."
        },
    )
    snap_spans: bool = field(
        default=False,
        metadata={
            "help": "Give reward functions the times the model was told as column 'times', to which they snap the "
            "target: start down, end up. For models trained on such targets, as TimeLens-7B."
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
    video_backend: str = field(
        default="auto", metadata={"help": "Reads the videos: 'auto', 'pyav', 'decord' or 'torchcodec'."}
    )
    self_check: bool = field(
        default=True,
        metadata={
            "help": "Before the first update, compare shared with plain log-probs, change the video and see the "
            "log-probs change, and compare the token ids of rollout and training. A failure stops the run, with the "
            "reason."
        },
    )
    self_check_tolerance: float | None = field(
        default=None,
        metadata={
            "help": "Mean absolute difference of shared and plain log-probs, in nats, that the self-check accepts. "
            "Default: 1e-3 for fp32, 0.05 for bf16 and fp16."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if vars(self)["ddp_find_unused_parameters"] is None:
            self.ddp_find_unused_parameters = False  # every forward has a video, so every trained part is used
        for name, values in (("vision", get_args(Vision)), ("on_bad_video", get_args(OnBadVideo))):
            if getattr(self, name) not in values:
                raise ValueError(f"{name} must be one of {', '.join(values)}, got {getattr(self, name)!r}")
        for name, least in (("rollout_rows", 1), ("rollout_prompts", 1), ("clip_workers", 0), ("clips_ahead", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if self.rollout_rows is not None and (self.rollout_prompts or 1) > 1:
            raise ValueError(
                "rollout_rows decodes a part of one group at a time: leave it out, or set rollout_prompts=1"
            )
        check_total_limit(self.save_total_limit)
        self._refuse_what_cannot_work()
        self._check_groups()

    @property
    def prompts_together(self) -> int:
        """``rollout_prompts``, or its default."""
        return self.rollout_prompts or (4 if self.rollout_rows is None else 1)

    def _refuse_what_cannot_work(self) -> None:
        reasons = {
            "use_vllm": "rollouts run on the training model itself, whose prefill and vision features a group shares; "
            "vLLM would decode and encode every video once more, from other frames than training sees",
            "use_liger_kernel": "Liger's fused loss replaces the model's forward and reads the head's weights itself: "
            "it would bypass the video; the shared path works in chunks and needs no fused loss",
            "use_transformers_continuous_batching": "transformers' continuous batching takes no videos",
        }
        for name, reason in reasons.items():
            if getattr(self, name, False):
                raise ValueError(f"{name}=True does not work with video GRPO: {reason}. Set {name}=False.")
        if self.dataloader_num_workers:
            raise ValueError(
                f"dataloader_num_workers={self.dataloader_num_workers}: rows hold only paths, and clips are decoded by "
                "clip_workers in the training process. Set dataloader_num_workers=0."
            )

    def _check_groups(self) -> None:
        """One group's completions share their prompt's computation, so they must be on one process together."""
        if self.per_device_train_batch_size % self.num_generations:
            raise ValueError(
                f"per_device_train_batch_size={self.per_device_train_batch_size} must be a multiple of "
                f"num_generations={self.num_generations}: it counts completions, and a group stays whole on a process"
            )
        generations = self.num_generations_eval or self.num_generations
        if self.eval_strategy != "no" and self.per_device_eval_batch_size % generations:
            raise ValueError(
                f"per_device_eval_batch_size={self.per_device_eval_batch_size} must be a multiple of the {generations} "
                "generations of an evaluation prompt: a group stays whole on a process"
            )
