"""Difficulty files of every origin, and everything that can be wrong with one: an error with file, row and remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from timelens_plugins.difficulty import load_estimates
from timelens_plugins.difficulty.rows import difficulty_row
from timelens_plugins.moments import AnnotationError, Moment, load_moments, moments_from_rows

ANNOTATIONS = [
    {
        "source": "s",
        "video_path": f"s/v{v}.mp4",
        "duration": 60.0,
        "events": [{"query": f"event {q}", "span": [[10.0 * q, 10.0 * q + 5]]} for q in range(3)],
    }
    for v in range(2)
]
SETTINGS = {"model": "m", "fps": 2.0}


@pytest.fixture
def moments() -> list[Moment]:
    return list(moments_from_rows(ANNOTATIONS, video_root="videos"))


def rows_of(moments: list[Moment], **settings: Any) -> list[dict[str, Any]]:
    answers = ["The event happens in 10.0 - 12.5 seconds.", "0 to 5 seconds", "no"]
    return [
        difficulty_row(m, [answers[i % 3], answers[(i + 1) % 3]], SETTINGS | settings, "videos")
        for i, m in enumerate(moments)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def fault(path: Path, moments: list[Moment], **options: Any) -> str:
    with pytest.raises(AnnotationError) as caught:
        load_estimates(path, moments, **options)
    message = str(caught.value)
    assert str(path) in message
    assert ";" in message  # what to do about it
    return message


def test_own_rows_come_back_in_the_order_of_the_moments(tmp_path: Path, moments: list[Moment]) -> None:
    rows = rows_of(moments)
    estimates = load_estimates(write(tmp_path / "d.jsonl", rows[::-1]), moments, settings={"model": "m"})
    assert estimates.ids == tuple(m.id for m in moments)
    np.testing.assert_allclose(estimates.mean, [row["iou"] for row in rows])
    np.testing.assert_allclose(estimates.std, [row["iou_std"] for row in rows])
    assert set(estimates.answers) == {2}


def test_rows_have_the_fields_of_timelens(moments: list[Moment]) -> None:
    row = rows_of(moments)[1]
    assert list(row)[:9] == [
        "source", "data_type", "video_path", "duration", "query", "span", "pred", "answer", "iou"
    ]  # fmt: skip
    assert row["video_path"] == "s/v0.mp4"
    assert row["span"] == [[10.0, 15.0]]
    assert row["pred"] == [[0.0, 5.0]]
    assert row["ious"] == [0.0, 0.0]
    first = rows_of(moments)[0]
    assert first["pred"] == [[10.0, 12.5]]
    (loaded,) = moments_from_rows([row], video_root="videos")
    assert (loaded.id, loaded.video) == (moments[1].id, moments[1].video)


def test_time_r1s_real_predictions(real_data: Path) -> None:
    path = real_data / "difficulty" / "timer1_train_2k5.json"
    moments = load_moments(path)
    estimates = load_estimates(path, moments)
    truth = [row["difficulty"] / 100 for row in json.loads(path.read_text())]
    np.testing.assert_allclose(estimates.mean, truth)
    assert set(estimates.answers) == {1}


def test_timelens_and_timelens2_files() -> None:
    folder = Path(__file__).parents[1] / "data" / "moments"
    for name, counts in (("difficulty.jsonl", [1, 1, 1, 2]), ("timelens2_rollouts.jsonl", [3])):
        estimates = load_estimates(folder / name, load_moments(folder / name))
        assert estimates.answers.tolist() == counts


def test_rows_of_timelens_fit_the_moments_of_its_annotations(tmp_path: Path, moments: list[Moment]) -> None:
    rows = rows_of(moments)
    for row in rows:
        for own in ("id", "video_id", "settings", "preds", "answers", "ious", "iou_std"):
            del row[own]
        row["iou"] = 0.25
    assert set(load_estimates(write(tmp_path / "d.jsonl", rows), moments).mean) == {0.25}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("iou", None, "iou"),
        ("iou", float("nan"), "must be finite"),
        ("iou", 1.5, "between 0 and 1"),
        ("iou", -0.1, "between 0 and 1"),
        ("ious", [0.5, float("nan")], "must be finite"),
        ("ious", [0.5, 7], "between 0 and 1"),
        ("ious", [], "no IoU"),
    ],
)
def test_an_iou_that_is_none(tmp_path: Path, moments: list[Moment], field: str, value: Any, says: str) -> None:
    rows = rows_of(moments)
    rows[3] |= {field: value}
    if field == "iou":
        for name in ("ious", "answers", "preds"):
            del rows[3][name]
    message = fault(write(tmp_path / "d.jsonl", rows), moments)
    assert says in message
    assert re.search(r"(row|line) 4", message)


def test_a_file_without_ious(tmp_path: Path, moments: list[Moment]) -> None:
    path = tmp_path / "annotations.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ANNOTATIONS))
    with pytest.raises(ValueError, match="no IoU"):
        load_estimates(path, moments)


def test_a_moment_that_is_not_in_the_data(tmp_path: Path, moments: list[Moment]) -> None:
    message = fault(write(tmp_path / "d.jsonl", rows_of(moments)), moments[:4])
    assert "line 5" in message
    assert "not in the data" in message
    assert "event 1" in message


def test_a_moment_that_stands_twice(tmp_path: Path, moments: list[Moment]) -> None:
    rows = rows_of(moments)
    message = fault(write(tmp_path / "d.jsonl", [*rows, rows[2]]), moments)
    assert "stands twice" in message
    for row in rows:
        del row["id"]
    message = fault(write(tmp_path / "e.jsonl", [*rows, rows[2]]), moments)
    assert "line 7" in message
    assert "repeats a moment of an earlier row" in message


def test_rows_of_two_models(tmp_path: Path, moments: list[Moment]) -> None:
    rows = [*rows_of(moments)[:4], *rows_of(moments, model="n", fps=4.0)[4:]]
    message = fault(write(tmp_path / "d.jsonl", rows), moments)
    assert "line 5" in message
    assert "fps: 2.0, here 4.0; model: 'm', here 'n'" in message


def test_rows_of_another_model_than_the_one_to_train(tmp_path: Path, moments: list[Moment]) -> None:
    path = write(tmp_path / "d.jsonl", rows_of(moments))
    assert "model: 'm', here 'n'" in fault(path, moments, settings={"model": "n"})
    assert "fingerprint: None, here 'f'" in fault(path, moments, settings={"fingerprint": "f"})
    rows = rows_of(moments)
    for row in rows:
        del row["settings"]
    assert "does not say which model" in fault(write(tmp_path / "e.jsonl", rows), moments, settings={"model": "m"})
    assert len(load_estimates(tmp_path / "e.jsonl", moments).ids) == 6


def test_moments_without_a_row(tmp_path: Path, moments: list[Moment], caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "d.jsonl", rows_of(moments)[:4])
    assert f"2 of 6 moments have no row, such as {moments[4].id!r}" in fault(path, moments)
    estimates = load_estimates(path, moments, on_missing="drop")
    assert estimates.ids == tuple(m.id for m in moments[:4])
    assert "no estimate for 2 of 6 moments" in caplog.text


def test_a_last_line_cut_off_by_a_kill(tmp_path: Path, moments: list[Moment], caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "d.jsonl", rows_of(moments))
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    estimates = load_estimates(path, moments, on_missing="drop")
    assert len(estimates.ids) == 5
    assert "line 6 was cut off by a kill and is dropped" in caplog.text
    lines = whole.decode().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:-40], *lines[3:], ""]))
    assert "line 3" in fault(path, moments, on_missing="drop")
