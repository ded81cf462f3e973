"""``timelens score`` end to end: the table, the JSON, what it says about a file, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from timelens_plugins.cli import main

DATA = Path(__file__).parent / "data" / "results"
RESULTS, LMMS = DATA / "timelens.json", DATA / "lmms_eval_samples_timelens_bench_charades.jsonl"


def score(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["score", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_table_shows_both_readings_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    # Worked out by hand in test_metrics.py.
    status, out, _ = score(capsys, RESULTS)
    assert status == 0
    table = out.split("\n\n")[0].splitlines()
    header, official, exact = map(cells, table)
    assert header[:4] == ["reading", "n", "videos", "R1@0.3"]
    assert official[:4] == ["timelens", "official", "5", "3"]
    assert official[4:] == ["60.0", "20.0", "20.0", "30.0", "0.0 – 100.0", "1", "0", "1 dropped"]
    # 0.294521; residual sums 0.410959, -0.589041, 0.178082; moves / 4: variance 2 / 3 * 0.034218, half width 4.3027 SE.
    assert exact == ["exact", "6", "3", "66.7", "16.7", "16.7", "29.5", "0.0 – 94.4", "1", "0", "kept"]
    assert len({len(line) for line in table[1:]}) <= 2
    assert "answers without a span, counted with IoU 0: 1 (" in out


def test_one_reading_only(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = score(capsys, RESULTS, "--reading", "exact")
    assert "official" not in out
    assert len(out.split("\n\n")[0].splitlines()) == 2


def test_annotations_make_missing_answers_count(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    written = tmp_path / "scores.json"
    status, out, _ = score(capsys, RESULTS, "--annotations", DATA / "annotations.json", "--json", written)
    assert status == 0
    _, official, exact = map(cells, out.splitlines()[:3])
    # Two more annotations of IoU 0: 1.5 / 7 and 1.767123 / 8.
    assert (official[2], official[3], official[7]) == ("7", "4", "21.4")
    assert (exact[1], exact[2], exact[6]) == ("8", "4", "22.1")
    assert "annotations without an answer, counted with IoU 0: 2" in out
    assert "video 'DDDDD', query 'a cat jumps', span [2, 8]" in out
    report = json.loads(written.read_text())
    assert [(s["reading"], s["missing"], round(s["miou"], 6)) for s in report["scores"]] == [
        ("official", 2, 0.214286),
        ("exact", 2, 0.22089),
    ]
    assert report["scores"][0]["recall"]["0.3"] == pytest.approx(3 / 7)
    assert [m["video"] for m in report["files"][0]["missing"]] == ["BBBBB", "DDDDD"]


def test_average_over_subsets_of_equal_weight(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"activitynet/x.mp4>>>q>>>[[0, 10]]": {"timestamps": [[0, 9]], "answers": "0 - 9 seconds"}}\n')
    _, out, _ = score(capsys, RESULTS, other)
    rows = [cells(line) for line in out.split("\n\n")[0].splitlines()]
    assert [row[0] for row in rows[1::2]] == ["timelens", "other", "average"]
    assert rows[5][2:8] == ["6", "4", "80.0", "60.0", "60.0", "60.0"]
    assert rows[3][8] == rows[5][8] == "one video"


def test_subsets_within_a_file_are_rows(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    entries = {f"{v}.mp4>>>q>>>[[0, 10]]": {"timestamps": [[0, 5]], "answers": "0 - 5 s"} for v in ("a/x", "b/y")}
    file.write_text(json.dumps(entries))
    _, out, _ = score(capsys, file, "--reading", "exact")
    assert [cells(line)[0] for line in out.splitlines()[1:]] == ["r:a", "r:b", "average"]


def test_runs_on_the_same_videos_are_not_averaged(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = score(capsys, RESULTS, LMMS, DATA / "timelens.jsonl")
    names = [cells(line)[0] for line in out.splitlines()[1:7:2]]
    assert names == [RESULTS.name, f"{LMMS.stem}:timelens_bench_charades", "timelens.jsonl"]
    assert "\naverage" not in out
    assert "No average over all: the rows share videos" in out
    figures = {tuple(cells(line)[-11:]) for line in out.splitlines()[1:7:2]}
    assert len(figures) == 1


def test_disagreements_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    answer = "The event happens in 2.0 - 6.0 seconds."
    keyed = {f"{i}.mp4>>>q>>>[[2, 6]]": {"timestamps": [[3, 6]], "answers": answer} for i in range(7)}
    file.write_text(json.dumps(keyed | {"z.mp4>>>q>>>[[2, 6]]": {"timestamps": [], "answers": answer}}))
    _, out, _ = score(capsys, file, "--json", tmp_path / "out.json")
    assert "stored predictions that are not the first span of the answer: 7; what is stored counts" in out
    assert f"row 1: stored [3, 6], answer [2, 6]: {answer!r}" in out
    assert "… and 2 more" in out
    assert "predictions not stored and read from the answer: 1" in out
    assert len(json.loads((tmp_path / "out.json").read_text())["files"][0]["disagreements"]) == 7
    _, again, _ = score(capsys, file, "--reparse", "--reading", "exact")
    assert cells(again.splitlines()[1])[7] == "100.0"
    assert "what the answer says counts" in again


def test_differing_duplicates_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    row = '"a.mp4>>>q>>>[[0, 10]]": {"timestamps": [[0, %d]], "answers": "0 - %d seconds"}'
    (tmp_path / "r.json").write_text("{" + ", ".join(row % (end, end) for end in (5, 5, 8)) + "}")
    _, out, _ = score(capsys, tmp_path / "r.json")
    assert "duplicates answered differently (the last answer counts in the official reading): 2" in out
    assert cells(out.splitlines()[1])[7] == "80.0"
    assert cells(out.splitlines()[2])[6] == "60.0"


def test_videos_left_out_of_an_evaluation_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "20260101_samples_timelens_bench_charades.jsonl"
    rows = [json.loads(line) | {"missing_videos": {"count": 3}} for line in LMMS.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = score(capsys, file)
    assert "videos absent from the evaluation and left out of it: 3 (with --annotations" in out
    assert cells(out.splitlines()[1])[0] == "timelens_bench_charades"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json"], "absent.json"),
        ([RESULTS, "--annotations", "absent.json"], "absent.json"),
        ([RESULTS, "--annotations", DATA / "annotations.json", RESULTS], "--annotations takes one file, or as many as"),
        ([DATA / "annotations.json"], "8 of 8 moments hold no prediction"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[object], message: str) -> None:
    status, out, err = score(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("timelens score: ")
    assert message in err
    assert err.count("\n") == 1


def test_results_of_other_annotations_are_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        json.dumps({"AAAAA": {"duration": 30.0, "spans": [[0, 9]], "queries": ["person opens a door"]}})
    )
    status, _, err = score(capsys, RESULTS, "--annotations", tmp_path / "a.json")
    assert status == 2
    assert "6 of 6 results belong to no annotation" in err
    assert "annotated as video 'AAAAA', query 'person opens a door', span [0, 9]" in err


def test_unknown_options_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        score(capsys, RESULTS, "--rounding", "1")


def test_a_line_that_is_cut_off_is_said_in_plain_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / LMMS.name
    path.write_text(LMMS.read_text().rstrip()[:-40])
    status, _, err = score(capsys, path)
    assert status == 2
    assert "line 6 is not JSON: Unterminated string starting at column" in err
