"""Settings that cannot work are refused with the reason, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor

from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.moments import Moment
from timelens_plugins.training.dataset import moments_dataset


def config(tmp_path: Path, **settings: Any) -> TimeLensGRPOConfig:
    defaults = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False}
    return TimeLensGRPOConfig(**(defaults | {"per_device_train_batch_size": 8} | settings))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"use_vllm": True, "vllm_mode": "server"}, "vllm_mode=server does not work here: .* carries no video"),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2}, "each process has a vLLM of its own"),
        ({"use_vllm": True, "vllm_server_port": 8001}, "there is no server. Set vllm_server_port=8000"),
        ({"use_vllm": True, "rollout_rows": 4}, "vLLM decides by itself"),
        ({"use_vllm": True, "generation_kwargs": {"typical_p": 0.9}}, "they are of transformers' generate"),
        ({"use_vllm": True, "loss_type": "vespo"}, "needs vllm_importance_sampling_mode='token_mask'"),
        ({"vllm_gpu_memory_utilization": 0.5}, "use_vllm is not set, so it has no effect"),
        ({"vllm_importance_sampling_clip_max": 2.0}, "use_vllm is not set, so it has no effect"),
        ({"per_device_train_batch_size": 4, "steps_per_generation": 2}, "must be a multiple of num_generations=8"),
        (
            {"eval_strategy": "steps", "per_device_eval_batch_size": 8, "num_generations_eval": 3},
            "per_device_eval_batch_size=8 must be a multiple of the 3|divisible by the number of generations",
        ),
        ({"rollout_rows": 0}, "rollout_rows must be at least 1"),
        ({"reward_weights": [1.0, float("nan")]}, "reward_weights must be numbers"),
    ],
)
def test_refused_settings(settings: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        config(tmp_path, **settings)


def test_eager_attention_and_other_processors(
    tiny_checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoints["qwen3_vl"]
    ours = load_processor(checkpoint)
    given: dict[str, Any] = {
        "reward_funcs": lambda completions, **columns: [0.0] * len(completions),
        "args": config(tmp_path),
        "train_dataset": moments_dataset(moments),
    }
    eager = AutoModelForImageTextToText.from_pretrained(checkpoint, attn_implementation="eager")
    with pytest.raises(ValueError, match="shared prefixes need attn_implementation='sdpa'"):
        TimeLensGRPOTrainer(model=eager, processing_class=ours, **given)
    with pytest.raises(TypeError, match="load_processor"):
        TimeLensGRPOTrainer(model=eager, processing_class=AutoProcessor.from_pretrained(checkpoint), **given)


def test_a_prompt_without_a_video(make_trainer: Callable[..., TimeLensGRPOTrainer]) -> None:
    trainer = make_trainer(max_steps=1)
    row = {"prompt": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]}
    trainer.train_dataset = Dataset.from_list([row] * len(trainer.train_dataset))
    with pytest.raises(ValueError, match="a prompt must hold one video, given as a path"):
        trainer.train()
