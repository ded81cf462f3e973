"""The arithmetic of a plan against models that transformers builds, against counts by hand, and as a command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.cli import main
from timelens_plugins.scaling import SHAPES, Hardware, Work, group_operations, hours, read_shape, step_memory


def _config(name: str) -> Any:
    """A configuration of transformers' own class with the sizes of a shape; all else is the class's default."""
    from transformers import Qwen2_5_VLConfig, Qwen3_5Config, Qwen3VLConfig

    text, vision = SHAPES[name].text, SHAPES[name].vision
    config = {"Qwen2.5-VL-7B": Qwen2_5_VLConfig, "Qwen3-VL-8B": Qwen3VLConfig, "Qwen3.5-9B": Qwen3_5Config}[name]
    return config(
        text_config={
            "num_hidden_layers": text.layers,
            "hidden_size": text.hidden,
            "intermediate_size": text.intermediate,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "vocab_size": text.vocabulary,
        }
        | ({} if name == "Qwen2.5-VL-7B" else {"head_dim": text.head_dim}),
        vision_config={
            "depth": vision.depth,
            "hidden_size": vision.hidden,
            "intermediate_size": vision.intermediate,
            "num_heads": vision.heads,
            "patch_size": vision.patch,
            "out_hidden_size": vision.output,
        },
    )


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_model_that_transformers_builds(name: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    config = _config(name)
    with torch.device("meta"):
        model: Any = AutoModelForImageTextToText.from_config(config)
    tower = dict(model.model.visual.named_parameters())
    mergers = sum(p.numel() for n, p in tower.items() if n.startswith(("merger.", "deepstack_merger_list.")))
    shape = SHAPES[name]
    assert shape.parameters() == sum(p.numel() for p in model.parameters())
    assert shape.vision.merger_parameters() == mergers
    assert shape.vision.tower_parameters() == sum(p.numel() for p in tower.values()) - mergers

    config.save_pretrained(tmp_path)
    read = read_shape(str(tmp_path))
    assert (read.text, read.vision) == (shape.text, shape.vision)
    assert read_shape(str(tmp_path / "config.json")).parameters() == shape.parameters()


def test_known_sizes() -> None:
    """As the models' names and cards have it: 8.29, 8.77 and about 9 billion."""
    assert [round(shape.parameters() / 1e9, 2) for shape in SHAPES.values()] == [8.29, 8.77, 9.41]


def test_tokens_and_pairs_by_hand() -> None:
    work = Work(frames=4, vision_tokens=8, generations=2, completion_tokens=3, queries=2)
    assert work.video_tokens == 8 + 2 * 8
    assert work.prompt_tokens == 24 + 40
    assert work.plain_tokens == 4 * (64 + 3)
    assert work.shared_tokens == 24 + 2 * 40 + 4 * (3 - 1), "nothing follows the last token of a completion"
    plain = 4 * sum(range(1, 68))
    queries = 2 * sum(range(24 + 1, 24 + 40 + 1))
    completions = 4 * sum(range(64 + 1, 64 + 3))
    assert work.pairs_attended(False) == plain
    assert work.pairs_attended(True) == sum(range(1, 25)) + queries + completions


