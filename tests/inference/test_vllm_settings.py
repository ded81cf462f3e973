"""What is wrong with ``engine=vllm`` is said before a model is loaded; vLLM itself is tested in tests/real_vllm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import recipe_runs
import torch
from thinking_template import with_thinking

from timelens_plugins.encodings import load_processor
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.evaluation.vllm_model import TimeLensVllm
from timelens_plugins.inference import engines
from timelens_plugins.inference.engines import EngineNotInstalledError
from timelens_plugins.inference.vllm.engine import VllmEngine, _Sent
from timelens_plugins.inference.vllm.model import VllmError, VllmModel
from timelens_plugins.inference.vllm.parity import _Asked, agreement
from timelens_plugins.inference.vllm.settings import VllmSettings


def model_of(path: Path, encoding: str | None = None, **settings: Any) -> VllmModel:
    return VllmModel(str(path), load_processor(path, encoding), VllmSettings(**settings))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be a number of at least 1, got 0"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization must be at most 1"),
        ({"max_model_len": "long"}, "max_model_len must be a number"),
        ({"concurrency": True}, "concurrency must be a number"),
        ({"parity": -1}, "parity must be a number of at least 0"),
        ({"parity_tolerance": float("nan")}, "parity_tolerance must be a number"),
        ({"enforce_eager": "yes"}, "enforce_eager must be true or false"),
        ({"on_failed_request": "stop"}, "on_failed_request must be 'error' or 'skip'"),
    ],
)
def test_settings_out_of_range(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VllmSettings(**given)


def test_what_is_left_to_vllm_is_not_passed_on() -> None:
    assert VllmSettings().passed_on() == {
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "enforce_eager": False,
        "max_num_seqs": 32,
    }
    assert VllmSettings(max_model_len=100, concurrency=3).passed_on()["max_model_len"] == 100


def test_a_thought_that_the_prompt_opens_belongs_to_the_answer(tiny_checkpoints: dict[str, Path]) -> None:
    model = model_of(tiny_checkpoints["qwen3_vl"])
    processor = model.processor
    processor.chat_template = with_thinking(processor.chat_template)
    engine = VllmEngine(model, {"max_new_tokens": 4})
    written = SimpleNamespace(index=0, token_ids=processor.tokenizer("1.0 - 2.0")["input_ids"], finish_reason="length")
    output = SimpleNamespace(prompt_token_ids=[1], outputs=[written], num_cached_tokens=0)
    texts = []
    for thinking in (False, True):
        processor.configure(thinking=thinking)
        texts += engine._read(_Sent(0, "when?", [1]), output).texts
    assert texts == ["1.0 - 2.0", "<think>\n1.0 - 2.0"]


def test_arguments_of_an_evaluation(tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tiny_checkpoints["qwen3_vl"])
    monkeypatch.setitem(engines.ENGINES, "vllm", ("no_such_module_vllm",))
    with pytest.raises(EngineNotInstalledError, match="engine=vllm needs no_such_module_vllm"):
        TimeLens(path, engine="vllm")
    monkeypatch.setitem(engines.ENGINES, "vllm", ())
    for given, kind, message in (
        ({"device": "cpu"}, TypeError, "engine=vllm has no argument device; it has concurrency, enforce_eager, fps"),
        ({"patch_size": 14}, TypeError, "engine=vllm has no argument patch_size"),
        ({"batch_size": 8}, ValueError, "concurrency="),
        ({"dtype": "int8"}, ValueError, "dtype must be one of auto"),
        ({"enforce_eager": "maybe"}, ValueError, "enforce_eager must be true or false"),
        ({"on_bad_video": "drop"}, ValueError, "on_bad_video must be"),
        ({"fps": 0}, ValueError, "fps must be a positive number"),
        ({"encoding": "text_prefix"}, ValueError, "vLLM writes the family's own time markers"),
    ):
        with pytest.raises(kind, match=message):
            TimeLens(path, engine="vllm", **given)  # type: ignore[arg-type]
    model = TimeLens(path, engine="vllm", enforce_eager="true", fps=1, total_tokens=128, max_model_len=900)
    assert isinstance(model, TimeLensVllm)
    assert model.processor.frame_sampling.fps == 1
    engine = model._engine({"do_sample": False, "max_new_tokens": 7, "until": []})
    assert engine._sampling["max_tokens"] == 7
    assert engine._sampling["temperature"] == 0.0
    assert set(engine._sampling["stop_token_ids"]) == set(model._vllm.generation_config.eos_token_id)
    with pytest.raises(ValueError, match="the engine 'vllm' has no generation setting num_beams"):
        model._engine({"do_sample": False, "num_beams": 3})


def test_a_checkpoint_whose_processors_normalise_differently_is_refused(
    family: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model_of(tiny_checkpoints[family], "native")
    path = Path(shutil.copytree(tiny_checkpoints[family], tmp_path / "other"))
    changed = 0
    for name in ("preprocessor_config.json", "processor_config.json"):
        if not (path / name).is_file():
            continue
        content = json.loads((path / name).read_text())
        for part in (content, content.get("image_processor", {})):
            if "image_mean" in part:
                part["image_mean"] = [0.1, 0.2, 0.3]
                changed += 1
        (path / name).write_text(json.dumps(content))
    assert changed
    with pytest.raises(ValueError, match=r"normalises videos as the image processor says .*\[0.1, 0.2, 0.3\]"):
        model_of(path, "native")
    if family == "qwen2_5_vl":
        model_of(path, "interleaved_timestamp")  # shows images, which the image processor normalises here as well


def test_several_processes_are_refused(tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(VllmError, match="tensor_parallel_size="):
        model_of(tiny_checkpoints["qwen3_vl"])


def test_sampled_answers(tiny_checkpoints: dict[str, Path]) -> None:
    model = model_of(tiny_checkpoints["qwen3_vl"])
    with pytest.raises(ValueError, match="2 samples of a greedy answer would be equal"):
        VllmEngine(model, {"max_new_tokens": 3}, 2)
    engine = VllmEngine(model, {"max_new_tokens": 3, "do_sample": True, "temperature": 0.7, "top_p": 0.9}, 2, seed=3)
    pads = model.processor.tokenizer.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
    assert engine._sampling["logit_bias"] == dict.fromkeys(pads, -100.0)
    assert (engine._sampling["temperature"], engine._sampling["top_p"], engine._sampling["n"]) == (0.7, 0.9, 2)


def test_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(engines.ENGINES, "vllm", ())
    settings = {"engine": "vllm", "synthetic_folder": str(tmp_path), "output": str(tmp_path / "d.jsonl")}
    for changes, message in (
        ({"max_rows": 9}, "engine=vllm: max_rows would have no effect"),
        ({"max_rows": None, "engine_args": "preset=gpt"}, "engine_args: unknown preset; known are concurrency"),
        ({"max_rows": None, "engine_args": "parity=x"}, "parity must be a number"),
    ):
        with pytest.raises(ValueError, match=message):
            recipe_runs.run("difficulty", **settings, **changes)


def test_agreement_ends_where_other_tokens_were_written() -> None:
    """Unlikely tokens do not count, and neither does what follows a different choice."""
    from types import SimpleNamespace

    ours = torch.tensor([[0.6, 0.399, 0.001], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05]]).log()

    def output(*steps: tuple[int, list[float]]) -> Any:
        rows = [
            {i: SimpleNamespace(logprob=float(torch.tensor(p).log())) for i, p in enumerate(chances)}
            for _, chances in steps
        ]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[token for token, _ in steps], logprobs=rows)])

    same = (0, [0.6, 0.395, 0.005])
    found = agreement(output(same, (1, [0.49, 0.5, 0.01]), (2, [0.1, 0.1, 0.8])), _Asked({}, [0, 0, 0], ours))
    assert (found.tokens, found.greedy) == (2, False)
    assert found.difference == pytest.approx(float(torch.tensor(0.2 / 0.01).log()), rel=1e-4)
    found = agreement(output(same), _Asked({}, [0], ours))
    assert (found.tokens, found.greedy) == (1, True)
    assert found.difference == pytest.approx(float(torch.tensor(0.399 / 0.395).log()), rel=1e-3)
