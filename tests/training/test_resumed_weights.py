"""A run goes on from the weights of its checkpoint, whatever their names there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.sft import TimeLensSFTTrainer
from timelens_plugins.training.parts import adapter_modules_to_save
from timelens_plugins.training.resumed_weights import ResumedWeights


class Resuming(ResumedWeights, Trainer):
    pass


def model(folder: Path, dtype: Any = torch.float32) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)


def trainer(of: Any, folder: Path) -> Resuming:
    return Resuming(model=of, args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none"))


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_5", "qwen3_vl_moe"])
@pytest.mark.parametrize("size", ["one file", "shards"])
def test_every_weight_is_that_of_the_checkpoint(
    family: str, size: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    trained = model(tiny_checkpoints[family])
    with torch.no_grad():
        for number, parameter in enumerate(trained.parameters()):
            parameter.add_(0.01 * (number + 1))
    trained.save_pretrained(tmp_path, max_shard_size="300KB" if size == "shards" else "5GB")
    assert (tmp_path / "model.safetensors").is_file() == (size == "one file")

    def check(found: Any) -> None:
        state = found.state_dict()
        for name, expected in trained.state_dict().items():
            assert torch.equal(state[name], expected), name

    resumed = trainer(model(tiny_checkpoints[family]), tmp_path)
    resumed._load_from_checkpoint(str(tmp_path))
    check(resumed.model)
    best = trainer(model(tiny_checkpoints[family]), tmp_path)
    best.state.best_model_checkpoint = str(tmp_path)
    best._load_best_model()
    check(best.model)


def test_parameters_of_several_precisions_keep_theirs(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    def mixed() -> Any:
        made = model(tiny_checkpoints["qwen2_5_vl"], torch.bfloat16)
        made.lm_head.float()
        return made

    trained = mixed()
    with torch.no_grad():
        trained.lm_head.weight.add_(1e-4)
        trained.model.language_model.norm.weight.add_(0.5)
    trained.save_pretrained(tmp_path)
    resumed = trainer(mixed(), tmp_path)
    resumed._load_from_checkpoint(str(tmp_path))
    for (name, found), expected in zip(resumed.model.named_parameters(), trained.parameters(), strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected), name


def test_a_missing_weight_is_an_error(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    model(tiny_checkpoints["qwen2_5_vl"]).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in weights.items() if "layers.0.mlp.up" not in k},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(RuntimeError, match=r"lacks weights of this model.*layers\.0\.mlp\.up_proj\.weight"):
        trainer(model(tiny_checkpoints["qwen2_5_vl"]), tmp_path)._load_from_checkpoint(str(tmp_path))


def tuned(folder: Path, *targets: str, mergers: bool = True) -> Any:
    made = model(folder)
    saved = adapter_modules_to_save(made) if mergers else None
    return get_peft_model(made, LoraConfig(r=2, target_modules=list(targets), modules_to_save=saved))


def test_adapters_and_mergers_are_those_of_the_checkpoint(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    trained = tuned(tiny_checkpoints["qwen3_vl"], "q_proj")
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(0.01 if parameter.requires_grad else 0.0)
    trained.save_pretrained(tmp_path)
    resumed = trainer(tuned(tiny_checkpoints["qwen3_vl"], "q_proj"), tmp_path)
    resumed._load_from_checkpoint(str(tmp_path))
    for (name, found), expected in zip(resumed.model.named_parameters(), trained.parameters(), strict=True):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (("q_proj", True), r"lacks 4 weights that this run trains, such as .*v_proj\.lora_A"),
        (("q_proj v_proj", False), r"lacks \d+ weights that this run trains, such as .*merger"),
        (None, "has no adapter, and this run trains one"),
    ],
)
def test_an_adapter_that_is_not_in_the_checkpoint_is_an_error(
    saved: tuple[str, bool] | None, told: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    base = tiny_checkpoints["qwen2_5_vl"]
    (model(base) if saved is None else tuned(base, *saved[0].split(), mergers=saved[1])).save_pretrained(tmp_path)
    run = trainer(tuned(base, "q_proj", "v_proj"), tmp_path)
    with pytest.raises(RuntimeError, match=told):
        run._load_from_checkpoint(str(tmp_path))
    run.state.best_model_checkpoint = str(tmp_path)
    with pytest.raises(RuntimeError, match=told):
        run._load_best_model()


@pytest.mark.parametrize("of_ours", [TimeLensGRPOTrainer, TimeLensSFTTrainer])
def test_both_trainers_resume_so(of_ours: type) -> None:
    for name in ("_load_from_checkpoint", "_load_best_model"):
        assert getattr(of_ours, name) is getattr(ResumedWeights, name)
    assert ResumedWeights in of_ours.__mro__
