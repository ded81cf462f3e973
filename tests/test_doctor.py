"""``timelens doctor``: what is broken is called broken, with a remedy, and nothing else is."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tomllib
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement
from packaging.version import Version

from timelens_plugins.answers import grounding_prompt
from timelens_plugins.cli import main
from timelens_plugins.encodings import load_processor
from timelens_plugins.families.tiny import build_model
from timelens_plugins.inference.vllm.request import vllm_prompts
from timelens_plugins.inspection import checkpoint, environment, versions
from timelens_plugins.inspection.checkpoint import check_model, check_processor
from timelens_plugins.inspection.findings import Finding, render, worst
from timelens_plugins.inspection.made_clip import made_clip
from timelens_plugins.inspection.prompt_view import stand_in_processor
from timelens_plugins.inspection.sharing import check_sharing
from timelens_plugins.inspection.vllm_ids import check_vllm
from timelens_plugins.shared_prefix.plan import SharedPrefixPlan
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
        "vllm",
    ):
        assert part in texts
    families = {f"stand-in {name}" for name in ("qwen3_vl", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "glm46v", "glm4v")}
    assert families <= {f["area"] for f in findings}
    for area in families:
        own = " ".join(f["text"] for f in findings if f["area"] == area)
        for change in ("another video", "the order of the frames", "the times of the frames"):
            assert f"{change} changes the logits by" in own
        shared = "log-probs of two answers, prompt computed once, differ from the plain model's by"
        assert ("prompts of this family are not shared" if "glm" in area else shared) in own
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


def test_a_checkpoint_that_cannot_be_read_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{")
    assert main(["doctor", "--model", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.index("versions") < out.index("\ncheckpoint\n  broken")
    assert str(tmp_path) in out.replace("\n" + " " * 11, "")


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


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_a_shared_prompt_that_computes_otherwise_is_broken(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = stand_in_processor(family)
    model = build_model(family, processor.tokenizer)  # type: ignore[arg-type]
    inputs = checkpoint._changed(processor, model)
    [sound] = check_sharing(processor.tokenizer, model, inputs, "model")
    assert sound.status == "ok"
    assert re.findall(r"\((\w+)\)", sound.text) == ["same", "other", "order", "times"]
    original = SharedPrefixPlan.__init__

    def separate(self: SharedPrefixPlan, trees: Any) -> None:
        """Every node begins anew, as if no branch had a prompt."""
        original(self, [[replace(node, parent=-1) for node in tree] for tree in trees])

    with monkeypatch.context() as patch:
        patch.setattr(SharedPrefixPlan, "__init__", separate)
        [found] = check_sharing(processor.tokenizer, model, inputs, "model")
    assert found.status == "broken"
    assert "set share_prefix=False" in found.remedy
    model.set_attn_implementation("eager")
    [unable] = check_sharing(processor.tokenizer, model, inputs, "model")
    assert (unable.status, "eager attention" in unable.text) == ("warning", True)


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    given = {"transformers": "4.57.1", "filelock": "4.3.1", "datasets": "9.0", "vllm": "0.25.0", "torch": None}

    def version(name: str) -> str:
        found = given[name] if name in given else real(name)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = list(versions.check_versions())
    broken = by_status(findings, "broken")
    for said in (
        "transformers 4.57.1: refused; tested with 5.16 to",
        "filelock 4.3.1: refused",
        "torch is not installed",
    ):
        assert said in broken
    assert broken.count("|") == 2
    assert "datasets 9.0 is newer than what was tested, 4.7 to" in by_status(findings, "warning")
    assert "vllm 0.25.0 (the tests do not cover it)" in by_status(findings, "ok")
    assert all("constraints.txt" in f.remedy for f in findings if f.remedy)


def test_the_tested_releases_are_those_of_the_project() -> None:
    """Bounds as in pyproject.toml; the newest at least what constraints.txt pins."""
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)$", (root / "constraints.txt").read_text(), re.MULTILINE))
    declared = {
        r.name.replace("_", "-"): r.specifier for p in ("video", "eval", "train") for r in map(Requirement, project[p])
    }
    for name, tested in versions.PACKAGES.items():
        assert (
            tested.part == "gpu"
            or pinned[name].startswith((tested.newest, f"{tested.newest}."))
            or (Version(pinned[name]) < Version(tested.newest))
        ), name
        if name not in declared:
            assert tested.optional
            continue
        bounds = {s.operator: s.version for s in declared[name]}
        assert Version(bounds.get(">=") or bounds["=="]) == Version(tested.lowest)
        assert bounds.get("<", tested.below) == tested.below
    assert set(declared) - set(versions.PACKAGES) <= {"timelens-plugins"}


def test_packages_that_cannot_be_imported_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One raises, one ends the interpreter; those after them are still tried."""
    for name, code in (("peft", "raise RuntimeError('half installed')"), ("decord", "import os; os.abort()")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kept = {name: versions.PACKAGES[name] for name in ("peft", "decord", "av")}
    monkeypatch.setattr(versions, "PACKAGES", kept)
    found = list(versions.check_imports())
    assert [f.status for f in found] == ["broken", "broken"]
    assert "cannot be imported: RuntimeError: half installed" in found[0].text
    assert found[1].text.startswith("decord 0.6")
    assert "the interpreter ended with -6" in found[1].text
    monkeypatch.setattr(versions, "PACKAGES", {"av": kept["av"]})
    assert [f.status for f in versions.check_imports()] == ["ok"]


def test_a_section_that_raises_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> Any:
        raise OSError("libav is gone\nand more")

    monkeypatch.setattr(environment, "check_video", broken)
    assert main(["doctor", "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)
    assert [f["text"] for f in findings if f["status"] == "broken"] == ["OSError: libav is gone"]
    assert {"versions", "devices", "lmms-eval", "stand-in qwen3_vl"} <= {f["area"] for f in findings}


def test_a_base_install_is_not_broken(tmp_path: Path) -> None:
    """numpy and this package, nothing else to import."""
    import numpy

    import timelens_plugins

    (tmp_path / "numpy").symlink_to(Path(numpy.__file__).parent)
    paths = [str(Path(timelens_plugins.__file__).parents[1]), str(tmp_path)]
    code = f"import sys; sys.path += {paths}; from timelens_plugins.cli import main; sys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "prompts and videos: not installed" in done.stdout


def test_entry_point_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worst(environment.check_lmms_eval()) == "ok"
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    assert "its entry point is not registered" in by_status(list(environment.check_lmms_eval()), "broken")
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
    findings = list(environment.check_video())
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
        assert "vLLM writes the family's own time markers" in by_status(list(check_vllm(processor, "path")), "warning")
        return
    [asked] = vllm_prompts(processor, made_clip(processor), [grounding_prompt("a red square appears")])
    request, expected = asked.request, asked.prompt.input_ids.tolist()
    pads = [processor.image_token_id, processor.video_token_id]
    data = request["multi_modal_data"]
    assert sum(i in pads for i in request["prompt_token_ids"]) == sum(map(len, data.values()))
    if encoding == "native":
        stock = processor.tokenizer.decode(request["prompt_token_ids"])
        # Qwen3-VL's markers go around every frame pair, which the placeholder alone stands for.
        assert ("<|vision_start|><|video_pad|><|vision_end|>" in stock) == (family == "qwen2_5_vl")
        assert request["mm_processor_kwargs"] == {"do_sample_frames": False, "do_resize": False}
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
    replies.append(expected)
    assert worst(check_vllm(processor, "path")) == "ok"
    replies.append([*expected[:2], *expected[3:]])
    assert "the first 2 agree" in by_status(list(check_vllm(processor, "path")), "broken")
    processor.image_processor.image_std = [0.3] * 3
    if encoding == "native":
        assert "normalises videos as the image processor" in by_status(list(check_vllm(processor, "path")), "broken")


def test_findings_are_wrapped_and_have_remedies() -> None:
    lines = list(render([Finding("a", "ok", "fine"), Finding("a", "broken", "word " * 60, "do this")]))
    assert lines[0] == "a"
    assert lines[-1].strip() == "→ do this"
    assert max(map(len, lines)) <= 100
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding("a", "warning", "bad")
