"""A checkpoint's model with its processor, and the records of the families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.encodings import processor_class
from timelens_plugins.families import FAMILIES, Family, family_of, find_family, model_types, register_family
from timelens_plugins.families.load import load_model
from timelens_plugins.families.tiny import build_model, save_checkpoint
from timelens_plugins.shared_prefix.locate import mergers_of, vision_language_model, vision_tower


def test_model_and_processor(family: str, tiny_checkpoints: dict[str, Path]) -> None:
    model, processor = load_model(
        tiny_checkpoints[family], "text_prefix", dtype="float64", device="cpu", fps=1, max_frames=8
    )
    assert type(processor) is processor_class(family)
    assert (processor.encoding, processor.frame_sampling.fps, processor.frame_sampling.max_frames) == (
        "text_prefix",
        1,
        8,
    )
    assert model.dtype == torch.float64
    assert not model.training
    assert family_of(model) is FAMILIES[family]
    restored = hasattr(model.model.get_rope_index, "_timelens_restored")
    assert restored == (family == "qwen2_5_vl"), "its text positions are those it was trained with"


@pytest.mark.parametrize(
    ("options", "gpu", "batched"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"device": "cpu"}, True, False),
        ({"device": "cpu", "batch_frames": True}, False, True),
        ({"batch_frames": False}, True, False),
        ({"attn_implementation": "eager"}, True, False),
    ],
    ids=str,
)
def test_frames_are_batched_on_a_gpu(
    tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch, options: Any, gpu: bool, batched: bool
) -> None:
    monkeypatch.setattr("timelens_plugins.families.load.torch.cuda.is_available", lambda: gpu)
    model, _ = load_model(tiny_checkpoints["qwen3_vl"], **options)
    assert all(bool(block.attn._forward_pre_hooks) == batched for block in vision_tower(model.model).blocks)


def test_faults_are_said_before_weights_are_read(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((tiny_checkpoints["qwen3_vl"] / "config.json").read_text())
    for options, message in (
        ({"encoding": "morse"}, "unknown encoding 'morse'"),
        ({"frames": 4}, "unknown setting frames"),
        ({"device": "cpu", "device_map": "auto"}, "both say where"),
        ({"device": "gpu"}, "device gpu cannot be used here, which has cpu"),
        ({"device": "cuda:99"}, "device cuda:99 cannot be used here"),
    ):
        with pytest.raises(ValueError, match=message):
            load_model(tiny_checkpoints["qwen3_vl"], **options)  # type: ignore[arg-type]
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(ValueError, match="no time encodings for model_type 'llava'"):
        load_model(tmp_path)


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"])
def test_records_are_true(model_type: str, tmp_path: Path) -> None:
    """Tower and mergers are what the model has: every merger ends in the language model's width, the trunk does not."""
    model = build_model(model_type, vision_hidden_size=48)  # type: ignore[arg-type]
    core = vision_language_model(model)
    record = find_family(model_type)
    assert record is family_of(core)
    mergers = mergers_of(core)
    assert len(mergers) == 1 + len(getattr(core.config.vision_config, "deepstack_visual_indexes", ()))
    width = core.config.get_text_config().hidden_size
    found = {id(p) for merger in mergers for p in merger.parameters()}
    named = {id(p) for name, p in vision_tower(core).named_parameters() if record.is_merger(name)}
    assert found == named
    for merger in mergers:
        assert [p for p in merger.parameters() if p.ndim == 2][-1].shape[0] == width
    if model_type.startswith("qwen3_5"):
        save_checkpoint(tmp_path, model_type)  # type: ignore[arg-type]
        assert type(load_model(tmp_path)[1]) is processor_class(model_type)


def test_names_and_model_types_are_taken_once() -> None:
    with pytest.raises(ValueError, match="qwen3_vl already"):
        register_family(Family("other", ("qwen3_vl",), "P", ()))
    with pytest.raises(ValueError, match="unknown model family 'llava'; known: qwen3_vl, qwen3_vl_moe"):
        find_family("llava")
    assert set(model_types()) >= {"qwen3_vl_moe", "qwen3_5"}
