"""``engine=api`` in an evaluation and in estimates of difficulty: kills, faults, a real server with a real model."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import recipe_runs
from endpoints import FINAL, RETRIED, Endpoint, question_of
from requests_of import requests_for
from serving import serving

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.evaluation.api_model import TimeLensApi
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.inference.api.images import PresetSampling, clip_parts
from timelens_plugins.inference.api.presets import PRESETS
from timelens_plugins.inference.engines import EngineNotInstalledError
from timelens_plugins.video import sample_frames


def questions_about(benchmark_folder: Path, queries: int) -> list[dict[str, Any]]:
    videos = sorted((benchmark_folder / "videos").rglob("*.mp4"))
    texts = [f"a red circle appears {n} times" for n in range(queries)]
    return [{"video": str(v), "text": GROUNDING_PROMPT.format(query=q), "query": q} for q in texts for v in videos]


def journalled(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in folder.glob("*/*.jsonl") for line in path.read_bytes().split(b"\n") if line]
    return [json.loads(line.partition(b" ")[2]) for line in lines]


def test_kills_and_faults_together_cost_no_more_than_what_was_under_way(benchmark_folder: Path, tmp_path: Path) -> None:
    docs = questions_about(benchmark_folder, 6)

    def plan(body: Any) -> list[str]:
        rng = random.Random(question_of(body))
        final = [rng.choice(FINAL)] if rng.random() < 0.3 else []
        return [*(rng.choice(RETRIED) for _ in range(rng.randrange(3))), *final]

    (tmp_path / "questions.json").write_text(json.dumps(docs))
    kills, concurrency = 3, 3
    endpoint = Endpoint(plan, delay=0.02)
    with endpoint.running() as url:
        command = [sys.executable, str(Path(__file__).with_name("api_run.py")), url, str(tmp_path / "journal")]
        done = subprocess.run(
            [*command, str(tmp_path / "questions.json"), "1", str(kills)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        *said, texts = done.stdout.splitlines()
    assert "status 0" in said
    assert [line for line in said if line.startswith("killed 0")] == [], "every child was at work"
    fresh = Endpoint(lambda body: [f for f in plan(body) if f in FINAL])
    with fresh.running() as url:
        plain = TimeLens("tiny", engine="api", base_url=url)
        expected = [result.text for result in plain.generate_until(requests_for(plain, docs))]
    assert json.loads(texts) == expected

    records = journalled(tmp_path / "journal")
    assert len(records) == len(docs)
    # What was paid for and is not in the journal was under way when a child was killed.
    lost = sum(endpoint.answered.values()) + endpoint.faults["filter"] - len(docs)
    assert 0 <= lost <= kills * 2 * concurrency
    kept = sum(record["details"]["output_tokens"] for record in records)
    assert kept <= endpoint.output_tokens
    [tokens] = [line for line in said if "prompt and" in line][-1:]
    numbers = [int(word.strip(",;")) for word in tokens.split() if word.strip(",;").isdigit()]
    assert numbers[1] + numbers[3] == kept, tokens
    with endpoint.running() as url:  # at another address it is another endpoint, whose answers do not count
        asked = len(endpoint.requests)
        other = TimeLens("tiny", engine="api", base_url=url, retry_seconds=0.001, journal=str(tmp_path / "journal"))
        other.generate_until(requests_for(other, docs))
    assert len(endpoint.requests) > asked


def test_a_run_that_is_done_asks_nothing(
    benchmark_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = questions_about(benchmark_folder, 1)
    endpoint = Endpoint(lambda body: ["refusal"])
    with endpoint.running() as url:
        options: dict[str, Any] = {"engine": "api", "base_url": url, "journal": str(tmp_path / "journal")}
        model = TimeLens("tiny", **options)
        assert isinstance(model, TimeLensApi)
        first = [result.text for result in model.generate_until(requests_for(model, docs))]
        capsys.readouterr()
        assert [result.text for result in model.generate_until(requests_for(model, docs))] == first
    assert len(endpoint.requests) == len(docs)
    said = capsys.readouterr().out
    assert (
        f"tiny: 0 questions answered, {len(docs)} by earlier runs, 0 failed; of the answers {len(docs)} refused" in said
    )
    assert f"0 prompt and 0 output tokens, {100 * len(docs)} and {7 * len(docs)} in earlier runs" in said


def test_engines_and_their_arguments_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="engine must be one of transformers, vllm, api, got 'vlm'"):
        TimeLens("tiny", engine="vlm")
    with pytest.raises(TypeError, match="engine=api has no argument fps; it has base_url"):
        TimeLens("tiny", engine="api", fps=2.0)
    with pytest.raises(ValueError, match="concurrency="):
        TimeLens("tiny", engine="api", batch_size=8)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineNotInstalledError, match="engine=api needs httpx"):
        TimeLens("tiny", engine="api")


def test_difficulty_through_an_endpoint(benchmark_folder: Path, tmp_path: Path) -> None:
    """The recipe, with faults; started again it asks nothing, and its rows are those that answers call for."""

    def plan(body: Any) -> list[str]:
        return [RETRIED[len(question_of(body)) % len(RETRIED)]]

    endpoint = Endpoint(plan)
    output = tmp_path / "difficulty.jsonl"
    settings = {
        "annotations": str(benchmark_folder / "charades-timelens.json"),
        "video_root": str(benchmark_folder / "videos" / "charades"),
        "model_name_or_path": "tiny",
        "engine": "api",
        "output": str(output),
        "min_duration": 0.0,
        "samples": 2,
        "max_new_tokens": 16,
    }
    module = recipe_runs.recipe("difficulty")

    def run(**changes: Any) -> int:
        return int(module.main(*recipe_runs.from_dict(module.SETTINGS, settings | changes)))

    with endpoint.running() as url:
        arguments = {"engine_args": f"base_url={url},preset=gpt,retry_seconds=0.001"}
        assert run(**arguments) == 0
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        asked = len(endpoint.requests)
        assert run(**arguments) == 0
        assert len(endpoint.requests) == asked
        assert [json.loads(line) for line in output.read_text().splitlines()] == rows
    assert asked == 2 * len(rows) > 0
    assert all(row["answer"].startswith("The event happens in") and row["pred"] for row in rows)
    assert {row["settings"]["engine"] for row in rows} == {"api"}
    for changes, message in (
        ({"engine_args": "preset=gtp"}, "preset must be"),
        ({"engine_args": "persona=x"}, "engine_args: unknown persona"),
        ({"engine_args": "preset"}, "name=value"),
        ({"engine_args": None, "fps": 4.0, "dtype": "float32"}, "fps, dtype would have no effect"),
        ({"engine": "transformers", "engine_args": "preset=gpt"}, "takes no engine_args"),
        ({"engine": "vlm"}, "engine must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            run(**{k: v for k, v in changes.items() if v is not None})


@pytest.fixture
def served(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real server with the tiny Qwen2.5-VL."""
    with serving(tiny_checkpoints["qwen2_5_vl"], tmp_path / "serve.log") as url:
        yield url, tiny_checkpoints["qwen2_5_vl"]


