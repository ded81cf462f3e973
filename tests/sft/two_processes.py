"""Run by torchrun on two processes: the losses of runs under DDP and FSDP2, written by the first process.

two_processes.py CHECKPOINT ANNOTATIONS OUTPUT BROKEN_VIDEO
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from sft_runs import history
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForImageTextToText

from timelens_plugins.encodings import load_processor
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.training.dataset import moments_dataset

SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "train_sampling_strategy": "sequential",
    "on_bad_video": "skip",
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "clip_workers": 1,
}


def losses(
    checkpoint: str, moments: list[Moment], output: str, **settings: Any
) -> tuple[list[tuple[float, ...]], dict[str, float]]:
    """Logged losses, gradient norms and counts of a short run, and its evaluation afterwards."""
    processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
    dataset = moments_dataset(moments, processor.encoding)
    trainer = TimeLensSFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32),
        args=TimeLensSFTConfig(output_dir=output, **(SETTINGS | settings)),
        train_dataset=dataset,
        eval_dataset=dataset,
        processing_class=processor,
    )
    trainer.train()
    if torch.distributed.is_initialized():
        assert isinstance(trainer.model_wrapped, FSDPModule if "fsdp" in settings else DistributedDataParallel)
    return history(trainer, "loss", "grad_norm", "queries", "answer_tokens"), trainer.evaluate()


FSDP2: dict[str, Any] = {
    "fsdp": True,
    "fsdp_config": {
        "fsdp_version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": ["Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock"],
        "reshard_after_forward": True,
        "state_dict_type": "FULL_STATE_DICT",
    },
}


plain_state = AcceleratorState.__init__


def shard_on_cpus(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
    """accelerate leaves FSDP out on CPUs, without a word; nothing else of it asks what the devices are."""
    if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    plain_state(self, *args, **kwargs)


def with_broken(moments: list[Moment], broken: str) -> list[Moment]:
    """The second video cannot be read: on two processes with one video each, the second one has nothing to compute."""
    second = list(dict.fromkeys(m.video for m in moments))[1]
    return [replace(m, video=broken) if m.video == second else m for m in moments]


def main() -> None:
    checkpoint, annotations, output, broken = sys.argv[1:]
    torch.set_num_threads(1)
    moments = list(load_moments(annotations, video_root=Path(annotations).parent / "videos"))
    small = {"per_device_train_batch_size": 1, "per_device_eval_batch_size": 4}
    plain = losses(checkpoint, moments, output, **small)
    skipping = losses(checkpoint, with_broken(moments, broken), output, **small)
    AcceleratorState._reset_state()
    AcceleratorState.__init__ = shard_on_cpus  # type: ignore[method-assign]
    sharded = losses(checkpoint, with_broken(moments, broken), output, **small, **FSDP2)
    if torch.distributed.get_rank() == 0:
        Path(output, "losses.json").write_text(json.dumps([plain, skipping, sharded]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
