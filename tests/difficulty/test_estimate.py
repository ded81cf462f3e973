"""Difficulty rows from a model: one file whatever is killed and however the work is shared, scored as elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.cli import main
from timelens_plugins.clips import ClipKey
from timelens_plugins.difficulty import load_estimates
from timelens_plugins.difficulty.estimate import Answering, difficulty_settings, estimate_difficulty
from timelens_plugins.difficulty.shards import Shard, clips_of
from timelens_plugins.families.tiny import build_model
from timelens_plugins.inference import JournalError
from timelens_plugins.inference.answering import Answer, Begin, Engine, Question
from timelens_plugins.inference.engine import VideoAnswerer
from timelens_plugins.inference.fingerprint import fingerprint, weights_of
from timelens_plugins.moments import Moment, load_moments, moments_from_rows
from timelens_plugins.synthetic.benchmark import write_training_set
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

    from timelens_plugins.encodings import load_processor

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


class Scripted(Engine[None]):
    """Answers with given texts; ``broken`` videos cannot be read."""

    processor = SimpleNamespace(prompt=GROUNDING_PROMPT)

    def __init__(self, texts: Sequence[str], broken: Sequence[str] = (), samples: int = 1) -> None:
        self.texts, self.broken, self.samples = texts, broken, samples
        self.asked: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {}

    def _prepare(self, path: str, start: float | None, end: float | None) -> None:
        raise AssertionError("nothing is decoded")

    def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
        begun: dict[ClipKey, bool] = {}
        for i, question in enumerate(questions):
            if begin is not None and question.clip not in begun:
                begun[question.clip] = begin(question.clip)
            if not begun[question.clip]:
                continue
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

    def run(shard: int, engine: Any) -> Any:
        return estimate_difficulty(
            engine, moments, output, settings, shard=shard, shards=2, video_root=root, progress=False
        )

    class Slow:
        """Process 0, which is not through with its first video when process 1 has nothing left to begin."""

        def __getattr__(self, name: str) -> Any:
            return getattr(answerer, name)

        def answer(self, questions: Sequence[Question], begin: Begin) -> Iterator[tuple[int, Answer]]:
            asked: list[str] = []

            def noting(clip: ClipKey) -> bool:
                asked.append(clip.video)
                return begin(clip)

            found = answerer.answer(questions, noting)
            first = next(found)
            assert run(1, answerer) is None
            assert not output.exists()
            yield first
            for index, answer in found:
                assert questions[index].video == asked[0]
                yield index, answer

    assert run(0, Slow()) is not None
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in (tmp_path / "difficulty.jsonl.parts").glob("*-of-2.*")) == [
        "finished-0-of-2.json",
        "finished-1-of-2.json",
    ]


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
    assert done.stdout.split().count("killed") >= 3, done.stdout
    assert done.stdout.endswith("status 0 0\n")
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
        "From 1 to 6 s.",
        "",
    ]
    output, results, scores = tmp_path / "d.jsonl", tmp_path / "results.jsonl", tmp_path / "scores.json"
    estimate_difficulty(Scripted(texts), moments, output, {}, progress=False)
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
    estimate_difficulty(Scripted(TEXTS), moments, output, {"a": 1}, progress=False)
    expected = output.read_bytes()
    [part] = (tmp_path / "d.jsonl.parts").glob("*/*.jsonl")
    lines = part.read_bytes().split(b"\n\n")
    part.write_bytes(b"\n\n".join(lines[:3]) + b"\n\n" + lines[3][:20])  # three clips, and a line that a kill cut off
    output.unlink()
    again = Scripted(TEXTS)
    estimate_difficulty(again, moments, output, {"a": 1}, progress=False)
    assert sorted(set(again.asked)) == ["v3.mp4", "v4.mp4", "v5.mp4"]
    assert output.read_bytes() == expected


def test_another_number_of_processes_goes_on_with_what_is_done(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    first = Scripted(TEXTS)
    with Shard(output, clips_of(moments), {}, 0, 3) as killed:
        for clip in killed.mine:
            assert killed.begin(clip)
            killed.add(clip, [["from 1 to 2 seconds"]] * 3)
        assert [clip.video for clip in killed.mine] == ["v0.mp4", "v3.mp4"]
        assert not killed.begin(killed.mine[0]), "it is done"
        assert killed.begin(killed.pending[2])
    outcome = estimate_difficulty(first, moments, output, {}, progress=False)
    assert sorted(set(first.asked)) == ["v1.mp4", "v2.mp4", "v4.mp4", "v5.mp4"]
    assert outcome is not None
    assert outcome.rows == 18


def test_what_a_process_has_begun_is_left_to_it_until_it_starts_again(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    clips = clips_of(moments)
    with Shard(output, clips, {}, 1, 2) as other:
        assert other.begin(other.mine[0])
        assert other.begin(other.mine[0]), "its own word does not bind it"
        one = Scripted(TEXTS)
        assert estimate_difficulty(one, moments, output, {}, shard=0, shards=2, progress=False) is None
        assert sorted({*one.asked}) == sorted({clip.video for clip in clips} - {other.mine[0].video})
        assert not output.exists()
    # It was killed, and is started again, alone.
    again = Scripted(TEXTS)
    outcome = estimate_difficulty(again, moments, output, {}, shard=1, shards=2, progress=False)
    assert ({*again.asked}, outcome and outcome.rows) == ({other.mine[0].video}, 18)
    # What it had begun of other work says nothing.
    with Shard(output, clips, {"other": 1}, 1, 2) as other:
        assert all(other.begin(clip) for clip in other.mine)
        with Shard(output, clips, {}, 0, 2) as fresh:
            assert all(not fresh.begin(clip) for clip in clips), "all is done"
        with Shard(output, clips[:-1], {"other": 1}, 0, 2) as fresh:
            assert all(fresh.begin(clip) for clip in clips[:-1])


def test_a_process_that_comes_through_while_another_looks_at_what_it_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = clips_of(many())
    with Shard(tmp_path / "d.jsonl", clips, {}, 1, 2) as other, Shard(tmp_path / "d.jsonl", clips, {}, 0, 2) as one:
        begun = other._begun
        read = Path.read_text

        def late(path: Path, *args: Any, **kwargs: Any) -> str:
            if path == begun:
                path.unlink()  # as the other does when it is through
            return read(path, *args, **kwargs)

        monkeypatch.setattr(Path, "read_text", late)
        assert begun.exists()
        assert one.begin(one.mine[0])


def test_the_costliest_videos_come_first(tmp_path: Path) -> None:
    class Costly(Scripted):
        def cost(self, clip: ClipKey, questions: int) -> float:
            return {"v4.mp4": 9.0, "v1.mp4": 7.0}.get(clip.video, 1.0)

    output, moments = tmp_path / "d.jsonl", many()
    plain, engine = Scripted(TEXTS), Costly(TEXTS)
    estimate_difficulty(plain, moments, output, {}, progress=False)
    expected = output.read_bytes()
    estimate_difficulty(engine, moments, tmp_path / "e.jsonl", {}, progress=False)
    assert list(dict.fromkeys(engine.asked)) == ["v4.mp4", "v1.mp4", "v0.mp4", "v2.mp4", "v3.mp4", "v5.mp4"]
    assert (tmp_path / "e.jsonl").read_bytes() == expected, "rows are in the order of the moments"
    with Shard(output, clips_of(moments), {}, 0, 2, [engine.cost(ClipKey(f"v{i}.mp4"), 3) for i in range(6)]) as one:
        assert [clip.video for clip in one.mine] == ["v4.mp4", "v3.mp4"]


def test_more_moments_of_a_finished_video_are_answered(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    less = [m for m in moments if not (m.video == "v2.mp4" and m.query == "event 1")]
    estimate_difficulty(Scripted(TEXTS), less, output, {}, progress=False)
    again = Scripted(TEXTS)
    estimate_difficulty(again, moments, output, {}, progress=False)
    assert again.asked == ["v2.mp4"] * 3
    assert [row["id"] for row in rows_at(output)] == [m.id for m in moments]


def test_what_another_process_finished_before_there_were_more_videos_does_not_count(tmp_path: Path) -> None:
    output = tmp_path / "d.jsonl"

    def run(shard: int, moments: list[Moment], broken: Sequence[str] = ()) -> Any:
        answerer: Any = Scripted(TEXTS, broken=broken)
        return estimate_difficulty(answerer, moments, output, {}, shard=shard, shards=2, progress=False)

    with Shard(output, clips_of(many(4)), {}, 1, 2) as other:  # at work
        assert other.begin(other.mine[0])
        assert run(0, many(4)) is None
    assert run(1, many(4)).rows == 12
    with Shard(output, clips_of(many(8)), {}, 1, 2) as other:
        assert other.begin(other.pending[0])
        assert run(0, many(8)) is None, "process 1 is at one of the new videos"
    assert run(1, many(8), broken=[other.pending[0].video]).rows == 21
    # The same work from another folder: what could not be read there is known by its clip, not by its path.
    moved = [Moment.from_row(m.to_row() | {"video": f"elsewhere/{m.video}"}) for m in many(8)]
    last = run(1, moved)
    assert (last.rows, last.failed) == (24, {})
    assert [row["id"] for row in rows_at(output)] == [m.id for m in many(8)]


def test_a_video_that_is_replaced_during_a_run_gives_no_row_about_the_old_one(tmp_path: Path) -> None:
    output = tmp_path / "d.jsonl"
    moments = [Moment.from_row(m.to_row() | {"video": str(tmp_path / m.video)}) for m in many()]
    first, *_, last = dict.fromkeys(m.video for m in moments)
    for video in {m.video for m in moments}:
        Path(video).write_bytes(b"frames")

    class Replacing(Scripted):
        def _answer(self, questions: Sequence[Question], begin: Begin | None) -> Iterator[tuple[int, Answer]]:
            for index, answer in super()._answer(questions, begin):
                if questions[index].video == last:
                    Path(first).write_bytes(b"others")
                yield index, answer

    with pytest.raises(JournalError, match=r"1 clips have neither answers nor an error, .* or videos replaced"):
        estimate_difficulty(Replacing(TEXTS), moments, output, {}, progress=False)
    assert not output.exists()
    again = Scripted(TEXTS)
    outcome = estimate_difficulty(again, moments, output, {}, progress=False)
    assert (set(again.asked), outcome and outcome.rows) == ({first}, 18)


def test_videos_that_cannot_be_read_are_listed_and_tried_again(tmp_path: Path) -> None:
    output, moments = tmp_path / "d.jsonl", many()
    broken = Scripted(TEXTS, broken=["v1", "v4"])
    outcome = estimate_difficulty(broken, moments, output, {}, progress=False)
    assert outcome is not None
    assert (outcome.rows, sorted(outcome.failed), outcome.unanswered) == (12, ["v1.mp4", "v4.mp4"], 6)
    listing = rows_at(tmp_path / "d.jsonl.failed.jsonl")
    assert listing[0] == {
        "video": "v1.mp4",
        "error": "cannot read v1.mp4",
        "moments": [m.id for m in moments if m.video == "v1.mp4"],
    }
    mended = Scripted(TEXTS)
    outcome = estimate_difficulty(mended, moments, output, {}, progress=False)
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


def test_other_settings_start_afresh_and_say_why_and_the_old_work_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "d.jsonl"

    def run(model: str) -> list[str]:
        answerer: Any = Scripted(TEXTS)
        estimate_difficulty(answerer, many(), output, {"model": model}, progress=False)
        assert {row["settings"]["model"] for row in rows_at(output)} == {model}
        return answerer.asked

    assert len(run("a")) == 18
    assert len(run("b")) == 18
    assert "starts afresh: model: 'a' then, 'b' now" in caplog.text
    caplog.clear()
    assert run("a") == []
    assert "afresh" not in caplog.text


def test_a_replaced_video_is_answered_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    moments = [Moment.from_row(m.to_row() | {"video": str(tmp_path / m.video)}) for m in many()]
    for moment in moments:
        Path(moment.video).write_bytes(b"one video")

    def run(shard: int) -> tuple[list[str], Any]:
        answerer: Any = Scripted(TEXTS)
        outcome = estimate_difficulty(
            answerer, moments, tmp_path / "d.jsonl", {}, shard=shard, shards=2, progress=False
        )
        return [Path(video).name for video in answerer.asked], outcome

    assert run(0)[1].rows == 18
    assert run(1)[0] == []
    stat = (tmp_path / "v3.mp4").stat()
    (tmp_path / "v3.mp4").write_bytes(b"an other!")
    os.utime(tmp_path / "v3.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    asked, outcome = run(0)
    assert asked == ["v3.mp4"] * 3
    assert outcome.rows == 18
    assert run(1)[0] == []
    assert "v3.mp4: 9 bytes then, 9 now" in caplog.text


def test_runs_with_the_same_share_at_once_disturb_nothing(tmp_path: Path) -> None:
    clips = clips_of(many())
    answers = [["from 1 to 2 seconds"]] * 3
    with Shard(tmp_path / "d.jsonl", clips, {}) as one, Shard(tmp_path / "d.jsonl", clips, {}) as other:
        for clip in one.pending[:4]:
            one.add(clip, answers)
        for clip in other.pending:
            other.add(clip, answers)
        for clip in one.pending[4:]:
            one.add(clip, answers)
        first, second = one.finish({}), other.finish({})
    assert first is not None
    assert second is not None
    assert first.rows == second.rows == len(rows_at(tmp_path / "d.jsonl")) == 18
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
    exact = weights_of(model).exact
    for name, parameter in model.named_parameters():
        place = parameter.data.view(-1)[-1:]
        old = place.clone()
        place.add_(old.abs() * 1e-4 + 1e-6)  # less than bfloat16 tells apart
        assert weights_of(model).exact != exact, name
        place.copy_(old + 1)
        assert fingerprint(model) != before, name
        place.copy_(old)
    assert (fingerprint(model), weights_of(model).exact) == (before, exact)


def test_the_penalty_of_the_checkpoint_does_not_apply(
    answerer: VideoAnswerer, moments: list[Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the released filter, which passes ``repetition_penalty=None``."""
    answering = Answering(max_new_tokens=6)
    question = Question(moments[0].video, "when?")

    def answer() -> Answer:
        generation = answering.generation_config(answerer.model)
        [(_, given)] = VideoAnswerer(answerer.model, answerer.processor, generation).answer([question])
        return given

    plain = answer()
    monkeypatch.setattr(answerer.model.generation_config, "repetition_penalty", 1.9)
    assert answer() == plain
    monkeypatch.setattr("timelens_plugins.difficulty.estimate.REPETITION_PENALTY", None)
    assert answer() != plain, "and it would show"


