"""Files into runs: which belong together, what a file says about itself, and the command from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_runs import make_samples

from timelens_plugins.cli import main
from timelens_plugins.metrics import Sample, reading_iou
from timelens_plugins.results import Run, load_results, load_run, load_runs
from timelens_plugins.results.scoring import score_cases

DATA = Path(__file__).parents[1] / "data"
RESULTS = DATA / "results" / "timelens.json"


def write_samples(path: Path, samples: list[Sample]) -> Path:
    """As lmms-eval logs the samples of this package's tasks."""
    rows = [
        {
            "doc_id": i,
            "filtered_resps": [s.answer or ""],
            "mIoU": {
                "video": s.video,
                "query": s.query,
                "span": [list(span) for span in s.target],
                "pred": s.predicted and list(s.predicted),
                "status": "parsed" if s.predicted else "no_span",
                "duration": s.duration,
                "subset": "timelens_bench",
            },
        }
        for i, s in enumerate(samples)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def page_data(path: Path) -> dict[str, Any]:
    text = path.read_text().split('id="data">', 1)[1].split("</script>", 1)[0]
    data: dict[str, Any] = json.loads(text)
    return data


def test_results_of_timelens_keep_their_samples() -> None:
    run = load_run(RESULTS, "run")
    assert [case.moment for case in run.cases] == list(load_results(RESULTS).samples)
    assert run.single


def test_files_that_lmms_eval_wrote_together_are_one_run(tmp_path: Path) -> None:
    files = [
        write_samples(tmp_path / model / f"{time}_samples_timelens_bench_{task}.jsonl", make_samples(3))
        for model, time in (("sft", "20260101_000000"), ("rlvr", "20260102_000000"))
        for task in ("charades", "activitynet")
    ]
    runs = load_runs(files)
    assert [run.name for run in runs] == ["sft", "rlvr"]
    assert [len(run.cases) for run in runs] == [6, 6]
    subsets = {case.moment.subset for case in runs[0].cases}
    assert subsets == {"timelens_bench_charades", "timelens_bench_activitynet"}
    named = load_runs([files[0], files[3]], ["all"] * 2)
    assert [(run.name, len(run.cases)) for run in named] == [("all", 6)]
    [twice] = load_runs(files, ["all"] * 4)
    assert (len(twice.cases), len(twice.notes)) == (6, 2)


def write_settings(folder: Path, time: str, tasks: str, arguments: object, **config: object) -> None:
    """As lmms-eval records an evaluation beside its samples."""
    generation = {"max_new_tokens": 32, "until": []}
    content = {
        "results": {task: {} for task in tasks},
        "config": {"model": "timelens", "model_args": arguments, "limit": None, "gen_kwargs": "", **config},
        "configs": {task: {"task": task, "generation_kwargs": generation} for task in tasks},
    }
    (folder / f"{time}_results.json").write_text(json.dumps(content))


def test_of_a_folder_the_newest_evaluation_counts_where_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for time, count in (("20260101_000000", 3), ("20260301_120000", 4)):
        for task in "ab":
            write_samples(folder / f"{time}_samples_{task}.jsonl", make_samples(count))
    [run] = load_runs([tmp_path])
    assert (run.name, len(run.cases), run.warnings) == ("model", 8, ())
    [note] = run.notes
    assert "not shown: 20260101_000000_samples_a.jsonl, 20260101_000000_samples_b.jsonl" in note
    write_samples(tmp_path / "other" / "20260101_000000_samples_b.jsonl", make_samples(5))
    assert [(run.name, len(run.cases)) for run in load_runs([tmp_path])] == [("model", 8), ("other", 5)]
    with pytest.raises(ValueError, match="several models"):
        load_runs([tmp_path], ["one name"])


def test_parts_of_several_evaluations_are_told_with_their_dates_and_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path / "20260101_000000_samples_a.jsonl", make_samples(3))
    write_samples(tmp_path / "20260101_000000_samples_b.jsonl", make_samples(5))
    write_samples(tmp_path / "20260301_120000_samples_a.jsonl", make_samples(4))
    parts = "put together from 2 evaluations: a of 2026-03-01 12:00:00; b of 2026-01-01 00:00:00."
    [run] = load_runs([tmp_path])
    assert len(run.cases) == 9
    assert parts in run.warnings[0]
    assert "not known: no results file beside" in run.warnings[0]
    write_settings(tmp_path, "20260101_000000", "ab", "pretrained=m,fps=2.0,device=cuda:0", batch_size="1")
    write_settings(tmp_path, "20260301_120000", "a", {"pretrained": "m", "fps": "2.0"}, batch_size="8")
    [run] = load_runs([tmp_path])
    assert run.warnings == ()
    assert f"{parts} Their settings are the same." in run.notes[0]
    assert "not shown: 20260101_000000_samples_a.jsonl" in run.notes[1]
    write_settings(tmp_path, "20260301_120000", "a", "pretrained=m,fps=4.0,min_tokens=16", limit=4)
    [run] = load_runs([tmp_path])
    [warning] = run.warnings
    assert "Their settings differ: " in warning
    assert "fps 4.0 (2026-03-01 12:00:00), 2.0 (2026-01-01 00:00:00)" in warning
    assert "min_tokens 16 (2026-03-01 12:00:00), unset (2026-01-01 00:00:00)" in warning
    assert "limit 4 (" in warning
    assert "max_new_tokens" not in warning
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    assert f"timelens report: warning: {warning}\n" in capsys.readouterr().err
    assert page_data(tmp_path / "r.html")["warnings"] == [warning]


