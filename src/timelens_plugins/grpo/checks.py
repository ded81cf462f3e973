"""What is looked at before a run begins: what the trainer is given, and what is worth knowing of its settings."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from timelens_plugins.encodings import InterleavedTimestampsMixin
from timelens_plugins.grpo.config import TimeLensGRPOConfig
from timelens_plugins.grpo.sampler import check_size
from timelens_plugins.grpo.vllm_rollout import check_vllm_installed
from timelens_plugins.grpo.weights import NORMALISATION
from timelens_plugins.training.dataset import check_prompts
from timelens_plugins.training.parts import refuse_adapter

__all__ = ["SYNCED_REFERENCE", "check_arguments", "check_dropout", "note_costs"]

logger = logging.getLogger(__name__)


SYNCED_REFERENCE = (
    "a run with sync_ref_model=True cannot go on from a checkpoint, which does not hold the reference model that it had"
)


def note_costs(args: TimeLensGRPOConfig, accelerator: Any) -> None:
    """Say what settings mean that are allowed, and that people may not expect."""
    if not accelerator.is_main_process:
        return
    if not args.share_prefix:
        logger.info(
            "share_prefix=False: the prompt, video included, is computed once for each of its %d completions, in "
            "rollout and training",
            args.num_generations,
        )
    elif args.queries_per_video > args.row_prompts:
        logger.info(
            "queries_per_video=%d: a training row holds a micro-batch, %d of a video's queries at most, and the video "
            "is computed anew for each row; from per_device_train_batch_size=%d on, one row holds all of them",
            args.queries_per_video,
            args.row_prompts,
            args.queries_per_video * args.num_generations,
        )
    if args.sync_ref_model:
        logger.warning("%s", SYNCED_REFERENCE)
    parts = accelerator.num_processes * args.gradient_accumulation_steps
    if args.loss_type == "bnpo" and parts > 1:
        logger.warning(
            "loss_type=bnpo with %d micro-batches a step (processes times gradient_accumulation_steps): each divides "
            "by its own completion tokens, so gradients depend on how the step is split. loss_type=dapo divides by the "
            "tokens of the whole step",
            parts,
        )


def check_dropout(args: TimeLensGRPOConfig, model: nn.Module) -> None:
    """With ``keep_prefill``, refuse a model whose training forward differs from that of its rollout.

    Raises:
        ValueError: naming the module; a family whose prompts cannot be shared.
    """
    if args.keep_prefill and not args.share_prefix:
        raise ValueError("keep_prefill=True has no effect on models that cannot share prompts: leave it out")
    for name, module in model.named_modules() if args.keep_prefill else ():
        p = module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)
        if p:
            raise ValueError(
                f"keep_prefill=True needs a model that computes the same in rollout and training, but {name} drops out "
                f"{p:g}: set that to 0, or leave keep_prefill out"
            )


def check_arguments(args: Any, model: Any, processor: Any, dataset: Any) -> None:
    """Refuse what the trainer cannot work with.

    Raises:
        EngineNotInstalledError: vLLM is asked for and not there.
        TypeError: another configuration, processor or kind of data set.
        ValueError: a model with an adapter on it, fewer rows than a batch takes, rows without one video, or a loss that
            cannot leave groups out.
    """
    if not isinstance(args, TimeLensGRPOConfig):
        raise TypeError(f"args must be a TimeLensGRPOConfig, got {type(args).__name__}")
    if not isinstance(processor, InterleavedTimestampsMixin):
        raise TypeError(
            f"processing_class must be one of this package's, got {type(processor).__name__}: use "
            "timelens_plugins.encodings.load_processor(checkpoint)"
        )
    if dataset is None or not hasattr(dataset, "__len__"):
        raise TypeError(
            "train_dataset must be a datasets.Dataset of known length; see training.dataset.moments_dataset"
        )
    refuse_adapter(model)
    if args.use_vllm:
        check_vllm_installed()
    check_size(len(dataset), args.generation_batch_size // args.num_generations)
    check_prompts(dataset)
    if args.on_bad_video == "skip" and args.loss_type not in NORMALISATION:
        raise ValueError(f"on_bad_video='skip' does not know how loss_type={args.loss_type!r} counts completions")
