"""Events that are not in the video: right, missed and wrong rejections, from the annotations to the report, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripted import answered

from timelens_plugins.cli import main
from timelens_plugins.metrics import Rejections, Sample, count_rejections
from timelens_plugins.moments import AnnotationError, load_moments
from timelens_plugins.spans import Span

# query, spans, answer: IoU 1, 0 (rejected wrongly), 0.5, 0 (unreadable); three absent: right, missed, neither
ROWS: list[tuple[str, list[list[float]], str]] = [
    ("hit", [[0, 10]], "The event happens in 0.0 - 10.0 seconds."),
    ("wrongly rejected", [[0, 10]], "This event is not in the video."),
    ("half", [[0, 10]], "5 - 10 s"),
    ("unreadable", [[0, 10]], "I like cats."),
    ("rightly rejected", [], "视频中没有这个事件。"),
    ("missed", [], "The event happens in 3.0 - 5.0 seconds."),
    ("neither", [], "I like cats."),
]
ABSENT = {"absent_moments": 3, "right_rejections": 100 / 3, "missed_rejections": 100 / 3, "wrong_rejections": 25.0}
COUNTS = Rejections(absent=3, right=1, missed=1, present=4, wrong=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for name in ("a", "b"):
        (folder / f"{name}.mp4").write_bytes(b"a video")
    rows = [{"video": f"{'ab'[i % 2]}.mp4", "query": q, "spans": s, "duration": 30} for i, (q, s, _) in enumerate(ROWS)]
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "present.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["spans"]))
    table = [f"{row['video']};{row['query']};{json.dumps(row['spans'])};{row['duration']}" for row in rows]
    (folder / "own.csv").write_text("\n".join(["video;query;spans;duration", *table]))
    return folder


@pytest.fixture(scope="module")
def evaluated(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    answers = {query: answer for query, _, answer in ROWS}
    found = {}
    for name in ("own.jsonl", "own.csv", "present.jsonl"):
        annotations = folder / name
        found[name], _ = answered(
            ["timelens_custom"], answers, tmp_path_factory.mktemp("cache"), TIMELENS_CUSTOM_ANNOTATIONS=annotations
        )
    return found


def columns(results: dict[str, Any]) -> dict[str, float]:
    row = results["results"]["timelens_custom"]
    return {name.split(",")[0]: value for name, value in row.items() if name.endswith(",none") and "stderr" not in name}


@pytest.fixture(scope="module")
def samples(evaluated: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = evaluated["own.jsonl"]["samples"]["timelens_custom"]
    path = tmp_path_factory.mktemp("out") / "20260101_000000_samples_timelens_custom.jsonl"
    path.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "doc"}, default=str) + "\n" for row in rows)
    )
    return path


def test_columns_of_the_results_table(evaluated: dict[str, dict[str, Any]]) -> None:
    present = columns(evaluated["present.jsonl"])
    assert present["mIoU"] == pytest.approx(100 * 1.5 / 4)
    assert (present["R1@0.5"], present["parse_failures"]) == (50.0, 50.0)
    assert not ABSENT.keys() & present.keys(), "no such row, no such column"
    for name in ("own.jsonl", "own.csv"):
        found = columns(evaluated[name])
        assert found == pytest.approx(present | ABSENT), "the other columns are as without such rows"
        stderr = "mIoU_stderr_clustered,none"
        row, plain = (evaluated[n]["results"]["timelens_custom"] for n in (name, "present.jsonl"))
        assert row[stderr] == plain[stderr] != "N/A"


def test_score_counts_them_apart(
    samples: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "scores.json"
    for more in ((), ("--annotations", str(folder / "own.jsonl"))):
        assert main(["score", str(samples), "--json", str(written), *more]) == 0
        table, apart = capsys.readouterr().out.split("\n\n")[:2]
        cells = table.splitlines()[1].split()
        assert cells[:3] == ["timelens_custom", "official", "4"]
        assert "37.5" in cells
        head, row = apart.splitlines()
        assert head.split("  ")[0] == "not in the video"
        assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
            *("timelens_custom", "3", "1 of 3, 33.3", "1 of 3, 33.3", "1 of 4, 25.0")
        ]
        [counts] = json.loads(written.read_text())["rejections"]
        assert counts == {
            **{"name": "timelens_custom", "absent": 3, "right": 1, "missed": 1, "present": 4, "wrong": 1},
            "rates": {"right": 1 / 3, "missed": 1 / 3, "wrong": 0.25},
        }


def test_rows_of_absent_events_alone(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = samples.read_text().splitlines(keepends=True)
    (tmp_path / samples.name).write_text("".join(rows[4:]))
    assert main(["score", str(tmp_path / samples.name)]) == 0
    said = capsys.readouterr().out
    assert "mIoU" not in said
    assert said.splitlines()[1].split()[-1] == "–", "nothing that could be rejected wrongly"


def test_the_report_has_a_table_of_its_own(samples: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(samples), "-o", str(page)]) == 0
    content = page.read_text()
    assert '"rejections":[{"run":0,' in content
    assert '"absent":3,"right":1,"missed":1,"present":4,"wrong":1' in content


def test_only_an_evaluation_takes_them(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match=r"line 5.*'spans': no span in it; only an evaluation takes"):
        load_moments(folder / "own.jsonl")
    loaded = load_moments(folder / "own.jsonl", allow_absent=True)
    assert [moment.spans for moment in loaded][4:] == [(), (), ()]
    assert loaded.report.flags == {"absent": 3}
    assert main(["convert", str(folder / "own.jsonl"), "--to", "moments", "-o", str(tmp_path / "o.jsonl")]) == 2
    assert "no span in it" in capsys.readouterr().err


def test_counts_by_hand() -> None:
    def sample(target: tuple[Span, ...], predicted: Span | None, failure: str = "") -> Sample:
        return Sample("v", "q", target, predicted, "parsed" if predicted else "unparsed", failure=failure)

    span = Span(0, 10)
    present = [sample((span,), span), sample((span,), None, "denied"), sample((span,), None, "no_span")]
    assert count_rejections(present) is None
    absent = [sample((), None, "denied"), sample((), span), sample((), None, "empty")]
    missing = Sample("v", "q", (), None, "missing")
    assert count_rejections([*present, *absent, missing]) == Rejections(4, 1, 1, 3, 1)
    only = count_rejections(absent)
    assert only is not None
    assert only.rates == {"right": 1 / 3, "missed": 1 / 3, "wrong": None}