def test_samples_of_other_tasks_in_a_folder_are_passed_over_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(tmp_path / "20260101_000000_samples_timelens_bench_charades.jsonl", make_samples(3))
    foreign = tmp_path / "other_model" / "20260301_000000_samples_mvbench_action_count.jsonl"
    foreign.parent.mkdir()
    foreign.write_text(json.dumps({"doc_id": 0, "filtered_resps": ["A"], "mvbench_accuracy": {"score": 1}}) + "\n")
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "r.html")]) == 0
    note = f"{tmp_path}: passed over, samples of other tasks: {foreign.name}."
    assert f"timelens report: note: {note}\n" in capsys.readouterr().err
    data = page_data(tmp_path / "r.html")
    assert note in data["notes"]
    assert len(data["moments"]["query"]) == 3
    with pytest.raises(ValueError, match=r"row 1.*mIoU"):
        load_runs([foreign])
    with pytest.raises(ValueError, match=f"no samples of moments.*{foreign.name}"):
        load_runs([foreign.parent])


def test_broken_samples_in_a_folder_are_not_passed_over(tmp_path: Path) -> None:
    write_samples(tmp_path / "20260101_000000_samples_a.jsonl", make_samples(3))
    (tmp_path / "20260101_000000_samples_b.jsonl").write_text('{"doc_id": 0, "mIoU": {"video": "v"}}\n')
    with pytest.raises(ValueError, match=r"samples_b\.jsonl: row 1, field 'mIoU': lacks"):
        load_runs([tmp_path])


def test_equal_names_get_more_of_their_paths(tmp_path: Path) -> None:
    files = [write_samples(tmp_path / folder / "samples.jsonl", make_samples(2)) for folder in ("a", "b")]
    assert [run.name for run in load_runs(files)] == ["a/samples", "b/samples"]
    first, second = load_runs([RESULTS, RESULTS], annotations=[RESULTS.with_name("annotations.json")] * 2)
    assert first.name != second.name
    assert len(load_runs([RESULTS, RESULTS])) == 1


def test_difficulty_rows_with_one_and_several_answers() -> None:
    run = load_run(DATA / "moments" / "difficulty.jsonl", "difficulty")
    rows = [json.loads(line) for line in (DATA / "moments" / "difficulty.jsonl").read_text().splitlines()]
    assert [len(case.samples) for case in run.cases] == [len(row.get("ious", [0])) for row in rows]
    for case, row in zip(run.cases, rows, strict=True):
        recorded = row.get("ious", [row.get("iou")])
        found = [reading_iou(s.predicted, s.target, "exact") for s in case.samples]
        assert found == pytest.approx(recorded, abs=0.01)
        assert case.window == (None if row.get("video_start") is None else (row["video_start"], row["video_end"]))


def test_real_predictions_score_as_recorded(real_data: Path) -> None:
    path = real_data / "difficulty" / "timer1_train_2k5.json"
    rows = json.loads(path.read_text())
    run = load_run(path, "Time-R1")
    found = score_cases(run.cases, "exact")
    assert found is not None
    assert len(run.cases) == 2500
    assert found.miou == pytest.approx(sum(row["difficulty"] for row in rows) / 2500 / 100)
    assert sum(case.window is not None for case in run.cases) == 665
    assert not any("recorded IoUs" in note for note in run.notes)


