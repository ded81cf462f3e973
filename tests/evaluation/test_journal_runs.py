"""``journal=``: several evaluations at once, kills, another number of processes; and nothing stale comes back."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from requests_of import requests_for
from safetensors.torch import load_file, save_file

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.families.tiny import save_checkpoint

OPTIONS: dict[str, Any] = {"device": "cpu", "total_tokens": 64, "fps": 0.5}


@pytest.fixture
def bench(benchmark_folder: Path, tmp_path: Path) -> list[Path]:
    """Two videos that a test may change."""
    folder = tmp_path / "videos"
    shutil.copytree(benchmark_folder / "videos" / "charades", folder)
    return sorted(folder.iterdir())


def questions_about(videos: list[Path], queries: int = 2) -> list[dict[str, Any]]:
    texts = [f"a red circle appears {n} times" for n in range(queries)]
    return [{"video": str(v), "text": GROUNDING_PROMPT.format(query=q), "query": q} for q in texts for v in videos]


class Run:
    """Evaluations of one checkpoint on one journal."""

    def __init__(self, checkpoint: Path, journal: Path, docs: list[dict[str, Any]]) -> None:
        self.checkpoint, self.journal, self.docs = checkpoint, journal, docs

    def __call__(self, generation: dict[str, Any] | None = None, **options: Any) -> tuple[list[str], int]:
        """Answers, and how many questions the model was asked."""
        model = TimeLens(str(self.checkpoint), journal=str(self.journal), **(OPTIONS | options))
        asked: list[int] = []
        answerer = model._engine

        def counting(generation: Any) -> Any:
            made = answerer(generation)
            answer = made.answer
            made.answer = lambda wanted, begin: (asked.append(len(wanted)), answer(wanted, begin))[1]
            return made

        model._engine = counting  # type: ignore[method-assign]
        texts = [result.text for result in model.generate_until(requests_for(model, self.docs, **(generation or {})))]
        return texts, sum(asked)


@pytest.fixture
def run(tmp_path: Path, bench: list[Path]) -> Run:
    checkpoint = save_checkpoint(tmp_path / "checkpoint", "qwen2_5_vl", initializer_range=0.4)
    processor = TimeLens(str(checkpoint), encoding="interleaved_timestamp", **OPTIONS).processor
    processor.save_pretrained(checkpoint)
    return Run(checkpoint, tmp_path / "journal", questions_about(bench))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def chat_template(run: Run) -> None:
    path = run.checkpoint / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "answer"))


def timestamp_format(run: Run) -> None:
    edit_json(run.checkpoint / "processor_config.json", timestamp_format="at {t:.1f}: ")


def tokenizer(run: Run) -> None:
    path = run.checkpoint / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][:-5]
    path.write_text(json.dumps(content))


def one_weight(run: Run) -> None:
    path = run.checkpoint / "model.safetensors"
    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(-1)[-1] += 1e-4
    save_file(weights, path, metadata={"format": "pt"})


def penalty(run: Run) -> None:
    edit_json(run.checkpoint / "generation_config.json", repetition_penalty=1.3)


def config(run: Run) -> None:
    content = json.loads((run.checkpoint / "config.json").read_text())
    content["text_config"]["rms_norm_eps"] = 1e-3
    (run.checkpoint / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (chat_template, r"chat_template: '\w+' then, '\w+' now"),
        (timestamp_format, r"timestamp_format: '\{t:.1f\}s: ' then, 'at \{t:.1f\}: ' now"),
        (tokenizer, r"tokenizer: '\w+' then, '\w+' now"),
        (one_weight, r"weights: '\w+' then, '\w+' now"),
        (penalty, r"generation_config.repetition_penalty: None then, 1.3 now"),
        (config, r"config: '\w+' then, '\w+' now"),
    ],
)
def test_a_changed_file_of_the_checkpoint_starts_afresh_and_says_why(
    run: Run, tmp_path: Path, change: Callable[[Run], None], says: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, asked = run()
    assert asked == 4
    shutil.copytree(run.checkpoint, tmp_path / "old")
    caplog.clear()
    change(run)
    changed, asked = run()
    assert asked == 4
    assert re.search(f"starts afresh: {says}", caplog.text)
    assert run() == (changed, 0)
    caplog.clear()
    run.checkpoint = tmp_path / "old"  # elsewhere, and as it was
    assert run() == (first, 0)
    assert "afresh" not in caplog.text


def test_a_changed_adapter_or_base_starts_afresh(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    adapter = tmp_path / "adapter"
    model = AutoModelForImageTextToText.from_pretrained(run.checkpoint)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    tuned.save_pretrained(adapter)
    TimeLens(str(run.checkpoint), **OPTIONS).processor.save_pretrained(adapter)
    base, run.checkpoint = run.checkpoint, adapter
    _, asked = run()
    assert (asked, run()[1]) == (4, 0)
    edit_json(adapter / "adapter_config.json", lora_alpha=64)
    assert run()[1] == 4
    assert "adapters: " in caplog.text
    caplog.clear()
    one_weight(Run(base, run.journal, []))
    assert run()[1] == 4
    assert "starts afresh: weights: " in caplog.text


def test_a_replaced_video_starts_afresh_and_says_why(
    run: Run, bench: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = max(path.stat().st_size for path in bench) + 8
    for path in bench:  # of one size, by a box that players pass over
        room = size - path.stat().st_size
        path.write_bytes(path.read_bytes() + room.to_bytes(4, "big") + b"free" + bytes(room - 8))
    first, _ = run()
    old = shutil.copy2(bench[0], tmp_path / "old.mp4")
    stat = bench[0].stat()
    shutil.copyfile(bench[1], bench[0])
    os.utime(bench[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second, asked = run()
    assert asked == 2
    assert second[0::2] == second[1::2] == first[1::2], "the same video twice"
    assert f"2 finished items start afresh, as the files of their videos have another content now ({bench[0]}: " in (
        caplog.text
    )
    os.replace(old, bench[0])
    assert run() == (first, 0)


SAMPLED = {"do_sample": True, "temperature": 3.0}


def test_sampled_answers_belong_to_their_seed_and_greedy_ones_do_not(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """``--seed`` is what lmms-eval gives to ``torch.manual_seed`` before it loads the model."""
    torch.manual_seed(1)
    greedy, asked = run()
    assert asked == 4
    first, asked = run(SAMPLED)
    assert asked == 4
    torch.manual_seed(2)
    caplog.clear()
    assert run() == (greedy, 0)
    second, asked = run(SAMPLED)
    assert asked == 4
    assert "4 sampled answers start afresh: seed: 1 then, 2 now" in caplog.text
    assert first != second
    caplog.clear()
    assert run(SAMPLED) == (second, 0)
    for settings in ({"temperature": 0.9}, {"top_p": 0.5}, {"top_k": 3}, {"max_new_tokens": 9}):
        assert run(SAMPLED | settings)[1] == 4, settings
    torch.manual_seed(1)
    assert run(SAMPLED) == (first, 0)
    assert "seed" not in caplog.text


@pytest.mark.parametrize("also", [{}, {"repetition_penalty": 1.3}])
def test_a_sampled_answer_depends_on_its_seed_and_question_alone(run: Run, also: dict[str, Any]) -> None:
    """So a resumed run has the answers of an undisturbed one, in any grouping and on any number of processes."""
    run.docs = questions_about([Path(doc["video"]) for doc in run.docs[:2]], queries=3)
    generation = SAMPLED | also
    torch.manual_seed(7)
    whole, asked = run(generation)
    assert asked == 6
    assert len(set(whole)) >= 5
    for journal, options in (("rows", {"batch_size": 3}), ("plain", {"share_prefix": False})):
        run.journal = run.journal.with_name(journal)
        torch.manual_seed(7)
        assert run(generation, **options) == (whole, 6)
    run.journal = run.journal.with_name("resumed")
    torch.manual_seed(7)
    torch.rand(3)  # what was drawn before does not count
    model = TimeLens(str(run.checkpoint), journal=str(run.journal), **OPTIONS)
    model.generate_until(requests_for(model, run.docs, **generation)[1::2])  # as another process, or before a kill
    assert run(generation, batch_size=2) == (whole, 3)
    twice = [r.text for r in model.generate_until(2 * requests_for(model, run.docs[:1], **generation))]
    assert twice[0] == whole[0] != twice[1], "a repetition is another answer"


def test_settings_count_and_what_does_not_change_answers_does_not(run: Run) -> None:
    first, _ = run()
    assert run(batch_size=4, share_prefix=False, clip_workers=1) == (first, 0)
    for options in ({"total_tokens": 96}, {"system_prompt": "x"}, {"dtype": "bfloat16"}, {"video_backend": "pyav"}):
        assert run(**options)[1] == 4, options
    assert run(prompt="When: {query}?")[1] == 4
    assert run() == (first, 0)
    spans = [doc | {"spans": [[0, 1]]} for doc in run.docs]  # answers do not depend on the truth
    run.docs = [*spans, spans[0] | {"text": "Another question?"}]
    texts, asked = run()
    assert (texts[:4], asked) == (first, 1)


def test_two_evaluations_at_once_kills_and_another_number_of_processes(run: Run, tmp_path: Path) -> None:
    docs = questions_about([Path(doc["video"]) for doc in run.docs[:2]], queries=12)
    (tmp_path / "questions.json").write_text(json.dumps(docs))
    whole = TimeLens(str(run.checkpoint), **OPTIONS)
    expected = [result.text for result in whole.generate_until(requests_for(whole, docs))]
    assert len(set(expected)) > 1
    done = subprocess.run(
        [
            *(sys.executable, str(Path(__file__).with_name("journal_run.py"))),
            *(str(run.checkpoint), str(run.journal), str(tmp_path / "questions.json"), "1"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *said, answers = done.stdout.splitlines()
    assert json.loads(answers) == expected, done.stderr[-3000:]
    assert sum(int(line.split()[1]) for line in said if line.startswith("killed")) >= 3, said
    assert "status [0, 0]" in said
    run.docs = docs
    assert run() == (expected, 0)
    found = json.loads(next(run.journal.glob("*/settings.json")).read_text())
    assert found["note"]["pretrained"] == str(run.checkpoint)


def test_the_penalty_of_the_checkpoint_applies_as_in_the_released_evaluation(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """``generate(do_sample=False, temperature=None, top_p=None, top_k=None)`` leaves it as the checkpoint says."""
    run.docs += questions_about([Path(run.docs[0]["video"])], 1)
    run.docs[-1]["text"] += " Do not say when anything else happens, and be brief."
    plain, _ = run(encoding="native")
    penalty(run)
    edit_json(run.checkpoint / "generation_config.json", do_sample=True, temperature=1e-6, top_k=1)
    with caplog.at_level(logging.INFO):
        punished, _ = run(encoding="native")
    assert punished != plain
    assert "repetition_penalty=1.3 in every answer" in caplog.text
    model = TimeLens(str(run.checkpoint), encoding="native", **OPTIONS)
    for doc, answer in zip(run.docs, punished, strict=True):
        parts = [{"type": "video", "video": doc["video"]}, {"type": "text", "text": doc["text"]}]
        inputs = model.processor.apply_chat_template(
            [{"role": "user", "content": parts}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        output = model.model.generate(  # type: ignore[operator]
            **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=8
        )
        assert model.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True) == answer
    off = [result.text for result in model.generate_until(requests_for(model, run.docs, repetition_penalty=1.0))]
    assert off == plain
