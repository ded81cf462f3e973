"""Evaluation and difficulty through the real vLLM: answers, journal, adapters, and what cannot be answered."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.encodings import load_processor
from timelens_plugins.inference.answering import Question
from timelens_plugins.inference.vllm.engine import VllmEngine
from timelens_plugins.inference.vllm.model import VllmError, VllmModel
from timelens_plugins.inference.vllm.settings import VllmSettings
from timelens_plugins.video import VideoError

FRAMES = {"total_tokens": 512, "min_tokens": 16}


@pytest.fixture(scope="module")
def adapter(vllm_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter with trained mergers beside it, as this package's trainers save them."""
    import torch
    from peft import LoraConfig, get_peft_model

    from timelens_plugins.families.load import load_model
    from timelens_plugins.training.parts import adapter_modules_to_save

    folder = tmp_path_factory.mktemp("adapter")
    model, processor = load_model(vllm_checkpoints["qwen2_5_vl"], **FRAMES)
    config = LoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj"],
        modules_to_save=adapter_modules_to_save(model),
        init_lora_weights=False,
    )
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    tuned.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_the_real_clips_through_their_original_benchmark(
    vllm_checkpoints: dict[str, Path], real_data: Path, tmp_path: Path
) -> None:
    """``lmms-eval`` with both engines: the same answers; a run that goes on keeps what is in the journal."""
    found = {}
    for name, engine in (("transformers", ""), ("vllm", "engine=vllm,enforce_eager=true,max_model_len=2048,")):
        output = tmp_path / name
        frames = f"total_tokens=512,min_tokens=16,journal={tmp_path / 'journal'}"
        arguments = f"{engine}pretrained={vllm_checkpoints['qwen3_vl']},{frames}"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "lmms_eval", "--model", "timelens", "--model_args", arguments),
                *("--tasks", "timelens_original_charades_sta", "--gen_kwargs", "max_new_tokens=12"),
                *("--log_samples", "--output_path", str(output)),
            ],
            env=os.environ
            | {"HF_DATASETS_OFFLINE": "1"}
            | {"TIMELENS_ORIGINAL_DIR": str(real_data), "TIMELENS_ALLOW_MISSING": "1", "VLLM_LOGGING_LEVEL": "INFO"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said[-9000:]
        [path] = output.rglob("*_samples_*.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {row["mIoU"]["video"] for row in rows} == {"3MSZA", "OHOFG"}
        found[name] = {row["doc_id"]: row["filtered_resps"] for row in rows}
    assert len(found["vllm"]) == 10
    assert found["vllm"] == found["transformers"]
    assert len({str(answer) for answer in found["vllm"].values()}) > 2
    for part in ("vLLM agrees with transformers in 2 prompts: ids equal", " (tolerance 0.002, float32)"):
        assert part in said
    assert "vLLM: 10 questions answered, 0 by earlier runs, 0 failed" in said
    assert "% of the prompt tokens found in the prefix cache" in said
    assert "10 answers were cut by the limit of tokens" in said


def test_a_run_goes_on_where_it_was_killed(
    adapter: Path,
    real_videos: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With an adapter, whose merged copy is compared with transformers' adapter; a bad video is skipped and named."""
    pytest.importorskip("lmms_eval")
    sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))
    from requests_of import requests_for

    from timelens_plugins.evaluation.model import TimeLens
    from timelens_plugins.evaluation.vllm_model import TimeLensVllm

    caplog.set_level(logging.INFO, "timelens_plugins")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    docs = [
        {"video": video, "text": GROUNDING_PROMPT.format(query=query), "query": query}
        for video in (*real_videos, str(broken))
        for query in ("person turn a light on", "a cat jumps off the table")
    ]
    options: dict[str, Any] = {"engine": "vllm", "enforce_eager": True, "max_model_len": 2048, "on_bad_video": "skip"}
    options |= {"journal": str(tmp_path / "journal"), "concurrency": 2}
    model = TimeLens(str(adapter), **options)
    assert isinstance(model, TimeLensVllm)
    first = [result.text for result in model.generate_until(requests_for(model, docs))]
    assert all(first[:4])
    assert first[4:] == ["", ""]
    assert f"not answered: every question about {broken}" in caplog.text
    assert len(model._vllm.parity) == 2, "the merged copy agrees with the adapter in transformers"
    assert "merged into a copy of" in caplog.text
    merged = model._vllm._merged
    assert merged is not None
    [journal] = (tmp_path / "journal").rglob("*.jsonl")
    lines = journal.read_bytes().split(b"\n\n")
    assert len(lines) == 5
    journal.write_bytes(b"\n\n".join(lines[:-1]) + b"\n\n" + lines[2][:40])  # killed while it wrote the next

    model._vllm.close()
    assert not Path(merged.name).exists()
    again = TimeLens(str(adapter), **options)
    assert isinstance(again, TimeLensVllm)
    assert [result.text for result in again.generate_until(requests_for(again, docs[:4]))] == first[:4]
    assert again._vllm._llm is None, "all answers were in the journal: vLLM is not started"
    assert "vLLM: 0 questions answered, 4 by earlier runs, 0 failed" in capsys.readouterr().out


def test_what_vllm_does_not_take(
    vllm_checkpoints: dict[str, Path], real_videos: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = vllm_checkpoints["qwen3_vl"]
    processor = load_processor(path, **FRAMES)
    settings = VllmSettings(enforce_eager=True, max_model_len=900, on_failed_request="skip")
    model = VllmModel(str(path), processor, settings)
    long = GROUNDING_PROMPT.format(query="person turn a light on " * 60)
    questions = [Question(real_videos[0], GROUNDING_PROMPT.format(query="a cat jumps")), Question(real_videos[0], long)]
    engine = VllmEngine(model, {"max_new_tokens": 4})
    answers = dict(engine.answer(questions))
    engine.close()
    assert answers[0].error is None
    assert "leaves no room for an answer in max_model_len=900" in str(answers[1].error)
    assert answers[1].texts == ("",)
    assert dict(engine.counts) | {"answered": 1, "failed": 1, "cut": 1} == dict(engine.counts)
    for part in ("not answered: ", "show less of the video (total_tokens, max_frames)", "1 answers were cut"):
        assert part in caplog.text
    strict = VllmEngine(model, {"max_new_tokens": 4})
    object.__setattr__(settings, "on_failed_request", "error")
    stream = strict.answer(questions)
    assert next(stream)[0] == 0, "what is under way is not lost"
    with pytest.raises(VllmError, match="max_model_len=900"):
        list(stream)
    with pytest.raises(VideoError):
        list(VllmEngine(model, {}).answer([Question("no/such.mp4", "text")]))
    sampled = VllmEngine(model, {"max_new_tokens": 6, "do_sample": True, "temperature": 1.0}, 3, seed=1, log_probs=True)
    [(_, one)] = sampled.answer(questions[:1])
    [(_, other)] = sampled.answer(questions[:1])
    assert one.texts == other.texts, "samples depend on the seed and the question"
    assert len(set(one.texts)) == len(one.texts) == 3
    assert one.log_probs is not None
    assert [len(row) for row in one.log_probs] == list(one.output_tokens)
    model.close()
    with pytest.raises(VllmError, match="none of the first 1 prompts fits in max_model_len=900"):
        dict(VllmEngine(model, {}).answer(questions[1:]))


def test_a_checkpoint_that_vllm_cannot_load_is_named(vllm_checkpoints: dict[str, Path]) -> None:
    path = vllm_checkpoints["qwen3_vl"]
    settings = VllmSettings(enforce_eager=True, parity=0, max_model_len=10**7)
    model = VllmModel(str(path), load_processor(path), settings)
    with pytest.raises(VllmError, match=r"(?s)cannot load it: .*max_model_len.*Take engine=transformers"):
        model.start(())


def test_difficulty_by_the_recipe(
    vllm_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that a training run of the same checkpoint accepts; a second start asks nothing."""
    import recipe_runs

    from timelens_plugins.families.load import load_model
    from timelens_plugins.recipe import settings_of_run

    checkpoint, output = str(vllm_checkpoints["qwen3_vl"]), tmp_path / "difficulty.jsonl"
    changes: dict[str, Any] = {
        "model_name_or_path": checkpoint,
        "synthetic_folder": str(tmp_path / "synthetic"),
        "output": str(output),
        "engine": "vllm",
        "engine_args": "enforce_eager=true,max_model_len=1024",
        "max_rows": None,
        "max_new_tokens": 6,
    }
    assert recipe_runs.run("difficulty", **changes) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows
    model, processor = load_model(checkpoint, fps=1.0, max_frames=448, min_tokens=4, total_tokens=64)
    wanted = settings_of_run(model, processor)
    for row in rows:
        assert {name: row["settings"][name] for name in wanted} == wanted
    assert {row["settings"]["engine"] for row in rows} == {"vllm"}
    monkeypatch.setattr(VllmModel, "start", None)
    assert recipe_runs.run("difficulty", **changes) == 0
    assert [json.loads(line) for line in output.read_text().splitlines()] == rows
