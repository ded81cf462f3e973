"""``timelens doctor``: what is broken is called broken, with a remedy, and nothing else is."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from timelens_plugins.cli import main
from timelens_plugins.inspection import environment
from timelens_plugins.inspection.checkpoint import check_model, check_processor
from timelens_plugins.inspection.findings import Finding, render, worst
from timelens_plugins.inspection.made_clip import made_clip
from timelens_plugins.inspection.prompt_view import stand_in_processor
from timelens_plugins.inspection.vllm_ids import check_vllm, vllm_request
from timelens_plugins.synthetic.tiny import build_model
from timelens_plugins.timestamps import load_processor
from timelens_plugins.video import BackendReport


def by_status(findings: list[Finding], status: str) -> str:
    return " | ".join(f.text for f in findings if f.status == status)


def test_this_machine_works(capsys: pytest.CaptureFixture[str]) -> None:
    """The tests run, so nothing may be called broken; what differs upstream is said."""
    status = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert [f for f in findings if f["status"] == "broken"] == []
    assert status == 0
    texts = " ".join(f["text"] for f in findings)
    for part in (
        f"torch {torch.__version__.partition('+')[0]}",
        "transformers",
        "pyav",
        "h264",
        "av1",
        "flash-attn",
        "vLLM",
    ):
        assert part in texts
    assert {"stand-in qwen3_vl", "stand-in qwen2_5_vl"} <= {f["area"] for f in findings}
    assert all(f["remedy"] for f in findings if f["status"] == "warning")


def test_a_sound_checkpoint(family: str, tiny_checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", str(tiny_checkpoints[family])]) == 0
    out = capsys.readouterr().out
    assert "broken" not in out
    for change in ("another video", "the order of the frames", "the times of the frames"):
        assert f"{change} changes the logits by" in out
    assert "native pixels equal" in out
    assert ("though the video" in out) == (family == "qwen2_5_vl") or "after all of it" in out


def test_a_checkpoint_with_foreign_token_ids_is_broken(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_checkpoints["qwen3_vl"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["video_token_id"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    assert main(["doctor", "--model", str(folder), "--no-forward"]) == 1
    out = capsys.readouterr().out
    assert "the config's video_token_id is" in out
    assert "→ use the tokenizer files that belong to this checkpoint" in out


def test_faults_of_the_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-forward"]) == 2
    assert "pass --model as well" in capsys.readouterr().err
    assert main(["doctor", "--model", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


class Blind(torch.nn.Module):
    """A model whose forward loses the video, as some trainers do."""

    def __init__(self, model: Any, lost: str) -> None:
        super().__init__()
        self.inner, self.model, self.lost = model, model.model, lost
        self.dtype, self.device = model.dtype, model.device

    def forward(self, **inputs: Any) -> Any:
        if self.lost == "pixels":
            inputs["pixel_values_videos"] = torch.zeros_like(inputs["pixel_values_videos"])
        else:
            inputs["second_per_grid_ts"] = torch.ones_like(inputs["second_per_grid_ts"])
        return self.inner(**inputs)


def test_a_model_that_does_not_see_the_video_is_broken(family: str) -> None:
    processor = stand_in_processor(family)
    model = build_model(family, processor.tokenizer)  # type: ignore[arg-type]
    blind = list(check_model(processor, Blind(model, "pixels")))
    assert "another video changes the logits by 0" in by_status(blind, "broken")
    assert "the order of the frames changes the logits by 0" in by_status(blind, "broken")
    assert worst(check_model(processor, model)) in ("ok", "warning")


def test_lost_times_are_broken() -> None:
    """Qwen2.5-VL without ``second_per_grid_ts``: a silent error of several trainers."""
    processor = stand_in_processor("qwen2_5_vl")
    model = build_model("qwen2_5_vl", processor.tokenizer)
    findings = list(check_model(processor, Blind(model, "times")))
    assert "the times of the frames changes the logits by 0" in by_status(findings, "broken")
    assert "another video" in by_status(findings, "ok")
    processor.configure(encoding="interleaved_index")
    assert "tells frame numbers, not times" in by_status(list(check_model(processor, model)), "note")


def test_a_processor_that_writes_other_ids_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = stand_in_processor("qwen3_vl")
    original = type(processor)._with_markers
    monkeypatch.setattr(
        type(processor), "_with_markers", lambda self, pads: original(self, pads).replace("seconds", "s")
    )
    findings = list(check_processor(processor, "checkpoint"))
    assert "which writes" in by_status(findings, "broken")
    assert "seconds><|vision_start|><|video_pad|>×16" in by_status(findings, "broken")


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name == "trl":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"transformers": "4.57.1", "vllm": "0.25.0"}.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = list(environment._versions())
    assert "transformers 4.57.1 (needs <6,>=5.20)" in by_status(findings, "broken")
    assert all("pip install 'timelens-plugins[" in f.remedy for f in findings if f.status == "broken")


def test_entry_point_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worst(environment._lmms_eval()) == "ok"
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    assert "its entry point is not registered" in by_status(list(environment._lmms_eval()), "broken")
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.8.1" if name == "flash-attn" else real(name))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert "flash-attn 2.8.1 cannot be imported" in by_status(list(environment._kernels(True)), "broken")
    monkeypatch.setattr(importlib.metadata, "version", real)
    assert "loops over the frames" in by_status(list(environment._kernels(True)), "warning")


def test_video_backends(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [
        BackendReport("pyav", "15.1", None, {"h264": None, "av1": "no decoder"}),
        BackendReport("torchcodec", "0.17", "torchcodec does not work here: no libav; remedy: apt-get install ffmpeg", {
            "h264": "no libav", "av1": "no libav",
        }),
        BackendReport("decord", None, "decord does not work here", {"h264": "missing", "av1": "missing"}),
    ]  # fmt: skip
    monkeypatch.setattr("timelens_plugins.video.working_backends", lambda: reports)
    monkeypatch.delenv("FORCE_QWENVL_VIDEO_READER", raising=False)
    findings = list(environment._video())
    assert "no backend reads av1 (pyav: no decoder; torchcodec: no libav; decord: missing)" in by_status(
        findings, "broken"
    )
    assert "h264" not in by_status(findings, "broken")
    assert "torchcodec does not work here: no libav" in by_status(findings, "warning")
    assert "qwen-vl-utils would choose torchcodec" in by_status(findings, "warning")
    assert "apt-get install ffmpeg" in [f.remedy for f in findings]
    assert "decord is not installed" in by_status(findings, "note")


@pytest.mark.parametrize("encoding", ["native", "interleaved_timestamp", "text_prefix"])
def test_vllm_ids(
    family: str, encoding: str, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM gets unexpanded ids and expands them itself; here a stand-in does, right and wrong."""
    processor = load_processor(tiny_checkpoints[family], encoding)
    if encoding == "text_prefix" and family == "qwen3_vl":
        assert "vLLM writes Qwen3-VL's own time markers" in by_status(list(check_vllm(processor, "path")), "warning")
        return
    request, expected = vllm_request(processor, made_clip(processor), "query")
    pads = [processor.image_token_id, processor.video_token_id]
    data = request["multi_modal_data"]
    assert sum(i in pads for i in request["prompt_token_ids"]) == sum(map(len, data.values()))
    if encoding == "native":
        stock = processor.tokenizer.decode(request["prompt_token_ids"])
        assert "<|vision_start|><|video_pad|><|vision_end|>" in stock
        assert request["mm_processor_kwargs"] == {"do_sample_frames": False}
        assert data["video"][0][1]["fps"] == 30.0
    else:
        assert len(expected) > len(request["prompt_token_ids"])

    replies: list[list[int]] = []

    class LLM:
        def __init__(self, **options: Any) -> None:
            assert options["model"] == "path"

        def generate(self, request: dict[str, Any], params: Any) -> list[Any]:
            return [types.SimpleNamespace(prompt_token_ids=replies.pop())]

    fake = types.SimpleNamespace(LLM=LLM, SamplingParams=lambda **options: options)
    monkeypatch.setitem(sys.modules, "vllm", fake)  # type: ignore[arg-type]
    _, expected = vllm_request(processor, made_clip(processor), "a red square appears")
    replies.append(expected)
    assert worst(check_vllm(processor, "path")) == "ok"
    replies.append([*expected[:2], *expected[3:]])
    assert "the first 2 agree" in by_status(list(check_vllm(processor, "path")), "broken")


def test_findings_are_wrapped_and_have_remedies() -> None:
    lines = list(render([Finding("a", "ok", "fine"), Finding("a", "broken", "word " * 60, "do this")]))
    assert lines[0] == "a"
    assert lines[-1].strip() == "→ do this"
    assert max(map(len, lines)) <= 100
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding("a", "warning", "bad")
