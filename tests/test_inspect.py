"""``timelens inspect``: the prompt as the model sees it, with figures that add up."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from timelens_plugins.cli import main
from timelens_plugins.encodings import load_processor
from timelens_plugins.inspection.prompt_view import shorten_pads

QUERY = ["--query", "a rocket part."]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    return capsys.readouterr().out


def test_native_prompt_without_a_checkpoint(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = str(real_data / "media" / "nasa_13013.mp4")
    sheet = tmp_path / "sheet.png"
    out = run(capsys, video, *QUERY, "--max-frames", "8", "--total-tokens", "512", "--contact-sheet", str(sheet))
    assert "nasa_13013.mp4: 13.01 s, 390 frames at 29.970 fps, read by" in out
    assert "encoding  native, TimeLensQwen3VLProcessor, times by index" in out
    assert "text tokens are counted by a small stand-in tokenizer" in out
    blocks = re.findall(r"<([\d.]+) seconds><\|vision_start\|><\|video_pad\|>×(\d+)<\|vision_end\|>", out)
    rows = re.findall(r"^ +\d+ +(\d+), (\d+) +([\d.]+), ([\d.]+) +(\d+)$", out, re.MULTILINE)
    assert len(blocks) == len(rows) == 4
    for (time, pads), (_, _, first, second, tokens) in zip(blocks, rows, strict=True):
        assert float(time) == pytest.approx((float(first) + float(second)) / 2, abs=0.06)
        assert pads == tokens
    total, vision, text = map(int, re.search(r"tokens +(\d+): (\d+) vision, (\d+) text", out).groups())  # type: ignore[union-attr]
    assert vision == sum(int(pads) for _, pads in blocks) <= 512
    assert total == vision + text
    assert "sentence 'a rocket part', determining" in out
    with Image.open(sheet) as picture:
        assert picture.width > 600
        assert len(picture.getcolors(2**20) or []) > 1000, "frames, not an empty sheet"


def test_checkpoint_encoding_and_window(
    family: str, tiny_checkpoints: dict[str, Path], real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_processor(tiny_checkpoints[family], "interleaved_timestamp", fps=1, total_tokens=256).save_pretrained(tmp_path)
    video = str(real_data / "media" / "nasa_13013.mp4")
    out = run(capsys, video, *QUERY, "--processor", str(tmp_path), "--video-start", "4", "--video-end", "9")
    assert "a window from 4.00 s of the file; times are counted from there" in out
    assert "stand-in" not in out
    assert "0.0s: <|vision_start|><|image_pad|>×" in out
    assert re.search(r"0\.\d\d, \(\d\.\d\d\)", out), "second frames of pairs are marked as not shown"
    assert "The numbers before each video frame" in out


def test_long_tables_are_cut_and_say_so(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(real_data / "media" / "nasa_13013.mp4")
    small = ["--fps", "6", "--min-tokens", "4", "--total-tokens", "200", "--family", "qwen2_5_vl"]
    out = run(capsys, video, *QUERY, *small)
    hidden = int(re.search(r"(\d+) more pairs, shown with --all", out).group(1))  # type: ignore[union-attr]
    every = run(capsys, video, *QUERY, *small, "--all")
    assert "more pairs" not in every
    assert len(every.splitlines()) == len(out.splitlines()) + hidden - 1
    assert "rotary positions: 0.33" in out


def test_faults_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert main(["inspect", str(tmp_path / "empty.mp4"), *QUERY]) == 2
    assert "empty.mp4" in capsys.readouterr().err
    assert main(["inspect", "x.mp4", *QUERY, "--encoding", "morse"]) == 2
    assert "unknown encoding 'morse'; known: interleaved_timestamp" in capsys.readouterr().err
    assert main(["inspect", "x.mp4", *QUERY, "--timestamp-format", "at {t:.0f}: "]) == 2
    assert "timestamp_format: without effect with encoding 'native'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["inspect", "x.mp4", *QUERY, "--processor", "p", "--family", "qwen3_vl"])


def test_shorten_pads() -> None:
    qwen: Any = SimpleNamespace(image_token="<|image_pad|>", video_token="<|video_pad|>")
    assert shorten_pads(qwen, "a<|video_pad|><|video_pad|>b<|image_pad|><|video_pad|>") == (
        "a<|video_pad|>×2b<|image_pad|>×1<|video_pad|>×1"
    )
