"""Difficulty rows from a model: one file whatever is killed and however the work is shared, scored as elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.cli import main
from timelens_plugins.difficulty import load_estimates
from timelens_plugins.difficulty.estimate import Answering, difficulty_settings, estimate_difficulty, fingerprint
from timelens_plugins.difficulty.shards import Shard, clips_of
from timelens_plugins.inference import JournalError
from timelens_plugins.inference.engine import Answer, Question, VideoAnswerer
from timelens_plugins.moments import Moment, load_moments, moments_from_rows
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.synthetic.tiny import build_model
from timelens_plugins.video import VideoError


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("train"), 3, size=64, fps=4.0, progress=False)


@pytest.fixture(scope="module")
def moments(training_set: Path) -> list[Moment]:
    return list(load_moments(training_set, video_root=training_set.parent / "videos"))


@pytest.fixture(scope="module")
def answerer(tiny_checkpoints: dict[str, Path]) -> VideoAnswerer:
    from transformers import AutoModelForImageTextToText

    from timelens_plugins.timestamps import load_processor

    checkpoint = tiny_checkpoints["qwen3_vl"]
    processor = load_processor(checkpoint, fps=1.0, min_tokens=4, total_tokens=64)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype="float32").eval()
    answering = Answering(samples=2, max_new_tokens=6)
    return VideoAnswerer(model, processor, answering.generation_config(model), samples=2, on_bad_video="skip")


@pytest.fixture(scope="module")
def settings(answerer: VideoAnswerer) -> dict[str, Any]:
    return difficulty_settings(answerer.model, answerer.processor, "tiny", Answering(samples=2, max_new_tokens=6))


@pytest.fixture(scope="module")
def whole(
    answerer: VideoAnswerer,
    settings: dict[str, Any],
    moments: list[Moment],
    training_set: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The rows of an undisturbed run."""
    output = tmp_path_factory.mktemp("whole") / "difficulty.jsonl"
    root = str(training_set.parent / "videos")
    outcome = estimate_difficulty(answerer, moments, output, settings, video_root=root, progress=False)
    assert outcome is not None
    assert (outcome.rows, outcome.failed) == (len(moments), {})
    return output


class Scripted:
    """Answers with given texts; ``broken`` videos cannot be read."""

    def __init__(self, texts: Sequence[str], broken: Sequence[str] = (), samples: int = 1) -> None:
        self.texts, self.broken, self.samples = texts, broken, samples
        self.asked: list[str] = []

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        for i, question in enumerate(questions):
            self.asked.append(question.video)
            if any(name in question.video for name in self.broken):
                yield i, Answer(("",) * self.samples, (0,) * self.samples, error=f"cannot read {question.video}")
            else:
                texts = tuple(self.texts[(hash_of(question.text) + k) % len(self.texts)] for k in range(self.samples))
                yield i, Answer(texts, (3,) * self.samples)


def hash_of(text: str) -> int:
    return sum(text.encode())


# ---------------------------------------------------------------- the model's answers


def test_rows_are_those_of_the_moments_and_read_back(
    whole: Path, moments: list[Moment], training_set: Path, settings: dict[str, Any]
) -> None:
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [row["id"] for row in rows] == [m.id for m in moments]
    assert all(row["settings"] == settings for row in rows)
    assert rows[0]["video_path"] == os.path.relpath(moments[0].video, training_set.parent / "videos")
    estimates = load_estimates(whole, moments, settings={"model": "tiny", "fingerprint": settings["fingerprint"]})
    assert set(estimates.answers) == {2}
    assert len({tuple(row["answers"]) for row in rows}) > len(rows) / 2  # the model did answer, and not the same


