"""``benchmarks/gpu.py`` at toy size: all that can run here does, and what cannot is named and ends nothing."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

NAMES = ("gpu", "gpu_sections", "gpu_measuring", "gpu_models")
MODELS = ("Qwen3-VL-8B", "Qwen3.5-9B")


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield importlib.import_module("gpu")
    for name in NAMES:
        sys.modules.pop(name, None)


def run(gpu: ModuleType, output: Path, *options: str) -> dict[str, Any]:
    assert gpu.main(["--size", "toy", "--output", str(output), *options]) == 0
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_one_run(gpu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(gpu, tmp_path / "gpu.json")
    for model in MODELS:
        for section in gpu.SECTIONS:
            assert found["sections"][f"{model}, sdpa, {section}"].startswith("done")
        for section in gpu.AGAIN:
            assert found["sections"][f"{model}, flash_attention_2, {section}"] == "skipped: flash-attn is not there"
    rows = found["results"]
    assert {(row["model"], row["section"]) for row in rows} >= {(m, s) for m in MODELS for s in gpu.SECTIONS}
    assert {row["status"] for row in rows if row["section"] != "deepspeed"} == {"measured"}
    for section in ("training", "rollout"):
        ways = {
            r["way"]: r for r in rows if (r["section"], r["model"], r["prompt_tokens"]) == (section, MODELS[0], 240)
        }
        assert set(ways) == {"plain, one row", "plain, 3 rows", "shared, 3 x 1", "shared, 3 x 2"}
        shared, row = ways["shared, 3 x 2"], ways["plain, one row"]
        assert shared["faster_than"]["plain, one row"] == pytest.approx(
            6 * row["seconds"] / shared["seconds"], rel=1e-2
        )
        assert len(shared["runs"]) == 2
    noise = {(r["model"], r["way"]): r["values"] for r in rows if r["section"] == "noise"}
    assert len(noise) == 14
    for (_, way), values in noise.items():
        if "gradients" in way:
            assert all(value > 0.99 for name, value in values.items() if name.endswith("cosine"))
        else:
            assert values["mean_abs"] < 0.05, "nats: what rounding to bf16 explains"
            assert values["entropy"] > 1
    differences = [r["values"]["largest_difference"] for r in rows if r["way"] == "both against stock"]
    assert len(differences) == 4
    assert max(differences) < 0.05
    assert sum("each, in prefills" in name for name in found["figures"]) == 8
    assert found["machine"]["packages"]["torch"]
    printed = capsys.readouterr().out
    assert "shared, 3 x 2" in printed
    assert "skipped: flash-attn is not there" in printed


def test_what_fails_or_does_not_fit_is_named_and_the_rest_goes_on(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no kernel\nand more")

    def does_not_fit(completions: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    sections = sys.modules["gpu_sections"]
    monkeypatch.setattr(sections._Case, "plain_step", lambda self, n: does_not_fit(n))
    monkeypatch.setattr(sections._Case, "shared_step", fails)
    monkeypatch.setitem(gpu.SECTIONS, "decode", (fails, 0.1))
    options = ("--models", MODELS[0], "--sections", "decode", "training", "vision")
    found = run(gpu, tmp_path / "gpu.json", *options)
    status = found["sections"]
    assert status[f"{MODELS[0]}, sdpa, decode"].startswith("failed: ValueError: no kernel (")
    assert status[f"{MODELS[0]}, sdpa, vision"].startswith("done")
    of = {(row["section"], row["way"]): row["status"] for row in found["results"]}
    assert of["training", "plain, 3 rows"] == "does not fit"
    assert of["training", "shared, 3 x 1"] == "failed: ValueError: no kernel"
    assert of["vision", "frames in a batch"] == "measured"


def test_without_time_all_is_named_and_nothing_runs(gpu: ModuleType, tmp_path: Path) -> None:
    found = run(gpu, tmp_path / "gpu.json", "--seconds", "0", "--sections", *gpu.SECTIONS)
    assert found["results"] == []
    assert len(found["sections"]) == len(MODELS) * (len(gpu.SECTIONS) + len(gpu.AGAIN))
    assert set(found["sections"].values()) == {"skipped: no time left"}


def test_layers_that_fit(gpu: ModuleType) -> None:
    """bf16 weights with their gradients, and room for the rest."""
    models = sys.modules["gpu_models"]
    for name, shape in models.REAL.items():
        assert models.fitting(shape, 80 * 2**30) == shape
        smaller = models.fitting(shape, 40 * 2**30)
        assert 4 < smaller.text.layers < shape.text.layers
        config = models.configuration(smaller).get_text_config()
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        assert kinds.count("linear_attention") == smaller.text.recurrent_layers, name
    with pytest.raises(ValueError, match="does not fit 8 GiB"):
        models.fitting(models.REAL[MODELS[0]], 8 * 2**30)
