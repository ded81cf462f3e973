"""The same arguments for score, report and leaderboard: files, folders, globs, names; and what of them is one run."""

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
from timelens_plugins.evaluation.task_functions import process_results
from timelens_plugins.metrics import evaluate
from timelens_plugins.moments import Moment, Prediction, save_moments
from timelens_plugins.results import load_results, load_run, load_runs
from timelens_plugins.spans import Span

TASKS = ("charades", "activitynet", "qvhighlights")
ANSWERS = ("The event happens in 1.0 - 6.0 seconds.", "The event happens in 9.0 - 2.0 seconds.", "12 - 12 s", "No.")
GROUNDING = "Please find the visual event described by the sentence '{}', determining its starting and ending times."


def moments(task: str, count: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "video_id": f"{task}{i // 2}",
            "query": f"person {'opens' if i % 2 else 'closes'} the door",
            "spans": [[1.0, 7.0]],
            "duration": 20.0,
            "subset": f"{task}-timelens",
            "flags": [],
            "missing_videos": 0,
        }
        for i in range(count)
    ]


def evaluation(folder: Path, time: str = "20260101_000000", answers: Sequence[str] = ANSWERS) -> Path:
    """As lmms-eval leaves the evaluation of all three tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [f"timelens_bench_{task}" for task in TASKS]
    for name, task in zip(TASKS, tasks, strict=True):
        rows = [
            {"doc_id": i, "filtered_resps": answer, **process_results(doc, [answer])}
            for i, (doc, answer) in enumerate(zip(moments(name), answers, strict=True))
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{time}_samples_{task}.jsonl").write_text(text)
    record = {
        "results": {task: {"mIoU,none": 20.0} for task in tasks},
        "config": {"model": "timelens", "model_args": "pretrained=m"},
        "configs": {task: {"task": task} for task in tasks},
        "date": time,
        "model_name": folder.name,
    }
    (folder / f"{time}_results.json").write_text(json.dumps(record))
    return folder


def annotations(folder: Path, task: str) -> Path:
    by_video: dict[str, dict[str, Any]] = {}
    for doc in moments(task):
        entry = by_video.setdefault(doc["video_id"], {"duration": 20.0, "spans": [], "queries": []})
        entry["spans"] += doc["spans"]
        entry["queries"].append(doc["query"])
    path = folder / f"{task}-timelens.json"
    path.write_text(json.dumps(by_video))
    return path


def rows_of(command: str, tmp_path: Path, *arguments: object) -> list[str]:
    """Names of the runs, as the command has them."""
    out = tmp_path / "out"
    words = [command, *map(str, arguments)]
    if command == "score":
        assert main([*words, "--json", str(out)]) == 0
        names = [row["name"] for row in json.loads(out.read_text())["scores"]]
        return list(dict.fromkeys(name.partition(":")[0] for name in names if name != "average"))
    if command == "report":
        assert main([*words, "-o", str(out)]) == 0
        data = json.loads(out.read_text().split('id="data">', 1)[1].split("</script>", 1)[0])
        return [run["name"] for run in data["runs"]]
    assert main([*words, "--format", "json", "-o", str(out)]) == 0
    rows = [row for section in json.loads(out.read_text())["sections"] for row in section["rows"] if row["ours"]]
    return list(dict.fromkeys(row["model"] for row in sorted(rows, key=lambda row: row["source"])))


@pytest.mark.parametrize("command", ["score", "report", "leaderboard"])
def test_files_folders_globs_and_names_mean_the_same_to_every_command(command: str, tmp_path: Path) -> None:
    a, b = evaluation(tmp_path / "results" / "a"), evaluation(tmp_path / "results" / "b", "20260202_000000")
    for given in ([tmp_path / "results"], [a, b], [tmp_path / "results" / "*"], sorted(tmp_path.rglob("*_samples_*"))):
        assert rows_of(command, tmp_path, *given) == ["a", "b"]
    records = sorted(tmp_path.rglob("*_results.json"))
    assert rows_of(command, tmp_path, *records) == ["a", "b"]
    assert rows_of(command, tmp_path, a, b, "--name", "x", "y") == ["x", "y"]
    assert rows_of(command, tmp_path, f"x={a}", f"y={b}") == ["x", "y"]
    with pytest.raises(AssertionError):
        rows_of(command, tmp_path, f"x={a}", b, "--name", "y", "z")


def timelens_file(path: Path, task: str, answers: Sequence[str] = ANSWERS) -> Path:
    """The same answers as TimeLens keeps them: one object, keyed by video, query and spans."""
    rows = {
        f"{doc['video_id']}.mp4>>>{doc['query']}>>>{json.dumps(doc['spans'])}": {"timestamps": [], "answers": answer}
        for doc, answer in zip(moments(task), answers, strict=True)
    }
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("command", ["score", "report", "leaderboard"])
def test_one_run_in_two_formats_is_one_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = evaluation(tmp_path / "results" / "a")
    other = evaluation(tmp_path / "results" / "b", "20260202_000000", ("1 - 7 s",) * 4)
    alone = rows_of(command, tmp_path, folder, other), (tmp_path / "out").read_text()
    copy = timelens_file(folder / "charades-timelens.json", "charades")
    assert rows_of(command, tmp_path, folder, other) == alone[0] == ["a", "b"]
    said = f"{copy} repeats answers of {folder / '20260101_000000_samples_timelens_bench_charades.jsonl'}"
    assert said in "".join(capsys.readouterr())
    if command != "report":  # whose page has the sentence, too
        assert (tmp_path / "out").read_text() == alone[1]
    assert rows_of(command, tmp_path, f"x={folder}", f"y={other}") == ["x", "y"]


@pytest.mark.parametrize("command", ["score", "report", "leaderboard"])
@pytest.mark.parametrize("others", [("1 - 7 s",) * 4, (*ANSWERS[:3], "2 - 3 s")])
def test_files_that_answer_the_same_moments_differently_are_named(
    command: str, others: Sequence[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    files = [
        timelens_file(folder / "charades-timelens.json", "charades"),
        timelens_file(folder / "charades_timelens.json", "charades", others),
    ]
    output = ["-o", str(tmp_path / "out")] if command != "score" else []
    assert main([command, str(folder), *output]) == 2
    told = capsys.readouterr().err
    assert all(str(file) in told for file in files)
    assert "answer 4 of the same moments and are not the same" in told
    assert "give each file by itself (NAME=FILE)" in told
    # As it says: each by itself.
    assert rows_of(command, tmp_path, f"x={files[0]}", f"y={files[1]}") == ["x", "y"]
    assert main([command, f"x={files[0]}", f"x={files[1]}", *output]) == 2
    # A file of a part of the moments is no second run, and no whole one either.
    rows = json.loads(files[0].read_text())
    files[1].write_text(json.dumps(dict(list(rows.items())[:2])))
    assert rows_of(command, tmp_path, f"x={folder}", f"y={files[0]}") == ["x", "y"]
    files[0].write_text(json.dumps(dict(list(rows.items())[1:])))
    assert main([command, str(folder), *output]) == 2
    assert "answer 1 of the same moments and are not the same" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["score", "report", "leaderboard"])
def test_a_file_that_is_found_twice_counts_once(command: str, tmp_path: Path) -> None:
    folder = evaluation(tmp_path / "results" / "a")
    [record] = folder.glob("*_results.json")
    found = rows_of(command, tmp_path, record), (tmp_path / "out").read_bytes()
    samples = sorted(folder.glob("*_samples_*"))
    assert (rows_of(command, tmp_path, record, *samples), (tmp_path / "out").read_bytes()) == found


@pytest.mark.parametrize("command", ["score", "report", "leaderboard"])
def test_a_file_that_is_given_twice_is_one_run(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "results" / "a"
    folder.mkdir(parents=True)
    file = folder / "charades-timelens.json"
    file.write_text(json.dumps({"a.mp4>>>q>>>[[1, 7]]": {"timestamps": [[1, 6]], "answers": ""}}))
    other = folder / ".." / "a" / file.name
    (alone,) = rows_of(command, tmp_path, file)
    capsys.readouterr()
    assert rows_of(command, tmp_path, file, other, file) == [alone]
    if command != "leaderboard":
        assert f"{other}: given more than once, counts once." in "".join(capsys.readouterr())
    assert rows_of(command, tmp_path, file, folder) == rows_of(command, tmp_path, folder)
    assert len(rows_of(command, tmp_path, f"x={file}", f"y={file}")) == 2


def test_every_run_has_an_average_and_the_figures_of_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation(tmp_path / "a")
    evaluation(tmp_path / "b", answers=("1 - 7 s",) * 4)
    assert main(["score", str(tmp_path), "--reading", "exact", "--json", str(tmp_path / "s.json")]) == 0
    found = {row["name"]: row["miou"] for row in json.loads((tmp_path / "s.json").read_text())["scores"]}
    # [1, 6] of [1, 7] is 5 / 6; the others are no spans. Four moments a task.
    tasks = {f"timelens_bench_{task}" for task in TASKS}
    assert found.keys() == {f"{run}:{name}" for run in "ab" for name in (*tasks, "average")}
    assert found == pytest.approx({name: 5 / 24 if name.startswith("a:") else 1.0 for name in found})
    said = capsys.readouterr().out
    assert "answers without a span, counted with IoU 0: 3 (1 denied, 1 swapped, 1 zero_length)" in said
    assert "No average over all" in said


def test_answers_that_are_no_spans_are_counted_by_kind_everywhere(tmp_path: Path) -> None:
    """The same answers as a samples file, as a result file with predictions, and as one without."""
    folder = evaluation(tmp_path / "a")
    stored = {"timestamps": [[9.0, 2.0]], "answers": ANSWERS[1]}, {"timestamps": [[12, 12]], "answers": ANSWERS[2]}
    keyed = {f"a.mp4>>>q{i}>>>[[1, 7]]": entry for i, entry in enumerate(stored)}
    keyed |= {f"a.mp4>>>q{i}>>>[[1, 7]]": {"timestamps": [], "answers": a} for i, a in enumerate(ANSWERS[1:3], 2)}
    (tmp_path / "r.json").write_text(json.dumps(keyed))
    from_samples = evaluate(
        load_results(folder / "20260101_000000_samples_timelens_bench_charades.jsonl").samples, "exact"
    )
    assert from_samples.failures == {"denied": 1, "swapped": 1, "zero_length": 1}
    for reparse in (False, True):
        results = load_results(tmp_path / "r.json", reparse=reparse)
        assert evaluate(results.samples, "exact").failures == {"swapped": 2, "zero_length": 2}
        assert not results.disagreements


def predict_only(path: Path, task: str, documents: Sequence[int], *, shift: int = 0) -> Path:
    """As ``lmms-eval --predict_only`` writes it: the moments at these places, numbered from 0 if some were left out."""
    docs = moments(task)
    rows = [
        {
            "doc_id": i if shift else place,
            "target": str(docs[place]["spans"]),
            "filtered_resps": "The event happens in 1.0 - 6.0 seconds.",
            "bypass": [[str(docs[place]["spans"])], ["…"]],
            "input": GROUNDING.format(docs[place]["query"]),
        }
        for i, place in enumerate(documents)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_answers_of_predict_only_are_scored_with_their_annotations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = predict_only(tmp_path / "20260101_000000_samples_timelens_bench_charades.jsonl", "charades", [0, 1, 3])
    annotated = annotations(tmp_path, "charades")
    for command in (["score", file], ["report", file, "-o", tmp_path / "r.html"]):
        assert main([str(word) for word in command]) == 2
        assert "--predict_only" in capsys.readouterr().err
    run = load_run(file, "r", annotations=[annotated])
    assert [case.moment.status for case in run.cases] == ["parsed", "parsed", "missing", "parsed"]
    assert {case.moment.predicted for case in run.cases} == {Span(1, 6), None}
    assert evaluate([case.moment for case in run.cases], "exact").miou == pytest.approx(3 * (5 / 6) / 4)


def test_answers_after_moments_that_were_left_out_are_told_by_prompt_and_spans(tmp_path: Path) -> None:
    annotated = annotations(tmp_path, "charades")
    content = json.loads(annotated.read_text())
    content["charades1"]["spans"] = [[2.0, 9.0], [3.0, 9.0]]
    annotated.write_text(json.dumps(content))
    rows = [
        {
            "doc_id": i,
            "target": f"[[{s}, 9.0]]",
            "filtered_resps": "2 - 9 s",
            "bypass": [],
            "input": GROUNDING.format(q),
        }
        for i, (s, q) in enumerate([(2.0, "person closes the door"), (3.0, "person opens the door")])
    ]
    file = tmp_path / "samples_x.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    statuses = [s.status for s in load_results(file, annotations=annotated).samples]
    assert statuses == ["missing", "missing", "parsed", "parsed"]
    file.write_text(json.dumps(rows[0] | {"target": "[[5.0, 9.0]]"}) + "\n")
    with pytest.raises(ValueError, match=r"row 1 .* answers none of the annotations"):
        load_results(file, annotations=annotated)
    # All four moments alike but for their videos: which two were left out cannot be told.
    content["charades1"] = content["charades0"]
    annotated.write_text(json.dumps(content))
    lost = [row | {"doc_id": i + 1, "target": "[[1.0, 7.0]]"} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in lost))
    with pytest.raises(ValueError, match="which of them cannot be told"):
        load_results(file, annotations=annotated)


def test_predict_only_never_stops_a_leaderboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation(tmp_path / "a")
    file = predict_only(tmp_path / "20260101_000000_samples_timelens_bench_charades.jsonl", "charades", [0, 1])
    assert main(["leaderboard", str(tmp_path)]) == 0
    assert "passed over" in (said := capsys.readouterr().err)
    assert "--predict_only" in said
    assert main(["leaderboard", str(file), "--annotations", str(annotations(tmp_path, "charades"))]) == 0
    assert "4 of 3363 annotations" in capsys.readouterr().out


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize("inside", ["[],", '{"a":0},'])
def test_a_row_of_very_much_is_refused_before_it_is_built(keyed: bool, inside: str, tmp_path: Path) -> None:
    body = inside * (12_000_000 // len(inside))
    row = (
        f'{{"a.mp4>>>q>>>[[2, 6]]": {{"timestamps": [{body}[]]}}}}' if keyed else f'{{"doc_id": 0, "mIoU": [{body}0]}}'
    )
    (tmp_path / "r.jsonl").write_text(row)
    code = (
        "import re, sys; from timelens_plugins.results import load_results\n"
        "try: load_results(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        # Not getrusage: a child begins with its parent's figure there.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "r.jsonl"], capture_output=True, text=True, check=True
    )
    said, megabytes = done.stdout.splitlines()
    assert "r.jsonl" in said
    assert "more than 4,194,304" in said or "longer than 4,194,304" in said
    assert int(megabytes) < 900


@pytest.mark.parametrize("text", ["nul\0byte", "half \ud800", "\x1b[31mred", "é 日本 🎬", "a>>>b"])
def test_any_text_is_a_query_a_video_and_a_subset(text: str, tmp_path: Path) -> None:
    doc = moments("charades", 1)[0] | {"query": text, "video_id": text, "subset": text}
    row = {"doc_id": 0, "filtered_resps": text, **process_results(doc, [text])}
    folder = tmp_path / "é"
    folder.mkdir()
    (folder / "samples_x.jsonl").write_text(json.dumps(row) + "\n")
    commands = (["score", "--json", "s.json"], ["report", "-o", "r.html"], ["leaderboard", "-o", "b.json"])
    code = "import sys; from timelens_plugins.cli import main; sys.exit(main(sys.argv[1:]))"
    for words in commands:
        done = subprocess.run(
            [sys.executable, "-c", code, *words, str(folder / "samples_x.jsonl")],
            cwd=tmp_path,
            env=os.environ | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"},
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode == (2 if words[0] == "leaderboard" else 0), done.stderr  # no benchmark of that name
    assert json.loads((tmp_path / "s.json").read_text())["scores"][0]["n"] == 1


def test_files_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    evaluation(tmp_path / "a")
    file = sorted((tmp_path / "a").glob("*.jsonl"))[0]
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], lines[2].replace(b"person", b"pers\xff\xfen"), *lines[3:]]))
    with pytest.raises(ValueError, match=f"{file.name}: line 3: not UTF-8"):
        load_runs([tmp_path])


def test_a_name_for_several_models_and_paths_that_lead_nowhere(tmp_path: Path) -> None:
    evaluation(tmp_path / "a")
    evaluation(tmp_path / "b")
    with pytest.raises(ValueError, match="several models"):
        load_runs([tmp_path], ["x"])
    for path in ("absent", "absent*"):
        with pytest.raises(FileNotFoundError, match="no such file or folder"):
            load_runs([tmp_path / path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no samples of lmms-eval in this folder"):
        load_runs([tmp_path / "empty"])
    for file in (tmp_path / "b").glob("*.jsonl"):
        file.unlink()
    with pytest.raises(ValueError, match=r"scores of timelens_bench_charades.* and no samples"):
        load_runs([tmp_path / "b"])


@pytest.mark.parametrize("task", ["../b/x", "/etc/passwd", "a\0b", "", "\ud800"])
def test_a_record_leads_to_no_samples_but_those_beside_it(
    task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluation(tmp_path / "a")
    evaluation(tmp_path / "b")
    record = folder / "20260101_000000_results.json"
    content = json.loads(record.read_text())
    content["results"] = {task: {}}
    record.write_text(json.dumps(content))
    for file in folder.glob("*.jsonl"):
        file.unlink()
    assert main(["score", str(record)]) == 2
    assert str(record) in capsys.readouterr().err


ODD = (None, 5, "x", [], {}, [[]], {"a": []}, 10**400, float("inf"), float("nan"), "\ud800", "\0", True, -1)


def places(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield place
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*place, key))


def changed(value: Any, place: tuple[str, ...], new: Any) -> Any:
    return {**value, place[0]: changed(value[place[0]], place[1:], new)} if place else new


def test_records_and_rows_with_any_value_anywhere_are_read_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = evaluation(tmp_path / "a")
    record, samples = (
        folder / f"20260101_000000_{name}" for name in ("results.json", "samples_timelens_bench_charades.jsonl")
    )
    whole = json.loads(record.read_text())
    task = "timelens_bench_charades"
    whole |= {"groups": {"g": {}}, "n-samples": {task: {"effective": 4}}}
    whole["configs"][task] |= {"generation_kwargs": {"temperature": 0.5, "do_sample": True, "max_new_tokens": 12}}
    whole["config"] |= {"limit": None, "offset": 0, "gen_kwargs": ""}
    first, *others = [json.loads(line) for line in samples.read_text().splitlines()]
    read = {"mIoU", "doc_id", "filtered_resps", "missing_videos"}
    damaged = [(record, json.dumps(changed(whole, place, odd))) for place in places(whole) for odd in ODD]
    damaged += [
        (samples, "".join(json.dumps(row) + "\n" for row in (changed(first, place, odd), *others)))
        for place in places(first)
        if place and place[0] in read
        for odd in ODD
    ]
    for file, text in damaged:
        good = file.read_text()
        file.write_text(text)
        for command in ("leaderboard", "score"):
            assert main([command, str(tmp_path)]) in (0, 2)
            error = capsys.readouterr().err
            assert not error or str(tmp_path) in error
        file.write_text(good)


def test_difficulty_files_are_scored_with_the_mean_over_the_answers_of_a_moment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tuple(Prediction((Span(0, end),), None, f"0 - {end} s") for end in (5, 10))
    moment = Moment("1", "a.mp4", "a", "q", (Span(0, 10),), 20.0, "s", predictions=answers)
    save_moments([moment], tmp_path / "d.jsonl")
    assert main(["score", str(tmp_path / "d.jsonl"), "--reading", "exact"]) == 0
    assert " 75.0" in capsys.readouterr().out.splitlines()[1]


def test_the_leaderboard_says_the_encoding_that_a_checkpoint_on_this_machine_was_saved_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "processor_config.json").write_text(json.dumps({"encoding": "interleaved_timestamp"}))
    folder = evaluation(tmp_path / "a")
    record = folder / "20260101_000000_results.json"
    record.write_text(record.read_text().replace("pretrained=m", f"pretrained={checkpoint}"))
    assert main(["leaderboard", str(folder)]) == 0
    assert "encoding=interleaved_timestamp, as the checkpoint says today" in capsys.readouterr().out


def test_a_samples_file_that_lost_rows_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A full disk or a copy cuts a file off between two rows, too."""
    folder = evaluation(tmp_path / "run")
    path = folder / "20260101_000000_results.json" if folder.is_dir() else folder
    record = json.loads(path.read_text())
    record["n-samples"] = {task: {"original": 4, "effective": 4} for task in record["results"]}
    path.write_text(json.dumps(record))
    assert not [remark for run in load_runs([path.parent]) for remark in run.remarks if "were evaluated" in remark]
    cut = path.parent / "20260101_000000_samples_timelens_bench_charades.jsonl"
    cut.write_text("".join(cut.read_text().splitlines(True)[:3]))
    said = f"{cut}: the samples file holds 3 rows of the 4 that were evaluated, and the figures are of these"
    for argument in (path.parent, cut):
        assert main(["score", str(argument)]) == 0
        assert said in capsys.readouterr().out
    assert main(["report", str(path.parent), "-o", str(tmp_path / "r.html"), "--no-frames"]) == 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"clip', "no results"])
def test_what_lies_beside_results_and_is_none_is_said(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"clip.mp4>>>a dog barks>>>[[1, 4]]": {"timestamps": [[1, 4]], "answers": "1 - 4 seconds"}}
    (tmp_path / "charades-timelens.json").write_text(json.dumps(whole))
    (tmp_path / "qvhighlights-timelens.json").write_text(content)  # a run that broke off
    said = f"{tmp_path}: passed over, beside results and none themselves: qvhighlights-timelens.json."
    assert main(["score", str(tmp_path)]) == 0
    assert said in capsys.readouterr().out
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    assert said in capsys.readouterr().err
    assert main(["leaderboard", str(tmp_path)]) == 0
    assert said in capsys.readouterr().err


def test_a_benchmark_that_is_no_files_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "charades-timelens.json"
    file.write_text('{"a.mp4>>>a dog barks>>>[[1, 4]]": {"timestamps": [[1, 4]], "answers": "1 - 4 seconds"}}')
    assert main(["leaderboard", str(file), "--benchmark", "charades-timelens"]) == 0
    assert main(["leaderboard", str(file), "--benchmark", "qvhighlights-timelens"]) == 2
    assert "--benchmark qvhighlights-timelens: without effect" in capsys.readouterr().err