def test_a_real_server_answers_as_its_model(served: tuple[str, Path], benchmark_folder: Path, tmp_path: Path) -> None:
    """``lmms-eval`` through ``transformers serve``: the answers of the model itself to the same images and texts."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    url, checkpoint = served
    arguments = f"engine=api,pretrained={checkpoint},base_url={url},preset=gpt,journal={tmp_path / 'journal'}"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "lmms_eval", "--model", "timelens", "--model_args", arguments),
            *("--tasks", "timelens_bench_charades", "--log_samples", "--output_path", str(tmp_path / "out")),
            *("--gen_kwargs", "max_new_tokens=12"),
        ],
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TIMELENS_BENCH_DIR": str(benchmark_folder)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    [samples] = (tmp_path / "out").rglob("*_samples_*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(rows) == 4
    assert "4 questions answered, 0 by earlier runs, 0 failed" in done.stdout
    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    videos = {path.stem: path for path in (benchmark_folder / "videos" / "charades").iterdir()}
    for row in rows:
        sample = row["mIoU"]
        clip = sample_frames(videos[sample["video"]], PresetSampling(preset=PRESETS["gpt"]))
        content = [
            {"type": "image", "url": part["image_url"]["url"]} if part["type"] == "image_url" else part
            for part in clip_parts(clip, PRESETS["gpt"])
        ]
        content.append({"type": "text", "text": GROUNDING_PROMPT.format(query=sample["query"])})
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert processor.decode(new, skip_special_tokens=True).strip() == row["filtered_resps"].strip()
    assert len({row["filtered_resps"] for row in rows}) > 1


def test_processes_keep_the_limit_of_requests_together(monkeypatch: pytest.MonkeyPatch) -> None:
    model = TimeLens("tiny", engine="api", base_url="http://localhost:1/v1", requests_per_minute=60, prompt="{query}?")
    for processes in (1, 4):
        monkeypatch.setattr(model, "_world_size", processes)
        engine = model._engine({})
        assert engine.options.requests_per_minute == 60 / processes
        assert engine.rules == model._api.rules
        engine.close()