def test_unlike_recorded_ious_are_told(tmp_path: Path) -> None:
    row = {"video_path": "a.mp4", "query": "x", "span": [[0, 10]], "pred": [[0, 5]], "iou": 0.9, "duration": 20}
    (tmp_path / "d.jsonl").write_text(json.dumps(row) + "\n")
    run = load_run(tmp_path / "d.jsonl", "d")
    assert "1 recorded IoUs are not those" in run.remarks[0]


def test_annotations_add_durations_and_missing_answers(tmp_path: Path) -> None:
    annotations = {"A": {"duration": 30.0, "spans": [[0, 5], [6, 9]], "queries": ["opens", "closes"]}}
    (tmp_path / "a.json").write_text(json.dumps(annotations))
    results = {"A.mp4>>>opens>>>[[0, 5]]": {"timestamps": [[0, 4]], "answers": "0 - 4"}}
    (tmp_path / "r.json").write_text(json.dumps(results))
    [run] = load_runs([tmp_path / "r.json"], annotations=[tmp_path / "a.json"])
    assert [(case.moment.status, case.moment.duration) for case in run.cases] == [("parsed", 30.0), ("missing", 30.0)]
    assert load_run(tmp_path / "r.json", "r").cases[0].moment.duration is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"A": {"duration": 30.0, "spans": [[0, 5]], "queries": ["opens"]}}', "hold no prediction.*--annotations"),
        ('{"doc_id": 0, "acc": 1}', "row 1.*mIoU"),
        ("not json", "no known annotation format"),
    ],
)
def test_files_that_are_neither_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_run(tmp_path / "x.json", "x")


def test_counts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one name for each of the 1"):
        load_runs([RESULTS], ["a", "b"])
    with pytest.raises(ValueError, match="--annotations takes one file"):
        load_runs([RESULTS], annotations=[RESULTS, RESULTS])
    with pytest.raises(ValueError, match="no samples of lmms-eval"):
        load_runs([tmp_path])
    with pytest.raises(ValueError, match="no file"):
        load_runs([])


def test_command_writes_a_page_and_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    a = write_samples(tmp_path / "a.jsonl", make_samples(12, seed=1))
    b = write_samples(tmp_path / "b.jsonl", make_samples(12, seed=2))
    state = tmp_path / "rlvr" / "trainer_state.json"
    state.parent.mkdir()
    history = [{"step": i, "reward": 0.1 * i, "samples": 8 * i} for i in range(1, 6)]
    state.write_text(json.dumps({"log_history": history, "max_steps": 5}))
    out = tmp_path / "report.html"
    command = ["report", a, b, "-o", out, "--name", "SFT", "RLVR", "--training", state, "--charts", tmp_path / "charts"]
    assert main([str(part) for part in command]) == 0
    assert "SFT: 12 moments, RLVR: 12 moments" in capsys.readouterr().out
    data = page_data(out)
    assert [run["name"] for run in data["runs"]] == ["SFT", "RLVR"]
    assert data["title"] == "SFT · RLVR"
    assert data["training"][0]["name"] == "rlvr"
    names = {path.name for path in (tmp_path / "charts").iterdir()}
    expected = ("miou", "differences", "by_length", "iou", "errors", "training-1")
    assert names == {f"{name}{suffix}" for name in expected for suffix in (".png", ".svg")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--frames", "4", "--no-frames"], "exclude each other"),
        (["--strips", "3", "--no-frames"], "exclude each other"),
        (["--frame-budget", "2"], "--frame-budget needs --videos"),
        (["--videos", "/no/such/folder"], "there is no folder of videos"),
        (["--training", "/no/such/file.json"], "there is no such file or folder"),
    ],
)
def test_command_complains_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["report", str(RESULTS), "-o", str(tmp_path / "r.html"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("timelens report: ")
    assert not (tmp_path / "r.html").exists()


def test_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    from timelens_plugins.report import write_report

    with pytest.raises(ValueError, match="different names"):
        write_report([Run("a", ()), Run("a", ())], tmp_path / "r.html")