def test_two_processes_give_the_same_file(
    answerer: VideoAnswerer,
    settings: dict[str, Any],
    moments: list[Moment],
    training_set: Path,
    whole: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "difficulty.jsonl"
    root = str(training_set.parent / "videos")

    def run(shard: int) -> Any:
        return estimate_difficulty(
            answerer, moments, output, settings, shard=shard, shards=2, video_root=root, progress=False
        )

    assert run(1) is None
    assert not output.exists()
    assert run(0) is not None
    assert output.read_bytes() == whole.read_bytes()


def test_killed_at_random_points_and_started_again_it_gives_the_same_file(
    training_set: Path, tiny_checkpoints: dict[str, Path], whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "difficulty.jsonl"
    worker = Path(__file__).with_name("killed_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(tiny_checkpoints["qwen3_vl"]), str(training_set), str(output), "1"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split().count("killed") == 3, done.stdout
    assert done.stdout.endswith("status 0\n")
    assert output.read_bytes() == whole.read_bytes()


def test_real_clips(real_data: Path, answerer: VideoAnswerer, settings: dict[str, Any], tmp_path: Path) -> None:
    annotations = json.loads((real_data / "charades" / "charades_sta_test.json").read_text())
    part = tmp_path / "part.json"
    part.write_text(json.dumps({name: annotations[name] for name in ("3MSZA", "OHOFG")}))
    found = load_moments(part, "charades_sta", video_root=real_data / "charades")
    moments = [Moment.from_row(m.to_row() | {"video": f"{m.video.removesuffix('.mp4')}.mp4"}) for m in found]
    output = tmp_path / "difficulty.jsonl"
    outcome = estimate_difficulty(answerer, moments, output, settings, progress=False)
    assert outcome is not None
    assert (outcome.rows, outcome.failed) == (len(moments), {})
    assert load_estimates(output, moments).ids == tuple(m.id for m in moments)


# ---------------------------------------------------------------- scores


def test_ious_are_those_of_timelens_score(moments: list[Moment], tmp_path: Path) -> None:
    """The same answers as a result file of TimeLens, scored by the command."""
    texts = [
        "The event happens in 2.0 - 7.5 seconds.",
        "00:03 to 00:09, I think",
        "no such event",
        "From 9 to 4 s.",
        "",
    ]
    output, results, scores = tmp_path / "d.jsonl", tmp_path / "results.jsonl", tmp_path / "scores.json"
    estimate_difficulty(Scripted(texts), moments, output, {}, progress=False)  # type: ignore[arg-type]
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    with results.open("w") as file:
        for moment, row in zip(moments, rows, strict=True):
            key = f"{moment.video_id}.mp4>>>{moment.query}>>>{list(moment.spans[0])}"
            file.write(json.dumps({key: {"timestamps": [], "answers": row["answer"]}}) + "\n")
    assert main(["score", str(results), "--reading", "exact", "--json", str(scores)]) == 0
    (scored,) = (
        json.loads(scores.read_text())["scores"]
        if len(json.loads(scores.read_text())["scores"]) == 1
        else [next(s for s in json.loads(scores.read_text())["scores"] if s["name"] == "average")]
    )
    by_subset: dict[str, list[float]] = {}
    for moment, row in zip(moments, rows, strict=True):
        by_subset.setdefault(moment.source, []).append(row["iou"])
    means = [sum(v) / len(v) for v in by_subset.values()]
    assert scored["miou"] == pytest.approx(sum(means) / len(means))
    assert len({row["iou"] for row in rows}) > 4


# ---------------------------------------------------------------- interruptions and faults


def many(videos: int = 6) -> list[Moment]:
    rows = [
        {
            "source": "s",
            "video_path": f"v{v}.mp4",
            "duration": 30.0,
            "events": [{"query": f"event {q}", "span": [[q, q + 5.0]]} for q in range(3)],
        }
        for v in range(videos)
    ]
    return list(moments_from_rows(rows))


TEXTS = [f"{start} to {start + 4} seconds" for start in range(9)]


def rows_at(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_finished_clips_are_not_answered_again(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    estimate_difficulty(Scripted(TEXTS), moments, output, {"a": 1}, progress=False)  # type: ignore[arg-type]
    expected = output.read_bytes()
    part = tmp_path / "d.jsonl.parts" / "part-0-of-1.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # three clips, and a line that a kill cut off
    output.unlink()
    again = Scripted(TEXTS)
    estimate_difficulty(again, moments, output, {"a": 1}, progress=False)  # type: ignore[arg-type]
    assert sorted(set(again.asked)) == ["v3.mp4", "v4.mp4", "v5.mp4"]
    assert output.read_bytes() == expected


def test_another_number_of_processes_goes_on_with_what_is_done(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    first = Scripted(TEXTS)
    assert estimate_difficulty(first, moments, output, {}, shard=0, shards=3, progress=False) is None  # type: ignore[arg-type]
    assert sorted(set(first.asked)) == ["v0.mp4", "v3.mp4"]
    second = Scripted(TEXTS)
    outcome = estimate_difficulty(second, moments, output, {}, progress=False)  # type: ignore[arg-type]
    assert sorted(set(second.asked)) == ["v1.mp4", "v2.mp4", "v4.mp4", "v5.mp4"]
    assert outcome is not None
    assert outcome.rows == 18


def test_more_moments_of_a_finished_video_are_answered(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    less = [m for m in moments if not (m.video == "v2.mp4" and m.query == "event 1")]
    estimate_difficulty(Scripted(TEXTS), less, output, {}, progress=False)  # type: ignore[arg-type]
    again = Scripted(TEXTS)
    estimate_difficulty(again, moments, output, {}, progress=False)  # type: ignore[arg-type]
    assert again.asked == ["v2.mp4"] * 3
    assert [row["id"] for row in rows_at(output)] == [m.id for m in moments]


def test_what_another_process_finished_before_there_were_more_videos_does_not_count(tmp_path: Path) -> None:
    output = tmp_path / "d.jsonl"

    def run(shard: int, moments: list[Moment], broken: Sequence[str] = ()) -> Any:
        answerer: Any = Scripted(TEXTS, broken=broken)
        return estimate_difficulty(answerer, moments, output, {}, shard=shard, shards=2, progress=False)

    assert run(0, many(4)) is None
    assert run(1, many(4)).rows == 12
    assert run(0, many(8)) is None, "process 1 has not begun to look at the new videos"
    assert run(1, many(8), broken=["v7"]).rows == 21
    # The same work from another folder: what could not be read there is known by its clip, not by its path.
    moved = [Moment.from_row(m.to_row() | {"video": f"elsewhere/{m.video}"}) for m in many(8)]
    early = run(0, moved)
    assert (early.rows, early.failed) == (21, {"elsewhere/v7.mp4": "cannot read v7.mp4"})
    last = run(1, moved)
    assert (last.rows, last.failed) == (24, {})
    assert [row["id"] for row in rows_at(output)] == [m.id for m in many(8)]


def test_videos_that_cannot_be_read_are_listed_and_tried_again(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    broken = Scripted(TEXTS, broken=["v1", "v4"])
    outcome = estimate_difficulty(broken, moments, output, {}, progress=False)  # type: ignore[arg-type]
    assert outcome is not None
    assert (outcome.rows, sorted(outcome.failed), outcome.unanswered) == (12, ["v1.mp4", "v4.mp4"], 6)
    listing = rows_at(tmp_path / "d.jsonl.failed.jsonl")
    assert listing[0] == {
        "video": "v1.mp4",
        "error": "cannot read v1.mp4",
        "moments": [m.id for m in moments if m.video == "v1.mp4"],
    }
    mended = Scripted(TEXTS)
    outcome = estimate_difficulty(mended, moments, output, {}, progress=False)  # type: ignore[arg-type]
    assert sorted(set(mended.asked)) == ["v1.mp4", "v4.mp4"]
    assert outcome is not None
    assert (outcome.rows, outcome.failed) == (18, {})
    assert not (tmp_path / "d.jsonl.failed.jsonl").exists()


def test_a_real_unreadable_video(
    answerer: VideoAnswerer, settings: dict[str, Any], moments: list[Moment], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video")
    mixed = [Moment.from_row(moments[0].to_row() | {"video": str(bad)}), *moments[-3:]]
    outcome = estimate_difficulty(answerer, mixed, tmp_path / "d.jsonl", settings, progress=False)
    assert outcome is not None
    assert list(outcome.failed) == [str(bad)]
    assert outcome.rows == len(mixed) - 1
    strict = VideoAnswerer(answerer.model, answerer.processor, answerer.generation, samples=2)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        estimate_difficulty(strict, mixed, tmp_path / "e.jsonl", settings, progress=False)


def test_work_of_other_settings_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "d.jsonl"
    estimate_difficulty(Scripted(TEXTS), many(), output, {"model": "a"}, progress=False)  # type: ignore[arg-type]
    for shards in (1, 2):
        with pytest.raises(JournalError, match="model: 'a' there, 'b' here"):
            estimate_difficulty(
                Scripted(TEXTS),  # type: ignore[arg-type]
                many(),
                output,
                {"model": "b"},
                shards=shards,
                progress=False,
            )


def test_two_processes_with_the_same_share_do_not_write_over_each_other(tmp_path: Path) -> None:
    clips = clips_of(many())
    with Shard(tmp_path / "d.jsonl", clips, {}), pytest.raises(BlockingIOError, match="0 of 1"):
        Shard(tmp_path / "d.jsonl", clips, {})
    with Shard(tmp_path / "d.jsonl", clips, {}) as again:
        assert len(again.pending) == 6
    with pytest.raises(ValueError, match="process 2 of 2"):
        Shard(tmp_path / "d.jsonl", clips, {}, 2, 2)


def test_windows_of_a_video_are_clips_of_their_own_on_one_process(tmp_path: Path) -> None:
    base = many(2)
    windows = [
        Moment.from_row(m.to_row() | {"id": f"{m.id}-{k}", "video_start": 40.0 * k, "video_end": 40.0 * k + 30})
        for m in base
        for k in range(2)
    ]
    clips = clips_of(windows)
    assert len(clips) == len({clip.key for clip in clips}) == 4
    with Shard(tmp_path / "d.jsonl", clips, {}, 1, 2) as shard:
        assert [clip.video for clip in shard.mine] == ["v1.mp4", "v1.mp4"]


def test_a_fingerprint_tells_weights_apart() -> None:
    model = build_model("qwen3_vl")
    before = fingerprint(model)
    assert before == fingerprint(build_model("qwen3_vl"))
    assert before != fingerprint(build_model("qwen3_vl", seed=1))


def test_answering_that_cannot_work_is_an_error() -> None:
    for options in ({"samples": 0}, {"max_new_tokens": 0}, {"samples": 2, "temperature": 0.0}):
        with pytest.raises(ValueError, match=r"at least 1|temperature > 0"):
            Answering(**options)  # type: ignore[arg-type]