@pytest.mark.parametrize("setting", [{"min_p": 1.0}, {"typical_p": 1e-6}, {"epsilon_cutoff": 0.5}, {"top_k": 1}])
def test_sampling_settings_of_the_checkpoint_do_not_apply(
    setting: dict[str, float], answerer: VideoAnswerer, moments: list[Moment], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them alone would leave one token to choose."""
    [(name, value)] = setting.items()
    monkeypatch.setattr(answerer.model.generation_config, name, value)
    answering = Answering(samples=4, max_new_tokens=6)
    generation = answering.generation_config(answerer.model)
    engine = VideoAnswerer(answerer.model, answerer.processor, generation, samples=4)
    torch.manual_seed(0)
    [(_, answer)] = engine.answer([Question(moments[0].video, "when?")])
    assert len(set(answer.token_ids or ())) > 1
    setattr(generation, name, None)
    torch.manual_seed(0)
    [(_, answer)] = engine.answer([Question(moments[0].video, "when?")])
    assert len(set(answer.token_ids or ())) == 1, "and it would show"


def test_answering_that_cannot_work_is_an_error() -> None:
    for options in ({"samples": 0}, {"max_new_tokens": 0}, {"samples": 2, "temperature": 0.0}):
        with pytest.raises(ValueError, match=r"at least 1|temperature > 0"):
            Answering(**options)  # type: ignore[arg-type]
