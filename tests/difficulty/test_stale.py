"""Difficulty started again after something changed: what it bears on is estimated afresh, with the reason."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import run
from safetensors.torch import load_file, save_file

from timelens_plugins.difficulty import estimate as estimate_module
from timelens_plugins.encodings import load_processor
from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.moments import load_moments
from timelens_plugins.synthetic.benchmark import write_training_set


class Estimation:
    """The recipe on one checkpoint and one set of videos, again and again."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.checkpoint = folder, folder / "checkpoint"
        self.options: dict[str, Any] = {}
        save_checkpoint(self.checkpoint, "qwen2_5_vl", initializer_range=0.4)
        load_processor(self.checkpoint, "interleaved_timestamp").save_pretrained(self.checkpoint)
        self.annotations = write_training_set(folder / "train", 1, size=64, fps=4.0, progress=False)
        self.videos = sorted({Path(m.video) for m in load_moments(self.annotations, video_root=self.root)})
        self.asked: list[str] = []
        answered = estimate_module._answered

        def counting(answerer: Any, clips: Any, seed: int) -> Any:
            self.asked += [Path(clip.video).name for clip in clips]
            return answered(answerer, clips, seed)

        monkeypatch.setattr(estimate_module, "_answered", counting)

    @property
    def root(self) -> Path:
        return self.annotations.parent / "videos"

    def __call__(self) -> tuple[list[Any], list[str]]:
        """Answers of all moments, and the videos that the model was asked about."""
        self.asked.clear()
        assert not run(
            "difficulty",
            model_name_or_path=str(self.checkpoint),
            annotations=str(self.annotations),
            output=str(self.folder / "d.jsonl"),
            samples=2,
            max_new_tokens=6,
            **self.options,
        )
        rows = [json.loads(line) for line in (self.folder / "d.jsonl").read_text().splitlines()]
        return [row["answers"] for row in rows], list(self.asked)


@pytest.fixture
def estimation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estimation:
    return Estimation(tmp_path, monkeypatch)


def chat_template(estimation: Estimation) -> None:
    path = estimation.checkpoint / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "answer"))


def timestamp_format(estimation: Estimation) -> None:
    path = estimation.checkpoint / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"timestamp_format": "at {t:.1f}: "}))


def one_weight(estimation: Estimation) -> None:
    path = estimation.checkpoint / "model.safetensors"
    weights = load_file(path)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name].view(-1)[-1] += 1e-4
    save_file(weights, path, metadata={"format": "pt"})


def test_what_another_backend_read_starts_afresh(estimation: Estimation, caplog: pytest.LogCaptureFixture) -> None:
    """As in evaluation: decord gives other frames than asked for in some files."""
    first, asked = estimation()
    assert len(asked) == 3
    estimation.options = {"video_backend": "pyav"}
    _, asked = estimation()
    assert len(asked) == 3
    assert "starts afresh: video_backend: 'auto' then, 'pyav' now" in caplog.text
    estimation.options = {}
    assert estimation() == (first, [])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (chat_template, r"chat_template: '\w+' then, '\w+' now"),
        (timestamp_format, r"timestamp_format: '\{t:.1f\}s: ' then, 'at \{t:.1f\}: ' now"),
        (one_weight, r"weights: '\w+' then, '\w+' now"),
    ],
)
def test_a_changed_checkpoint_starts_afresh_and_says_why(
    estimation: Estimation,
    tmp_path: Path,
    change: Callable[[Estimation], None],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, asked = estimation()
    assert len(asked) == len(estimation.videos) == 3
    old = shutil.copytree(estimation.checkpoint, tmp_path / "old")
    change(estimation)
    second, asked = estimation()
    assert len(asked) == 3
    assert re.search(f"starts afresh: .*{says}", caplog.text)
    assert estimation() == (second, [])
    shutil.rmtree(estimation.checkpoint)
    shutil.copytree(old, estimation.checkpoint)
    assert estimation() == (first, [])


def test_a_replaced_video_starts_afresh_and_says_why(
    estimation: Estimation, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = estimation()
    video, other = estimation.videos[:2]
    old = shutil.copy2(video, tmp_path / "old.mp4")
    stat = video.stat()
    shutil.copyfile(other, video)
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second, asked = estimation()
    assert asked == [video.name]
    assert second != first
    assert f"({video}: " in caplog.text
    os.replace(old, video)
    assert estimation() == (first, [])


def test_what_is_asked_counts(estimation: Estimation) -> None:
    first, _ = estimation()
    original = estimation.annotations.read_text()
    rows = [json.loads(line) for line in original.splitlines()]
    rows[1]["events"][0]["query"] = "something else happens"
    estimation.annotations.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert estimation()[1] == [Path(rows[1]["video_path"]).name]
    estimation.annotations.write_text(original)
    assert estimation() == (first, [])
