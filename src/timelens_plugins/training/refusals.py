"""Settings that cannot work in supervised fine-tuning and in GRPO alike.

What is special to one of the two stands in its configuration, ways of sharing a model in ``training/sharding.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from transformers.trainer_utils import SaveStrategy

from timelens_plugins.clips import OnBadVideo
from timelens_plugins.training.checkpoints import check_total_limit
from timelens_plugins.training.parts import Vision
from timelens_plugins.training.sharding import refuse_sharding
from timelens_plugins.video.backends import preference
from timelens_plugins.video.frame_cache import check_bound

__all__ = ["Wanted", "refuse_below", "refuse_settings"]

Wanted = Mapping[str, tuple[Any, str]]
"""Setting -> the only value that works, and why."""

_BOTH: Wanted = {
    "use_liger_kernel": (
        False,
        "Liger's fused loss replaces the model's forward and bypasses the video and its prefix",
    ),
    "torch_compile": (
        False,
        "packed rows differ in their layout from step to step, so that each would be compiled anew",
    ),
    "dataloader_num_workers": (0, "rows hold only paths, and clips are decoded by clip_workers"),
    "remove_unused_columns": (False, "rows are read by the trainer and by rewards, not by the model's forward"),
    "label_smoothing_factor": (0.0, "the loss is computed from the log-probs of the answers' tokens, without labels"),
    "neftune_noise_alpha": (None, "its noise would differ between siblings that share a prompt"),
    "logging_nan_inf_filter": (False, "it shows a loss that is no number as the mean of those before"),
    "auto_find_batch_size": (
        False,
        "it halves the batch in the middle of a run, and with it what a step averages over",
    ),
}


def refuse_below(args: Any, bounds: Mapping[str, float]) -> None:
    """Compare settings with the least that they may be; None passes.

    Raises:
        ValueError: the first that is less, or no number.
    """
    for name, least in bounds.items():
        value = getattr(args, name)
        if value is not None and not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def refuse_settings(args: Any, own: Wanted, counts: Sequence[str] = ()) -> None:
    """Compare a configuration with what works in both trainers, and with what works in its own.

    Args:
        args: a ``TrainingArguments`` with :class:`~timelens_plugins.training.settings.ClipSettings`.
        own: what only its own trainer refuses.
        counts: its own settings that are numbers from 1, or None.

    Raises:
        ValueError: the first setting that does not, with the reason and the remedy.
    """
    if vars(args)["ddp_find_unused_parameters"] is None:
        args.ddp_find_unused_parameters = False  # every forward has a video, so every trained part is used
    for name, values in (("vision", get_args(Vision)), ("on_bad_video", get_args(OnBadVideo))):
        if getattr(args, name) not in values:
            raise ValueError(f"{name} must be one of {', '.join(values)}, got {getattr(args, name)!r}")
    ones = ("clips_ahead", "per_device_train_batch_size", "gradient_accumulation_steps", *counts)
    refuse_below(args, {"clip_workers": 0, **dict.fromkeys(ones, 1)})
    for name, (value, reason) in {**_BOTH, **own}.items():
        if (given := getattr(args, name, value)) != value:
            raise ValueError(f"{name}={given} does not work here: {reason}. Set {name}={value}")
    for name in ("learning_rate", "merger_learning_rate", "weight_decay", "max_grad_norm", "beta"):
        value = getattr(args, name, None)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a number from 0, got {value}")
    if args.max_steps == 0:
        raise ValueError(
            "max_steps=0 is no length of a run: leave it out (or -1) for num_train_epochs, or set it above 0"
        )
    if args.save_strategy == SaveStrategy.STEPS and not args.save_steps > 0:
        raise ValueError(f"save_steps={args.save_steps} would save no checkpoint: set it above 0, or save_strategy: no")
    preference(args.video_backend)
    check_bound(args.cache, args.cache_gb)
    if args.max_steps < 0 and not (math.isfinite(args.num_train_epochs) and args.num_train_epochs > 0):
        raise ValueError(f"num_train_epochs={args.num_train_epochs} trains nothing: set it above 0, or max_steps")
    check_total_limit(args.save_total_limit)
    refuse_sharding(args)