def test_operations_of_a_layer_are_counted_by_torch() -> None:
    """Products of matrices and attention of a tiny text model's forward, as torch's own counter has them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from timelens_plugins.families import tiny
    from timelens_plugins.families.shapes import ModelShape, TextShape
    from timelens_plugins.scaling.operations import _text

    model: Any = tiny.build_model("qwen3_vl", hidden_size=64, layers=2, heads=4, kv_heads=2, head_dim=16).eval()
    text = TextShape(2, 64, 128, 4, 2, 16, model.config.text_config.vocab_size)
    shape = ModelShape("tiny", text, SHAPES["Qwen3-VL-8B"].vision, "here")
    n = 50
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.model.language_model(input_ids=torch.arange(n)[None])
    # torch counts all pairs of causal attention, also those that are masked
    assert counter.get_total_flops() == _text(shape, n, n * n)


def test_a_shared_group_costs_about_one_prompt() -> None:
    shape, work = SHAPES["Qwen3-VL-8B"], Work(448, 14336, 8, 24)
    shared, plain = (group_operations(shape, work, shared=s) for s in (True, False))
    assert 7.5 < plain.total / shared.total < 8.5, "published for this shape: 8.2 times, 7.9 with a trained merger"
    assert plain.decode == shared.decode
    four = group_operations(shape, dataclasses.replace(work, queries=4), shared=True)
    assert four.total < 1.2 * shared.total


def test_memory_between_steps_is_that_of_mixed_precision() -> None:
    """Bytes a parameter, as the papers of ZeRO and FSDP count them, for a model that is trained but for its tower."""
    shape, work = SHAPES["Qwen3-VL-8B"], Work(448, 14336)
    total, trained = shape.parameters(), shape.trained()

    def resident(sharding: Any, devices: int = 8) -> float:
        return step_memory(shape, work, sharding=sharding, devices=devices).resident

    assert resident("ddp") == 4 * total + 8 * trained
    assert resident("fsdp2") == pytest.approx(resident("ddp") / 8)
    assert resident("zero1") == resident("zero2") == 2 * total + 12 * trained / 8
    assert resident("zero3") == pytest.approx((2 * total + 12 * trained) / 8)
    assert step_memory(shape, work, sharding="zero2", devices=8).gradients < 17e9 < 4 * trained


def test_the_published_cost_of_a_step() -> None:
    """TimeLens-7B: 310 steps of 8 x 8 completions took 4 h 10 min on 8 GPUs, of a kind that is not stated."""
    shape, work = SHAPES["Qwen2.5-VL-7B"], Work(448, 14336, 8, 24)
    found = hours(shape, work, 8, Hardware(), shared=False, prompts=8, steps=310).training
    assert 4.17 / 1.5 < found < 4.17 * 1.5


def test_more_gpus_than_prompts_have_no_work() -> None:
    shape, work = SHAPES["Qwen3-VL-8B"], Work(448, 14336)
    few, many = (hours(shape, work, n, Hardware(), prompts=8) for n in (8, 64))
    assert many.step.busy == 8
    assert many.training == few.training
    assert many.difficulty < few.difficulty / 7


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "plan.json"
    assert main(["plan", "--model", "qwen3-vl-8b", "--gpus", "8", "64", "8", "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "8,767,123,696 parameters" in printed
    found = json.loads(out.read_text())
    fitting = {row["sharding"] for row in found["settings"] if row["fits"] and row["road"] == "shared"}
    assert fitting == {"fsdp2", "zero1", "zero2", "zero3"}
    assert not any(row["fits"] for row in found["settings"] if row["road"] == "plain")
    assert [row["gpus"] for row in found["hours"]] == [8, 8, 64, 64]
    assert main(["plan", "--model", "Qwen3-VL-8B", "--memory", "16"]) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model", "Qwen9"], "neither a known shape"),
        (["--model", "Qwen3-VL-8B", "--tokens", "10"], "10 vision tokens are fewer than the 224 frame pairs"),
    ],
)
def test_refused(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *options]) == 2
    assert told in capsys.readouterr().err


def test_a_config_that_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="model_type 'llama' is not one whose cost is known"):
        read_shape(str(path))
    path.write_text(json.dumps({"model_type": "qwen3_vl", "vision_config": {}, "text_config": {}}))
    with pytest.raises(ValueError, match="is not stated"):
        read_shape(str(path))
    path.write_text("[1")
    with pytest.raises(ValueError, match="not JSON"):
        read_shape(str(path))


def test_the_packed_row_has_as_many_tokens() -> None:
    import torch

    from timelens_plugins.families import tiny
    from timelens_plugins.shared_prefix import Prompt, PromptTree
    from timelens_plugins.shared_prefix.locate import vision_language_model
    from timelens_plugins.shared_prefix.packing import pack

    core = vision_language_model(tiny.build_model("qwen3_vl"))
    work = Work(frames=2, vision_tokens=8, generations=3, completion_tokens=5, queries=2)
    prompt = Prompt(torch.full((work.video_tokens,), 20), torch.zeros(work.video_tokens, dtype=torch.long), {})
    query, completions = torch.full((work.query_tokens,), 21), [torch.full((5,), 22 + i) for i in range(3)]
    tree = PromptTree.of_queries(prompt, [(query, completions), (query + 9, completions)])
    assert pack(core, [tree], torch.device("cpu")).input_ids.numel() == work.shared_tokens
