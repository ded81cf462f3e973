"""Every number of the page is that of the metrics; runs are matched, never mixed."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_runs import make_run, make_samples

from timelens_plugins.metrics import READINGS, average, chance_levels, evaluate, paired_difference, reading_iou
from timelens_plugins.report.figures import bin_edges, by_facet, differences, headline, overlaps
from timelens_plugins.report.payload import nearest_target, payload, strip_order
from timelens_plugins.report.strips import Strips
from timelens_plugins.report.table import tabulate
from timelens_plugins.results import Case, Run
from timelens_plugins.results.scoring import difference, score_cases
from timelens_plugins.spans import Span

NO_STRIPS = Strips({}, 0, ())


def page_data(runs: list[Run]) -> dict[str, Any]:
    table = tabulate(runs)
    return payload(table, [None] * len(table.rows), {}, NO_STRIPS, [], title="t")


def repeated(run: Run) -> Run:
    """With the first annotation once more, answered otherwise: the official reading counts it once."""
    again = dataclasses.replace(run.cases[0].moment, predicted=Span(0, 1), status="parsed")
    return Run(run.name, (*run.cases, Case((again,))))


def test_headline_figures_are_those_of_evaluate(runs: list[Run]) -> None:
    runs = [repeated(run) for run in runs]
    blocks = headline(tabulate(runs))
    assert [block["title"] for block in blocks] == ["All moments", "Average of the subsets", "charades", "activitynet"]
    for block, (i, run), reading in itertools.product(blocks, enumerate(runs), READINGS):
        samples = [case.moment for case in run.cases]
        parts = [[s for s in samples if s.subset == subset] for subset in ("charades", "activitynet")]
        if block["title"] == "Average of the subsets":
            expected = average([evaluate(part, reading) for part in parts])
        else:
            expected = evaluate([s for s in samples if block["subset"] in (None, s.subset)], reading)
        found = block["runs"][i][reading]
        assert found["n"] == expected.n
        assert (found["unparsed"], found["missing"]) == (expected.parse_failures, expected.missing)
        assert found["metrics"]["mIoU"]["value"] == expected.miou
        assert found["metrics"]["R1@0.5"]["value"] == expected.recall[0.5]
        for name, interval in expected.intervals.items():
            assert interval is not None
            assert found["metrics"][name]["ci"] == [interval.low, interval.high]


def test_chance_is_that_of_the_moments(runs: list[Run]) -> None:
    [level] = headline(tabulate(runs))[0]["chance"]
    samples = [case.moment for case in runs[0].cases]
    expected = chance_levels([s.target for s in samples], [s.duration or 0 for s in samples], "exact")
    assert level["runs"] == [0, 1]
    for name in ("best constant span", "random span"):
        assert level["readings"]["exact"][name]["mIoU"] == expected[name].miou


def test_chance_is_not_known_without_durations() -> None:
    samples = [dataclasses.replace(sample, duration=None) for sample in make_samples(9)]
    data = page_data([Run.from_samples("run", samples)])
    assert data["headline"][0]["chance"][0]["readings"]["official"] is None
    assert {facet["name"]: facet["unknown"] for facet in data["facets"]} == {"duration": 9, "length": 0, "share": 9}


def test_differences_are_those_of_paired_difference(runs: list[Run]) -> None:
    [pair] = differences(tabulate(runs))
    assert (pair["shared"], pair["only_a"], pair["only_b"]) == (60, 0, 0)
    a, b = ([case.moment for case in run.cases] for run in runs)
    for reading in READINGS:
        expected = paired_difference(b, a, reading)
        found = pair["parts"][0]["readings"][reading]["metrics"]["mIoU"]
        interval = expected.intervals["mIoU"]
        assert interval is not None
        assert found == {"value": expected.miou, "ci": [interval.low, interval.high]}
    assert pair["parts"][0]["readings"]["exact"]["metrics"]["mIoU"]["value"] > 0.05


def test_runs_over_different_moments_are_compared_on_the_shared_ones_and_it_is_said(runs: list[Run]) -> None:
    first, second = Run("a", runs[0].cases[:40]), Run("b", runs[1].cases[10:])
    table = tabulate([first, second])
    [pair] = differences(table)
    assert (pair["shared"], pair["only_a"], pair["only_b"]) == (30, 10, 20)
    assert overlaps(table) == {"moments": 60, "in_all": 30, "not_in_all": 30}
    shared = [
        [case.moment for case in run.cases] for run in (Run("", runs[0].cases[10:40]), Run("", runs[1].cases[10:40]))
    ]
    expected = paired_difference(shared[1], shared[0], "official")
    assert pair["parts"][0]["readings"]["official"]["metrics"]["mIoU"]["value"] == expected.miou
    chance = headline(table)[0]["chance"]
    assert [level["runs"] for level in chance] == [[0], [1]]


def test_runs_without_a_common_moment_have_no_difference(runs: list[Run]) -> None:
    [pair] = differences(tabulate([Run("a", runs[0].cases[:5]), Run("b", runs[1].cases[5:9])]))
    assert pair["shared"] == 0
    assert pair["parts"][0]["readings"]["official"] is None


def test_subsets_of_other_names_and_paths_are_matched_and_it_is_said() -> None:
    samples = make_samples(12)
    other = [
        dataclasses.replace(s, subset="task_" + s.subset, video=f"{s.subset}/{s.video}.mp4", query=f" {s.query}. ")
        for s in reversed(samples)
    ]
    table = tabulate([Run.from_samples("a", samples), Run.from_samples("b", other)])
    assert len(table.rows) == 12
    assert table.subsets == ["charades", "activitynet"]
    assert len(table.notes) == 2
    assert "task_charades" in table.notes[0] + table.notes[1]
    assert all(row.cases[0].moment.target == row.cases[1].moment.target for row in table.rows)  # type: ignore[union-attr]


def test_moments_that_only_their_subset_tells_apart_stay_apart() -> None:
    sample = make_samples(1)[0]
    twin = dataclasses.replace(sample, subset="original")
    table = tabulate([Run.from_samples("a", [sample, twin]), Run.from_samples("b", [twin])])
    assert [row.subset for row in table.rows] == [sample.subset, "original"]
    assert [row.cases[1] is None for row in table.rows] == [True, False]


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(0, 1000))
def test_several_answers_count_as_their_mean(answers: int, seed: int) -> None:
    columns = [make_samples(12, seed=seed + k) for k in range(answers)]
    cases = [Case(samples) for samples in zip(*columns, strict=True)]
    for reading in READINGS:
        found = score_cases(cases, reading)
        assert found is not None
        each = [evaluate(column, reading) for column in columns]
        assert found.miou == pytest.approx(np.mean([one.miou for one in each]))
        assert found.recall[0.3] == pytest.approx(np.mean([one.recall[0.3] for one in each]))
        assert (found.n, found.videos) == (each[0].n, each[0].videos)


def test_answers_without_a_span_are_counted_beside_all_answers() -> None:
    good = make_samples(3, failures=0.0)
    failed = [dataclasses.replace(s, predicted=None, status="unparsed") for s in good]
    missing = [dataclasses.replace(s, status="missing") for s in failed]
    run = Run("k", tuple(Case((a, b, b, c)) for a, b, c in zip(good, failed, missing, strict=True)))
    for table in (
        tabulate([run]),
        tabulate([Run("k", run.cases * 2)]),
    ):  # repetitions count once in the official reading
        counts = headline(table)[0]["runs"][0]["official"]
        assert {name: counts[name] for name in ("n", "answers", "unparsed", "missing")} == {
            "n": 3,
            "answers": 9,
            "unparsed": 6,
            "missing": 3,
        }


def test_the_same_answer_several_times_is_as_good_as_once(runs: list[Run]) -> None:
    for reading in READINGS:
        thrice = [Case(case.samples * 3) for case in runs[0].cases]
        once, found = score_cases(runs[0].cases, reading), score_cases(thrice, reading)
        assert once is not None
        assert found is not None
        assert found.miou == pytest.approx(once.miou)
        assert found.intervals["mIoU"] == pytest.approx(once.intervals["mIoU"])
        pairs = list(zip(runs[0].cases, runs[1].cases, strict=True))
        tripled = [(Case(a.samples * 3), b) for a, b in pairs]
        plain, paired = difference(pairs, reading), difference(tripled, reading)
        assert plain is not None
        assert paired is not None
        assert paired.intervals["mIoU"] == pytest.approx(plain.intervals["mIoU"])


def test_bins_hold_every_moment_once_and_their_mean_is_the_whole(runs: list[Run]) -> None:
    for facet, (i, run) in itertools.product(by_facet(tabulate(runs)), enumerate(runs)):
        bins = [found for found in facet["runs"][i]["exact"] if found is not None]
        total = sum(found["n"] for found in bins)
        assert total == 60
        whole = evaluate([case.moment for case in run.cases], "exact").miou
        assert sum(found["n"] * found["miou"] for found in bins) / total == pytest.approx(whole)


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=200))
def test_bin_edges_ascend_and_no_bin_is_empty(values: list[float]) -> None:
    edges = bin_edges(np.array(values))
    assert edges[0] == min(values)
    assert edges[-1] == max(values)
    assert edges[1:-1] == sorted(set(edges[1:-1]))
    inner = np.searchsorted(edges[1:-1], values, side="right")
    assert set(inner) == set(range(len(edges) - 1))


def test_answers_of_the_page_have_the_ious_of_both_readings(runs: list[Run]) -> None:
    data = page_data([repeated(run) for run in runs])
    assert data["runs"][0]["duplicates"] == [0]
    for (i, run), (place, case) in itertools.product(enumerate(runs), enumerate(runs[0].cases)):
        sample = run.cases[place].moment
        [[_, start, end, official, exact, target, text]] = data["runs"][i]["answers"][place]
        assert sample.target == case.moment.target
        assert (start, end) == (sample.predicted or (None, None))
        assert official == pytest.approx(reading_iou(sample.predicted, sample.target, "official"), abs=1e-6)
        assert exact == pytest.approx(reading_iou(sample.predicted, sample.target, "exact"), abs=1e-6)
        assert target == 0
        assert data["texts"][text] == sample.answer


def test_of_several_targets_the_best_is_compared_with_and_else_the_nearest() -> None:
    sample = dataclasses.replace(make_samples(1)[0], target=(Span(0, 4), Span(10, 14), Span(20, 30)), status="parsed")
    assert nearest_target(dataclasses.replace(sample, predicted=Span(12, 21))) == 1
    assert nearest_target(dataclasses.replace(sample, predicted=Span(16, 19))) == 1
    assert nearest_target(dataclasses.replace(sample, predicted=Span(31, 35))) == 2


def test_long_answers_are_cut_and_say_so() -> None:
    sample = dataclasses.replace(make_samples(1)[0], answer="x" * 5000)
    [text] = page_data([Run.from_samples("a", [sample])])["texts"]
    assert text.endswith("(3,000 more characters)")


def test_empty_and_failed_runs_have_a_page(runs: list[Run]) -> None:
    failed = [dataclasses.replace(s, predicted=None, status="unparsed") for s in make_samples(6)]
    data = page_data([Run("empty", ()), Run.from_samples("failed", failed)])
    assert data["headline"][0]["runs"][0]["official"] is None
    found = data["headline"][0]["runs"][1]["official"]
    assert (found["unparsed"], found["metrics"]["mIoU"]["value"]) == (6, 0.0)
    assert page_data([Run("empty", ())])["moments"]["query"] == []


def test_frames_go_to_the_clips_that_differ_most_and_the_worst_first(tmp_path: Any) -> None:
    good, bad = make_run("a", 30, noise=0.1, failures=0.0), make_run("b", 30, noise=0.1, failures=0.0)
    worst = dataclasses.replace(bad.cases[17].moment, predicted=Span(0, 0.1))
    bad = Run("b", (*bad.cases[:17], Case((worst,)), *bad.cases[18:]))
    table = tabulate([good, bad])
    clips = [tmp_path / row.video for row in table.rows]
    order = strip_order(table, clips)
    assert order[0] == (clips[17], None)
    assert sorted(order) == sorted({(clip, None) for clip in clips})
    assert strip_order(table, [None] * 30) == []
