"""Settings that work in neither trainer are refused by both, with the same words, before anything runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from timelens_plugins.grpo import TimeLensGRPOConfig
from timelens_plugins.sft import TimeLensSFTConfig
from timelens_plugins.training.sharding import check_same_sharding, refuse_sharding

COUNTS = ("num_generations", "num_iterations", "steps_per_generation", "max_completion_length")
CONFIGS = {"sft": TimeLensSFTConfig, "grpo": TimeLensGRPOConfig}


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"use_liger_kernel": True}, "use_liger_kernel=True does not work here: .* Set use_liger_kernel=False"),
        ({"dataloader_num_workers": 2}, "decoded by clip_workers"),
        ({"remove_unused_columns": True}, "rows are read by the trainer"),
        ({"label_smoothing_factor": 0.1}, "without labels"),
        ({"neftune_noise_alpha": 5.0}, "siblings"),
        ({"auto_find_batch_size": True}, "halves the batch|reducing the batch size"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        ({"save_total_limit": 1}, "save_total_limit=1"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number from 0, got inf"),
        ({"merger_learning_rate": -1.0}, "merger_learning_rate must be a number from 0"),
        ({"num_train_epochs": 0.0}, "num_train_epochs=0.0 trains nothing"),
        ({"num_train_epochs": float("nan")}, "num_train_epochs=nan trains nothing"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size must be at least 1, got 0"),
        ({"vision": "half"}, "vision must be one of frozen, merger, full"),
        ({"on_bad_video": "swap"}, "on_bad_video must be one of error, skip"),
        ({"clip_workers": -1}, "clip_workers must be at least 0"),
        ({"clips_ahead": 0}, "clips_ahead must be at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps=0 is no length of a run"),
        ({"save_steps": 0}, "save_steps=0 would save no checkpoint"),
        ({"save_steps": -1}, "save_steps=-1 would save no checkpoint"),
        ({"video_backend": "foo"}, "unknown video backend 'foo'"),
        ({"cache_gb": 3.0}, "cache_gb=3.0 without cache=FOLDER has no effect"),
        ({"cache": "c", "cache_gb": float("inf")}, "cache_gb must be above 0, got inf"),
        ({"cache": "c", "cache_gb": float("nan")}, "cache_gb must be above 0, got nan"),
    ],
)
def test_both_refuse(method: str, setting: dict[str, Any], told: str, tmp_path: Path) -> None:
    own: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "bf16": False,
    }
    CONFIGS[method](**own)
    with pytest.raises(ValueError, match=told):
        CONFIGS[method](**(own | setting))


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize(
    ("setting", "environment", "told"),
    [
        ({"fsdp": True, "fsdp_config": {"fsdp_version": 1}}, {}, "set fsdp_version: 2"),
        ({}, {"ACCELERATE_USE_FSDP": "true"}, "set fsdp_version: 2"),
        ({"torch_compile": True}, {}, "torch_compile=True does not work here: .* compiled anew"),
    ],
)
def test_ways_of_running_that_do_not_work(
    method: str,
    setting: dict[str, Any],
    environment: dict[str, str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused where settings are made, before a model is loaded: by the settings, and by the launcher's variables."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=told):
        CONFIGS[method](output_dir=str(tmp_path), per_device_train_batch_size=8, use_cpu=True, bf16=False, **setting)


GATHERING = {"stage3_gather_16bit_weights_on_model_save": True}


@pytest.mark.parametrize(
    ("gpus", "stage", "config", "told"),
    [
        (2, None, {}, "2 GPUs"),
        (1, 2, {"optimizer": {"type": "Adam"}}, "an optimizer of its own"),
        (1, 2, {"scheduler": {"type": "WarmupLR"}}, "a scheduler of its own"),
        (1, 1, {"tensor_parallel": {"autotp_size": 2}}, "tensor parallelism"),
        (1, 3, {"zero_optimization": {}}, "zero3_save_16bit_model: true"),
        (1, 1, {}, None),
        (1, 2, {}, None),
        (1, 3, {"zero_optimization": GATHERING}, None),
    ],
)
def test_ways_of_sharding(gpus: int, stage: int | None, config: dict[str, Any], told: str | None) -> None:
    plugin = SimpleNamespace(zero_stage=stage, deepspeed_config=config) if stage else None
    args = SimpleNamespace(n_gpu=gpus, fsdp=None, fsdp_config=None, deepspeed_plugin=plugin)
    if told is None:
        refuse_sharding(args)
        return
    with pytest.raises(ValueError, match=told):
        refuse_sharding(args)


def _checkpoint(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


ZERO2 = [f"global_step2/bf16_zero_pp_rank_{i}_mp_rank_00_optim_states.pt" for i in range(2)]
ZERO3 = [f"global_step2/zero_pp_rank_{i}_mp_rank_00_optim_states.pt" for i in range(2)]
FILES = {
    "nothing": ["scheduler.pt"],
    "none": ["optimizer.pt"],
    "fsdp2": ["optimizer.bin"],
    "sharded fsdp2": ["optimizer_0/.metadata"],
    "zero2": [*ZERO2, "global_step2/mp_rank_00_model_states.pt"],
    "zero3": [*ZERO3, *(f"global_step2/zero_pp_rank_{i}_mp_rank_00_model_states.pt" for i in range(2))],
}


@pytest.mark.parametrize(
    ("saved", "stage", "fsdp2", "processes", "told"),
    [
        ("none", None, False, 5, None),
        ("nothing", None, False, 1, r"has no optimizer\.pt, so the optimizer would begin anew"),
        ("fsdp2", None, True, 5, None),
        ("sharded fsdp2", None, True, 5, None),
        ("zero2", 1, False, 2, None),
        ("zero3", 3, False, 2, None),
        ("none", 2, False, 2, "saved under no sharding, and this run is under DeepSpeed ZeRO-1 or ZeRO-2"),
        ("fsdp2", None, False, 1, "saved under FSDP2, and this run is under no sharding"),
        ("none", None, True, 2, "saved under no sharding, and this run is under FSDP2"),
        ("zero3", 2, False, 2, "saved under DeepSpeed ZeRO-3, and this run is under DeepSpeed ZeRO-1 or ZeRO-2"),
        ("zero2", None, False, 2, "saved under DeepSpeed ZeRO-1 or ZeRO-2, and this run is under no sharding"),
        ("zero2", 2, False, 4, "in 2 parts, and this run has 4 processes"),
        ("zero3", 3, False, 1, "in 2 parts, and this run has 1 processes"),
    ],
)
def test_what_resumes(
    saved: str, stage: int | None, fsdp2: bool, processes: int, told: str | None, tmp_path: Path
) -> None:
    plugin = SimpleNamespace(zero_stage=stage) if stage else None
    accelerator = SimpleNamespace(
        state=SimpleNamespace(deepspeed_plugin=plugin), is_fsdp2=fsdp2, num_processes=processes
    )
    folder = _checkpoint(tmp_path, *FILES[saved])
    if told is None:
        check_same_sharding(folder, accelerator)
        return
    with pytest.raises(ValueError, match=told):
        check_same_sharding(folder, accelerator)


@pytest.mark.parametrize("beta", [-1.0, float("nan")])
def test_a_penalty_below_zero_is_refused(beta: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beta must be a number from 0"):
        TimeLensGRPOConfig(str(tmp_path), per_device_train_batch_size=8, use_cpu=True, bf16=False, beta=beta)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        *(({name: 0}, f"{name} must be at least 1, got 0") for name in COUNTS),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
        ({"top_p": 2.0}, "top_p must be above 0 and at most 1, got 2.0"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_k": -1}, "top_k must be at least 0, got -1"),
        ({"epsilon": -1.0}, "epsilon must be at least 0"),
        ({"delta": -1.0}, "delta must be at least 0"),
        ({"top_entropy_quantile": 2.0}, "top_entropy_quantile must be above 0 and at most 1"),
        ({"reward_weights": [0.0, 0.0]}, "train for nothing"),
        ({"ignore_data_skip": True}, "ignore_data_skip=True does not work here"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "thinking is a setting of its own"),
    ],
)
def test_grpo_refuses(setting: dict[str, Any], told: str, tmp_path: Path) -> None:
    own: dict[str, Any] = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False}
    with pytest.raises(ValueError, match=told):
        TimeLensGRPOConfig(**(own | setting))
