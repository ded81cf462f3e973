"""Two windows of a video with one query and the same spans, which count from each window's start: two annotations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.evaluation.task_functions import mean_exact, mean_official, process_results
from timelens_plugins.metrics import Sample, join_annotations, paired_difference
from timelens_plugins.moments import Moment, Prediction, moments_from_rows, save_moments
from timelens_plugins.results import load_results
from timelens_plugins.results.files import load_file
from timelens_plugins.results.result_file import Case
from timelens_plugins.results.scoring import difference, score_cases
from timelens_plugins.spans import Span

ANSWERS = ("From 0 to 10 seconds.", "From 20 to 30 seconds.")


@pytest.fixture
def moments() -> list[Moment]:
    rows = [
        {"video": "v.mp4", "query": "a man speaks", "start": 0, "end": 10, "video_start": at, "video_end": at + 30}
        for at in (0, 30)
    ]
    return list(moments_from_rows(rows))


def document(moment: Moment) -> dict[str, Any]:
    window = {"video_start": moment.video_start, "video_end": moment.video_end}
    own = {"video_id": moment.video_id, "query": moment.query, "spans": [list(span) for span in moment.spans]}
    return own | window | {"duration": moment.duration, "subset": "s", "flags": [], "missing_videos": 0}


def samples_file(path: Path, moments: list[Moment]) -> tuple[Path, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = [
        {"doc_id": i, "filtered_resps": [answer], **process_results(document(moment), [answer])}
        for i, (moment, answer) in enumerate(zip(moments, ANSWERS, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, [row["mIoU"] for row in rows]


def test_both_count_in_the_official_reading(moments: list[Moment], tmp_path: Path) -> None:
    file, items = samples_file(tmp_path / "samples_x.jsonl", moments)
    assert mean_official(items) == mean_exact(items) == 50.0
    results = load_results(file)
    assert [case.window for case in results.cases] == [(0, 30), (30, 60)]
    scores = score_cases(results.cases, "official")
    assert (scores.n, scores.duplicates_dropped, scores.miou, scores.videos) == (2, 0, 0.5, 1)
    twice = [*results.cases, results.cases[0]]
    assert score_cases(twice, "official").duplicates_dropped == 1, "an exact duplicate is one still"


def test_difficulty_files_of_several_answers_count_both(moments: list[Moment], tmp_path: Path) -> None:
    given = [
        replace(m, predictions=(Prediction((m.spans[0],), 1.0, ANSWERS[0]), Prediction((), 0.0, ANSWERS[1])))
        for m in moments
    ]
    save_moments(given, tmp_path / "d.jsonl")
    cases = load_file(tmp_path / "d.jsonl").cases
    assert [case.window for case in cases] == [(0, 30), (30, 60)]
    assert score_cases(cases, "official").n == 2
    other = replace(cases[0], samples=cases[0].samples[::-1])
    missing = replace(cases[0], samples=(replace(cases[0].moment, predicted=None, status="missing"),))
    for again, differing in ((cases[0], 0), (other, 1), (missing, 0)):
        scores = score_cases([*cases, again], "official")
        assert (scores.n, scores.duplicates_dropped, scores.duplicates_differing) == (2, 1, differing)
    assert score_cases([*cases, other], "exact").duplicates_differing == 0


def test_the_difference_of_runs_of_several_answers_takes_the_answered_duplicate_of_each() -> None:
    def case(query: str, *predicted: Span | None) -> Case:
        target = (Span(0, 10),)
        if not predicted:
            return Case((Sample("v", query, target, None, "missing"),))
        return Case(tuple(Sample("v", query, target, p, "parsed" if p else "unparsed") for p in predicted))

    half, whole = Span(0, 5), Span(0, 10)
    one = [case("q", half, half), case("r", whole, whole), case("q")]
    other = [case("q"), case("r", half, half), case("q", whole, whole)]
    for first, second, expected in ((one, other, 0.0), (one, one, 0.0), ([one[0]] * 2, [other[2], other[0]], 0.5)):
        found = difference(list(zip(first, second, strict=True)), "official")
        assert found is not None
        assert found.miou == pytest.approx(expected)


def test_answers_go_to_their_window(moments: list[Moment], tmp_path: Path) -> None:
    annotations = tmp_path / "moments.jsonl"
    save_moments(moments, annotations)
    file, _ = samples_file(tmp_path / "samples_x.jsonl", moments)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(reversed(lines)))
    joined = load_results(file, annotations=annotations)
    assert [(case.window, case.moment.answer) for case in joined.cases] == [
        ((0, 30), ANSWERS[0]),
        ((30, 60), ANSWERS[1]),
    ]
    file.write_text(lines[1])
    joined = load_results(file, annotations=annotations)
    assert [case.moment.status for case in joined.cases] == ["missing", "parsed"]


def test_results_that_state_no_window_are_given_out_in_order_or_refused(moments: list[Moment]) -> None:
    window = [(m.video_start, m.video_end) for m in moments]
    expected = [Sample("v", "q", m.spans, None, "missing", window=w) for m, w in zip(moments, window, strict=True)]  # type: ignore[arg-type]
    results = [Sample("v", "q", m.spans, None, "unparsed", answer=a) for m, a in zip(moments, ANSWERS, strict=True)]
    joined = join_annotations(expected, results)
    assert [sample.answer for sample in joined.samples] == list(ANSWERS)
    with pytest.raises(ValueError, match=r"1 results for 2 annotations that differ in their windows .* from 0 to 30 s"):
        join_annotations(expected, results[1:])
    assert paired_difference(joined.samples, joined.samples[::-1], "official").miou == 0


@pytest.mark.parametrize("window", [{"video_start": 3.0}, {"video_start": 9.0, "video_end": 3.0}, {"video_end": "9"}])
def test_a_window_that_is_none_is_a_fault_of_its_row(
    window: dict[str, Any], moments: list[Moment], tmp_path: Path
) -> None:
    file, _ = samples_file(tmp_path / "samples_x.jsonl", moments)
    row = json.loads(file.read_text().splitlines()[0])
    row["mIoU"] = {k: v for k, v in row["mIoU"].items() if not k.startswith("video_")} | window
    file.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"row 1, field 'mIoU\.video_start': expected a window"):
        load_results(file)
