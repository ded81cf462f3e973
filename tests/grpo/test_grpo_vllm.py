"""What surrounds rollouts by vLLM and needs none; ``tests/real_vllm/test_grpo.py`` has the rollouts themselves."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from recipe_runs import run
from transformers import AutoModelForImageTextToText

from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.grpo.resume import RunState
from timelens_plugins.grpo.vllm_rollout import named_weights
from timelens_plugins.inference.engines import EngineNotInstalledError
from timelens_plugins.training.parts import adapter_modules_to_save


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_trainer_says_so(make_trainer: Callable[..., TimeLensGRPOTrainer]) -> None:
    """Before anything is made of the model, or loaded by a recipe: this one has a model that is none."""
    told = r"use_vllm=True: vLLM is not installed.*use_vllm=False"
    trainer = make_trainer()
    with pytest.raises(EngineNotInstalledError, match=told):
        TimeLensGRPOTrainer(
            model=object(),
            reward_funcs=trainer.reward_funcs,
            args=TimeLensGRPOConfig(use_vllm=True, use_cpu=True, bf16=False, output_dir=trainer.args.output_dir),
            train_dataset=trainer.train_dataset,
            processing_class=trainer.processing_class,
        )
    with pytest.raises(EngineNotInstalledError, match=told):
        run("rlvr", use_vllm=True, model_name_or_path="nowhere")


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_weights_with_an_adapter_are_those_of_the_merged_model(
    tiny_checkpoints: dict[str, Path], options: dict[str, bool]
) -> None:
    """By name and value, trained mergers among them; the weights of the model itself do not change by a bit."""
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoints["qwen2_5_vl"])
    plain = {name: weight.clone() for name, weight in named_weights(model)}
    assert plain.keys() == dict(model.named_parameters()).keys()
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj", "gate_proj"],
        modules_to_save=adapter_modules_to_save(model),
        init_lora_weights=False,
        **options,
    )
    tuned = get_peft_model(model, config)
    tuned.add_adapter("other", config)  # such as TRL's copy of an adapter, for the KL divergence
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if ".modules_to_save.default." in name:
                parameter.add_(0.1)
    before = {name: parameter.clone() for name, parameter in tuned.named_parameters()}
    found = dict(named_weights(tuned))
    merged = copy.deepcopy(tuned).merge_and_unload(adapter_names=["default"])
    expected = dict(merged.named_parameters())
    assert found.keys() == expected.keys() == plain.keys()
    for name, weight in found.items():
        assert torch.equal(weight, expected[name]), name
    changed = [name for name, weight in found.items() if not torch.equal(weight, plain[name])]
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in changed} >= {"q_proj", "v_proj", "gate_proj"}
    assert any("merger" in name for name in changed)
    assert all(torch.equal(parameter, before[name]) for name, parameter in tuned.named_parameters())


def test_a_generation_batch_of_vllm_goes_on_with_vllm() -> None:
    """Its log-probs are needed; checkpoints from before there was a choice were saved without."""
    with_vllm = {"processes": 1, "use_vllm": True, "vllm_importance_sampling_correction": True}
    without = with_vllm | {"use_vllm": False, "vllm_importance_sampling_correction": False}
    RunState(1, 2, {"processes": 1}).check_layout(without, Path("checkpoint-1"))
    RunState(1, 0, with_vllm).check_layout(without, Path("checkpoint-1"))
    with pytest.raises(ValueError, match=r"use_vllm=True \(now False\)"):
        RunState(1, 2, with_vllm).check_layout(without, Path("checkpoint-1"))
    with pytest.raises(ValueError, match=r"use_vllm=False \(now True\)"):
        RunState(1, 2, {"processes": 1}).check_layout(with_vllm, Path("checkpoint-1"))
