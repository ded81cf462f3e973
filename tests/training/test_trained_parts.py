"""Trained parts, LoRA, and optimizer groups."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Trainer

from timelens_plugins.families.tiny import build_model
from timelens_plugins.shared_prefix.locate import vision_language_model
from timelens_plugins.training.parts import adapter_modules_to_save, create_optimizer, parameter_groups, set_trainable


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("vision", ["frozen", "merger", "full"])
def test_what_is_trained(family: str, vision: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = build_model(family)  # type: ignore[arg-type]
    names = {name for name, _ in model.named_parameters()}
    mergers = {name for name in names if ".merger." in name or ".deepstack_merger_list." in name}
    tower = {name for name in names if ".visual." in name}
    assert mergers < tower < names
    assert any("deepstack" in name for name in mergers) == (family == "qwen3_vl")
    with caplog.at_level(logging.INFO, logger="timelens_plugins"):
        report = set_trainable(model, vision)
    expected = {"frozen": names - tower, "merger": names - tower | mergers, "full": names}[vision]
    assert trained(model) == expected
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(report.trained.values()) == sum(sizes[n] for n in expected)
    assert sum(report.frozen.values()) == sum(sizes[n] for n in names - expected)
    assert report.frozen["merger"] == (sum(sizes[n] for n in mergers) if vision == "frozen" else 0)
    assert str(report) in caplog.text
    set_trainable(model, "full")
    assert trained(model) == names


def test_adapters(family: str, tmp_path: Any) -> None:
    model = build_model(family)  # type: ignore[arg-type]
    plain = get_peft_model(build_model(family), LoraConfig(target_modules=["q_proj", "v_proj"]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="modules_to_save="):
        set_trainable(plain, "merger")
    with pytest.raises(ValueError, match="no adapter"):
        set_trainable(plain, "full")
    set_trainable(plain, "frozen")

    config = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=adapter_modules_to_save(model))
    model = get_peft_model(model, config)
    set_trainable(model, "merger")
    mergers = {name for name in trained(model) if "merger" in name}
    count = len(list(vision_language_model(model).visual.merger.parameters())) // 2
    assert len(mergers) == count * len(adapter_modules_to_save(model))
    assert all("lora_" in name for name in trained(model) - mergers)
    groups = parameter_groups(model, 1e-4, 1e-6, 0.1)
    assert {group["lr"] for group in groups} == {1e-4, 1e-6}
    assert sum(len(group["params"]) for group in groups) == len(trained(model))


def test_groups_hold_every_trained_parameter_once(family: str) -> None:
    model = build_model(family)  # type: ignore[arg-type]
    set_trainable(model, "merger")
    groups = parameter_groups(model, 1e-5, 1e-6, 0.1)
    listed = [id(p) for group in groups for p in group["params"]]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in model.parameters() if p.requires_grad}
    names = {id(p): name for name, p in model.named_parameters()}
    decaying = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    upstream = set(Trainer.get_decay_parameter_names(SimpleNamespace(), model))  # type: ignore[arg-type]
    # Upstream goes by names, and does not know Qwen2.5-VL's `ln_q` for a norm.
    assert decaying == {name for name in upstream & trained(model) if not name.endswith("ln_q.weight")}
    fast = {names[id(p)] for group in groups if group["lr"] == 1e-6 for p in group["params"]}
    assert fast == {name for name in trained(model) if "merger" in name}
    assert len(parameter_groups(model, 1e-5)) == 4

    set_trainable(model, "frozen")
    with pytest.raises(ValueError, match="merger is frozen"):
        parameter_groups(model, 1e-5, 1e-6)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        parameter_groups(model, 1e-5)


def test_optimizer_of_a_trainer() -> None:
    model = build_model("qwen3_vl")
    args = SimpleNamespace(optim="adamw", learning_rate=1e-4, weight_decay=0.1)
    trainer = SimpleNamespace(
        args=args, model=model, optimizer=None, optimizer_cls_and_kwargs=(torch.optim.AdamW, {"lr": 1e-4})
    )
    optimizer = create_optimizer(trainer, None, 1e-6)
    assert trainer.optimizer is optimizer
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-4, 1e-6, 1e-6]
    assert create_optimizer(trainer, None, 1e-6) is optimizer
    trainer.optimizer, trainer.optimizer_cls_and_kwargs = None, (torch.optim.AdamW, {"params": []})
    with pytest.raises(ValueError, match="own parameter groups"):
        create_optimizer(trainer, None, None)
