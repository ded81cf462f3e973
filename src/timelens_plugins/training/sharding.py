"""Ways of sharing a model among devices: which ones the trainers refuse, what shards of parameters say, what resumes.

Supported: DDP, FSDP2, and DeepSpeed's ZeRO stages 1, 2 and 3. Asked when settings are made, before a model is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

__all__ = [
    "check_same_sharding",
    "fsdp_version",
    "is_sharded",
    "keep_used_conversions",
    "refuse_sharding",
    "whole_shape",
]


def whole_shape(parameter: Tensor) -> tuple[int, ...]:
    """Shape of a parameter, also where this process holds a shard of DeepSpeed's ZeRO-3, which is flat or empty."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def is_sharded(model: nn.Module) -> bool:
    """Whether the model was loaded in shards (ZeRO-3): its values can then be read by all processes together only."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def keep_used_conversions(model: nn.Module) -> None:
    """Let a model that was loaded in shards be saved under the names it was loaded from.

    transformers renames what older checkpoints call otherwise, and turns that round when it saves. It forgets the
    renamings that no name of the checkpoint needed, but not under ZeRO-3, where it would save under older names.
    """
    for module in model.modules():
        conversions = getattr(module, "_weight_conversions", None)
        if conversions and is_sharded(module):
            used = [one for one in conversions if not hasattr(one, "was_used") or one.was_used()]
            setattr(module, "_weight_conversions", used)  # noqa: B010  (no Tensor, no Module)


def refuse_sharding(args: Any) -> None:
    """Refuse ways of sharing a model among devices that the trainers were not made for.

    Args:
        args: ``transformers.TrainingArguments`` that read accelerate's configuration already.

    Raises:
        ValueError: with the reason and the remedy.
    """
    if args.n_gpu > 1:
        raise ValueError(f"one process sees {args.n_gpu} GPUs: start one process for each with accelerate launch")
    if fsdp_version(args) == 1:
        raise ValueError(
            "FSDP 1 is not supported, as it flattens the parameters that the rollout gathers: set fsdp_version: 2 in "
            "accelerate's configuration"
        )
    if args.deepspeed_plugin is not None and args.deepspeed_plugin.zero_stage == 0:
        raise ValueError("DeepSpeed's stage 0 shards nothing: leave DeepSpeed out (DDP), or set zero_stage: 1, 2 or 3")
    if args.deepspeed_plugin is not None:
        _refuse_deepspeed(args.deepspeed_plugin)


def check_same_sharding(folder: Path, accelerator: Any) -> None:
    """Refuse a checkpoint whose optimizer state this run could not read, or only in part.

    transformers looks for the files of its own way of sharing, and starts the optimizer anew where there are none.
    DeepSpeed leaves a part of the state to each process and cannot divide it anew. Without sharding and under FSDP2
    the state is whole, and any number of processes reads it.

    Args:
        folder: of a complete checkpoint.
        accelerator: of the run.

    Raises:
        ValueError: with the remedy; also where there is no state at all, without which transformers goes on in silence.
    """
    saved, running = _saved_under(folder), _running_under(accelerator)
    if saved != running:
        raise ValueError(
            f"{folder} was saved under {saved}, and this run is under {running}, which cannot read its optimizer "
            f"state: continue under {saved}, or train its weights on in another output_dir (model_name_or_path)"
        )
    parts = len(_optimizer_parts(folder))
    if parts and parts != accelerator.num_processes:
        raise ValueError(
            f"{folder} holds DeepSpeed's optimizer state in {parts} parts, and this run has "
            f"{accelerator.num_processes} processes: continue with {parts}, or train its weights on in another "
            "output_dir (model_name_or_path)"
        )


def _saved_under(folder: Path) -> str:
    parts = _optimizer_parts(folder)
    if parts:
        whole = any(path.name.startswith("mp_rank_") for path in parts[0].parent.glob("*model_states.pt"))
        return "DeepSpeed ZeRO-1 or ZeRO-2" if whole else "DeepSpeed ZeRO-3"
    if (folder / "optimizer.bin").is_file() or any(folder.glob("optimizer_0*")):
        return "FSDP2"
    if not (folder / "optimizer.pt").is_file():
        raise ValueError(
            f"{folder} has no optimizer.pt, so the optimizer would begin anew in the middle of the run: continue from "
            "another checkpoint, or train its weights on in another output_dir (model_name_or_path)"
        )
    return "no sharding"


def _running_under(accelerator: Any) -> str:
    plugin = accelerator.state.deepspeed_plugin
    if plugin is not None:
        return "DeepSpeed ZeRO-3" if plugin.zero_stage == 3 else "DeepSpeed ZeRO-1 or ZeRO-2"
    return "FSDP2" if accelerator.is_fsdp2 else "no sharding"


def _optimizer_parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("global_step*/*zero_pp_rank_*_optim_states.pt"))


def fsdp_version(args: Any) -> int | None:
    """Of the settings, or of the launcher, whose words are environment variables; None without FSDP."""
    if args.fsdp:
        return int((args.fsdp_config or {}).get("version", 2))
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return int(os.environ.get("FSDP_VERSION", "1"))
    return None


def _refuse_deepspeed(plugin: Any) -> None:
    config = plugin.deepspeed_config
    for name, one in (("optimizer", "an optimizer"), ("scheduler", "a scheduler")):
        if name in config:
            raise ValueError(
                f"DeepSpeed's configuration has {one} of its own, which would take the place of that of the "
                f"training settings, rates of the mergers included: leave {name} out there"
            )
    if config.get("tensor_parallel", {}).get("autotp_size", 0) > 1:
        raise ValueError("tensor parallelism of DeepSpeed is not supported: leave tensor_parallel out")
    zero = config.get("zero_optimization", {})
    if plugin.zero_stage == 3 and not zero.get("stage3_gather_16bit_weights_on_model_save"):
        raise ValueError(
            "ZeRO-3 would save checkpoints that from_pretrained cannot load: set zero3_save_16bit_model: true in "
            "accelerate's configuration (stage3_gather_16bit_weights_on_model_save in DeepSpeed's)"
        )
