"""``timelens validate``: one of every fault is found where it is, nothing else is, and what can be mended is."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from timelens_plugins.cli import main
from timelens_plugins.moments import AnnotationError, load_moments
from timelens_plugins.quality import CHECKS, validate
from timelens_plugins.synthetic.benchmark import write_benchmark


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic clips with two queries each, in TimeLens-Bench's layout."""
    return write_benchmark(tmp_path_factory.mktemp("bench"), {"charades": 6}, queries=2, size=64, progress=False)


@pytest.fixture
def copy(bench: Path, tmp_path: Path) -> tuple[Path, Path, dict[str, dict[str, list]]]:
    """Annotations to change, their videos, and the content."""
    videos = tmp_path / "videos of mine"
    shutil.copytree(bench / "videos" / "charades", videos)
    file = tmp_path / "charades-timelens.json"
    return file, videos, json.loads((bench / "charades-timelens.json").read_text())


def found(report) -> Counter:
    return Counter(problem.check for problem in report.problems)


def reencode(source: Path, target: Path) -> None:
    """The same pictures with other bytes."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        rate = container.streams.video[0].average_rate
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.options = {"crf": "30"}
        for number, frame in enumerate(container.decode(video=0)):
            frame.pts, frame.time_base = number, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def test_a_clean_set_has_nothing(bench: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bench / "charades-timelens.json"
    assert main(["validate", str(file), "--videos", str(bench / "videos/charades"), "--strict"]) == 0
    out = capsys.readouterr().out
    assert "12 moments of 6 videos, 6 video files opened" in out
    assert "nothing found" in out


def test_every_fault_is_found_once(copy: tuple, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file, videos, content = copy
    names = sorted(content)
    third, fourth, fifth, sixth = (content[name] for name in names[2:])
    (videos / f"{names[0]}.mp4").unlink()  # missing
    cut = videos / f"{names[1]}.mp4"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])  # unreadable
    third["duration"] += 5  # wrong duration
    third["spans"] = [
        [third["duration"] - 3, third["duration"] - 2],
        [1, third["duration"] + 1],
    ]  # outside; beyond both
    fourth["queries"].append(fourth["queries"][0].upper())  # the same words
    fourth["spans"].append(fourth["spans"][0])  # and the same span: a duplicate
    fifth["queries"].append(fifth["queries"][0])  # the same words with another span
    fifth["spans"].append([0, 1])
    fifth["queries"][1] += "\u202e\x07"  # odd characters
    shutil.copy(videos / f"{names[5]}.mp4", videos / "again.mp4")  # the same bytes
    content["again"] = sixth
    reencode(videos / f"{names[5]}.mp4", videos / "other bytes.mp4")  # the same pictures
    content["other bytes"] = sixth
    content["broken"] = {
        "duration": 9.0,
        "spans": [[5, 2], [1, 4]],
        "queries": ["backwards", "fine"],
    }  # schema, missing
    file.write_text(json.dumps(content))
    assert main(["validate", str(file), "--videos", str(videos), "--json", str(tmp_path / "out.json")]) == 1
    report = json.loads((tmp_path / "out.json").read_text())
    counts = Counter(problem["check"] for problem in report["problems"])
    assert counts == {
        "schema": 1,
        "missing_video": 2,
        "unreadable_video": 1,
        "span_outside_video": 1,
        "span_beyond_duration": 1,
        "span_beyond_video": 1,
        "wrong_duration": 1,
        "duplicate": 1,
        "repeated_query": 1,
        "odd_query": 1,
        "repeated_video": 1,
        "similar_video": 1,
    }
    by_check = {problem["check"]: problem for problem in report["problems"]}
    assert "'backwards'" in by_check["schema"]["where"] or "annotation 1" in by_check["schema"]["where"]
    assert "U+0007, U+202E" in by_check["odd_query"]["reason"]
    assert "other bytes" in by_check["similar_video"]["reason"] + by_check["similar_video"]["where"]
    assert (report["errors"], report["warnings"]) == (5, 8)
    printed = capsys.readouterr().out
    assert all(f"{CHECKS[name].severity:8} {name}" in printed for name in counts)
    for name in names[:2]:  # neither the missing one nor the broken one is named twice in its line
        assert [line.count(f"{name}.mp4") for line in printed.splitlines() if f"{name}.mp4" in line] == [1], printed


def test_fix_changes_only_what_it_logs(copy: tuple, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, videos, content = copy
    names = sorted(content)
    (videos / f"{names[0]}.mp4").unlink()
    second, third = content[names[1]], content[names[2]]
    real = second["duration"]
    second["duration"] = real + 3
    second["spans"][0] = [1, real + 2]
    third["queries"].append(third["queries"][0])
    third["spans"].append(third["spans"][0])
    file.write_text(json.dumps(content))
    fixed = tmp_path / "fixed.jsonl"
    assert main(["validate", str(file), "--videos", str(videos), "--fix", str(fixed)]) == 1
    assert "left out" in capsys.readouterr().out
    changes = [json.loads(line) for line in Path(f"{fixed}.changes.jsonl").read_text().splitlines()]
    assert Counter((c["field"], c["check"]) for c in changes) == {
        ("moment", "missing_video"): 2,
        ("moment", "duplicate"): 1,
        ("duration", "wrong_duration"): 2,
        ("spans", "span_beyond_video"): 1,
    }
    before = {m.id: m for m in load_moments(file)}
    after = {m.id: m for m in load_moments(fixed)}
    touched = {c["moment"] for c in changes}
    assert len(after) == len(before) - 3
    assert all(after[i].to_row() == before[i].to_row() for i in after if i not in touched)
    again = validate(fixed, videos)
    assert not again.problems, again.table()


def test_leakage_by_name_by_content_and_by_query(bench: Path, copy: tuple, tmp_path: Path) -> None:
    _, videos, content = copy
    names = sorted(content)
    shutil.move(videos / f"{names[1]}.mp4", videos / "renamed.mp4")
    train = tmp_path / "train.jsonl"
    rows = [
        {"source": "s", "video_path": f"{name}.mp4", "duration": 12.0, "events": [{"query": q, "span": [[1.0, 2.0]]}]}
        for name, q in ((names[0], content[names[0]]["queries"][0] + "!"), ("renamed", "nothing alike at all"))
    ]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = bench / "charades-timelens.json"
    by_name = found(validate(file, against=[train]))
    assert by_name == {"leaked_video": 1, "leaked_query": 1}
    by_content = validate(file, bench / "videos/charades", against=[train], against_videos=videos)
    assert found(by_content) == {"leaked_video": 2, "leaked_query": 1}
    assert any("renamed.mp4" in problem.reason for problem in by_content.problems)


def test_a_hundred_thousand_moments(tmp_path: Path) -> None:
    """All checks run and find exactly what was put in."""
    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(2000)]
    content = {}
    for v in range(20_000):
        starts = rng.integers(0, 50, 5)
        queries = [" ".join(rng.choice(words, 6)) for _ in range(5)]
        content[f"v{v}"] = {"duration": 60.0, "spans": [[int(s), int(s) + 5] for s in starts], "queries": queries}
    content["v7"]["queries"][1] = content["v7"]["queries"][0]
    content["v7"]["spans"][1] = [51, 52]
    content["v8"]["spans"][2] = [10, 10]
    file = tmp_path / "large-timelens.json"
    file.write_text(json.dumps(content))
    started = time.process_time()
    report = validate(file)
    print(f"{time.process_time() - started:.1f} CPU s")
    assert report.moments == 100_000
    assert found(report) == {"repeated_query": 1, "zero_length_span": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.json"], "missing.json"),
        (["FILE", "--videos", "nowhere"], "there is no folder of videos"),
        (["FILE", "--against-videos", "."], "needs --against"),
        (["FILE", "--fix", "FILE"], "would replace a file that is read"),
        (["FILE", "--workers", "2"], "--workers needs --videos"),
    ],
)
def test_bad_calls(bench: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(bench / "charades-timelens.json")
    assert main(["validate", *(file if word == "FILE" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    assert main(["validate", str(empty)]) == 2
    assert "empty.json" in capsys.readouterr().err
    with pytest.raises(AnnotationError):
        validate(empty)


def test_the_real_files(real_data: Path) -> None:
    """Figures to hold on to: 562 spans of Charades-STA end after the stated duration, by up to 1.5 s."""
    report = validate(real_data / "charades" / "charades_sta_test.json")
    assert found(report) == {"span_beyond_duration": 562}
    assert found(validate(real_data / "activitynet" / "val_2.json")) == {"span_beyond_duration": 1}
    assert not validate(real_data / "qvhighlights" / "highlight_val_release.jsonl").problems


def test_a_window_that_ends_after_its_video_is_found(bench: Path, tmp_path: Path) -> None:
    videos = bench / "videos" / "charades"
    name = min(video.name for video in videos.iterdir())
    file = tmp_path / "windows.csv"
    file.write_text(f"video,query,start,end,video_start,video_end\n{name},a dog,1,3,5,90\n{name},a cat,1,3,2,8\n")
    [problem] = validate(file, videos).problems
    assert problem.check == "wrong_duration"
    assert "its window ends at 90 s of a video of 1" in problem.reason
    assert len(problem.moments) == 1


def stored(name: str, query: str, spans: list, **more: object) -> str:
    row = {"id": name, "video": "v.mp4", "video_id": "v", "query": query, "spans": spans, "duration": 20.0}
    return json.dumps(row | {"source": "made"} | more) + "\n"


def test_stored_flags_are_not_taken_for_what_spans_show(tmp_path: Path) -> None:
    """Rows of this package that were edited since they were written."""
    file = tmp_path / "mine.jsonl"
    file.write_text(
        stored("beyond", "a dog runs", [[15, 25]])
        + stored("nothing", "a cat sits", [[3, 3]])
        + stored("right", "a girl jumps", [[1, 4]], flags=["span_beyond_duration", "zero_length_span", "system_turn"])
    )
    problems = {(problem.check, problem.where) for problem in validate(file).problems}
    assert problems == {("span_beyond_duration", "beyond"), ("zero_length_span", "nothing")}
    assert load_moments(file)[2].flags == {"system_turn"}


@pytest.mark.parametrize(
    ("one", "two"),
    [("लड़का दौड़ता है", "लड़की दौड़ती है"), ("\U0001f436", "\U0001f431"), ("กิ", "กี"), ("?!", "...")],
)
def test_queries_that_differ_in_marks_or_symbols_are_two(one: str, two: str, tmp_path: Path) -> None:
    file, fixed = tmp_path / "mine.jsonl", tmp_path / "fixed.jsonl"
    file.write_text(stored("a", one, [[1, 5]]) + stored("b", two, [[1, 5]]) + stored("c", f" {one}", [[1, 5]]))
    [problem] = validate(file).problems
    assert (problem.check, problem.moments) == ("duplicate", ("a", "c"))
    assert main(["validate", str(file), "--fix", str(fixed)]) == 0
    assert [m.id for m in load_moments(fixed)] == ["a", "b"]


def test_fix_leaves_nothing_that_was_said_of_the_former_label(tmp_path: Path) -> None:
    file, fixed = tmp_path / "mine.jsonl", tmp_path / "fixed.jsonl"
    said = {"question": "When does it run?", "answer": "1 - 25 s", "iou": 0.5}
    said |= {"predictions": [{"spans": [[1, 13]], "iou": 0.5, "answer": None}]}
    file.write_text(stored("a", "a dog runs", [[1, 25], [7, 7]], **said) + stored("b", "a cat sits", [[1, 2]], **said))
    assert main(["validate", str(file), "--fix", str(fixed)]) == 1
    mended, untouched = load_moments(fixed)
    assert mended.spans == ((1, 20),)
    assert (mended.question, mended.answer, mended.iou, mended.predictions) == ("When does it run?", None, None, ())
    assert (untouched.answer, untouched.iou, len(untouched.predictions)) == ("1 - 25 s", 0.5, 1)
    changes = [json.loads(line) for line in Path(f"{fixed}.changes.jsonl").read_text().splitlines()]
    assert {(c["moment"], c["field"]) for c in changes} == {("a", f) for f in ("spans", "answer", "iou", "predictions")}
    assert not validate(fixed).problems


def test_a_corrected_copy_names_videos_as_the_file_does(
    copy: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a relative folder, too: the copy is used as the file was."""
    file, videos, content = copy
    file.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    for words in (["validate", "--fix"], ["audit", "--workers", "1", "--clean"]):
        assert main([*words[:1], file.name, "--videos", videos.name, *words[1:], "out.jsonl"]) == 0
        assert {m.video for m in load_moments("out.jsonl")} <= {m.video for m in load_moments(file)}
    assert main(["validate", "out.jsonl", "--videos", videos.name]) == 0


def test_rows_of_the_other_file_that_cannot_be_read_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, other, out = (tmp_path / name for name in ("mine.jsonl", "train.jsonl", "out.json"))
    file.write_text(stored("a", "a dog runs", [[1, 5]]))
    other.write_text(stored("b", "a cat sits", [[1, 5]]) + '{"id": "c"}\n')
    assert main(["validate", str(file), "--against", str(other), "--json", str(out)]) == 0
    assert "train.jsonl: 1 rows could not be read and were not compared" in capsys.readouterr().out
    assert len(json.loads(out.read_text())["notes"]) == 1
