"""Run by torchrun on two processes: DDP in three ways, FSDP2 with two queries a video; prints what each logs, as JSON.

``torchrun distributed_run.py CHECKPOINT ANNOTATIONS OUTPUT BROKEN``
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpo_runs
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

NAMES = ("loss", "grad_norm", "reward", "entropy", "parse_failures", "sharing/saved_tokens", "videos/skipped")
FSDP2 = {
    "fsdp": True,
    "fsdp_config": {
        "fsdp_version": 2,
        "reshard_after_forward": True,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": ["Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock"],
        "state_dict_type": "FULL_STATE_DICT",
    },
}


def settings(processes: int) -> dict[str, Any]:
    """The same generation batch of four prompts on any number of processes; one of its videos cannot be read."""
    return {
        "per_device_train_batch_size": 4 * grpo_runs.GENERATIONS // processes,
        "vision": "full",
        "on_bad_video": "skip",
        "gradient_checkpointing": True,
        "shuffle_dataset": False,
        "max_steps": 3,
        "num_iterations": 2,
    }


def several_queries(processes: int) -> dict[str, Any]:
    """Four prompts of two videos, each of which is trained in a row of its own."""
    return settings(processes) | {
        "queries_per_video": 2,
        "per_device_train_batch_size": 2 * grpo_runs.GENERATIONS,
        "gradient_accumulation_steps": 2 // processes,
    }


def kept_prefill(processes: int) -> dict[str, Any]:
    """The same, trained on the prefill of the rollout on two processes, and with prompts computed twice on one."""
    return several_queries(processes) | {"num_iterations": 1, "keep_prefill": processes > 1}


def moments_with_a_broken_video(annotations: Path, broken: Path) -> list[Any]:
    """Prompts of different lengths; the last of the first batch cannot be read."""
    moments = grpo_runs.training_moments(annotations)
    return [*moments[:3], replace(moments[3], video=str(broken)), *moments[4:]]


plain_state = AcceleratorState.__init__


def shard_on_cpus(self: AcceleratorState, *args: Any, **kwargs: Any) -> None:
    """accelerate leaves FSDP out on CPUs, without a word; nothing else of it asks what the devices are."""
    if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    plain_state(self, *args, **kwargs)


if __name__ == "__main__":
    checkpoint, annotations, output, broken = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    for name, sharding, chosen in (
        ("ddp", {}, settings),
        ("videos", {}, several_queries),
        ("kept", {}, kept_prefill),
        ("fsdp2", FSDP2, several_queries),
    ):
        AcceleratorState._reset_state()
        GradientState._reset_state()
        moments = moments_with_a_broken_video(annotations, broken)
        if sharding:
            AcceleratorState.__init__ = shard_on_cpus  # type: ignore[method-assign]
        saving = {} if sharding else {"save_strategy": "steps", "save_steps": 2}
        trainer = grpo_runs.make_trainer(checkpoint, moments, output / name, **chosen(2), **sharding, **saving)
        assert trainer.accelerator.is_fsdp2 == bool(sharding)
        assert trainer.accelerator.num_processes == 2
        trainer.train()
        assert isinstance(trainer.model_wrapped, FSDPModule if sharding else DistributedDataParallel)
        trainer.save_model()
        if trainer.accelerator.is_main_process:
            print("RESULT", json.dumps({"name": name, "history": grpo_runs.history(trainer, *NAMES)}), flush=True)
