"""Readings, recall, intervals, differences and chance levels, against hand-made figures and second implementations."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from timelens_plugins.metrics import (
    READINGS,
    Sample,
    average,
    average_interval,
    chance_levels,
    clustered_interval,
    drop_duplicates,
    evaluate,
    join_annotations,
    paired_difference,
    reading_iou,
    reading_ious,
)
from timelens_plugins.metrics.intervals import t_quantile
from timelens_plugins.spans import Span, temporal_iou


def sample(
    video: str, query: str, target: tuple[float, float], predicted: tuple[float, float] | None, **more: Any
) -> Sample:
    status = "unparsed" if predicted is None else "parsed"
    fields = {"status": status} | more
    return Sample(video, query, (Span(*target),), None if predicted is None else Span(*predicted), **fields)


#         target     prediction     official: rounded, IoU       exact IoU
# A  one  [0, 10]    [0.4, 7.4]     [0, 7]     7 / 10 = 0.7      7 / 10      = 0.7
# A  two  [10, 20]   [12.5, 15.5]   [12, 16]   4 / 10 = 0.4      3 / 10      = 0.3
# B  thr  [5, 15]    [3.2, 3.4]     [3, 3]     0                 0
# B  fou  [0, 4]     none           0                            0
# C  fiv  [20, 30]   [24.4, 34.6]   [24, 35]   6 / 15 = 0.4      5.6 / 14.6  = 0.383562
# C  fiv  the same again            dropped                      0.383562
# official: n 5, mIoU 1.5 / 5 = 0.3;            R1@0.3 3/5, R1@0.5 1/5, R1@0.7 1/5
# exact:    n 6, mIoU 1.767123 / 6 = 0.294521;  R1@0.3 4/6, R1@0.5 1/6, R1@0.7 1/6
HAND_MADE = [
    sample("A", "one", (0, 10), (0.4, 7.4)),
    sample("A", "two", (10, 20), (12.5, 15.5)),
    sample("B", "three", (5, 15), (3.2, 3.4)),
    sample("B", "four", (0, 4), None),
    sample("C", "five", (20, 30), (24.4, 34.6)),
    sample("C", "five", (20, 30), (24.4, 34.6)),
]


def test_hand_made_figures_of_both_readings() -> None:
    official, exact = (evaluate(HAND_MADE, reading) for reading in READINGS)
    assert (official.n, official.videos, official.duplicates_dropped, official.parse_failures) == (5, 3, 1, 1)
    assert official.recall == {0.3: 3 / 5, 0.5: 1 / 5, 0.7: 1 / 5}
    assert official.miou == pytest.approx(0.3)
    assert (exact.n, exact.videos, exact.duplicates_dropped, exact.parse_failures) == (6, 3, 0, 1)
    assert exact.recall == {0.3: 4 / 6, 0.5: 1 / 6, 0.7: 1 / 6}
    assert exact.miou == pytest.approx((0.7 + 0.3 + 2 * 5.6 / 14.6) / 6)
    # Residuals 0.4 + 0.1, -0.3 - 0.3, 0.1 by video; the mean moves by 0.5 / 3, 0.6 / 3, 0.1 / 4 without A, B, C:
    # squares 0.0277778 + 0.04 + 0.000625 = 0.0684028, times 2 / 3 = 0.0456019.
    interval = official.intervals["mIoU"]
    assert interval is not None
    assert interval.standard_error == pytest.approx(math.sqrt(0.0456019), rel=1e-6)
    # 4.302653 standard errors (t, 2 degrees) reach beyond 0 and 1.
    assert interval[:2] == (0.0, 1.0)
    half = evaluate(HAND_MADE, "official", confidence=0.5).intervals["mIoU"]
    assert half is not None
    assert half.high == pytest.approx(0.3 + 0.816497 * math.sqrt(0.0456019), abs=1e-6)


@pytest.mark.parametrize(
    ("predicted", "target", "official"),
    [
        ((2.5, 3.5), (2, 4), 1.0),  # halves go to the even second: [2, 4]
        ((0.5, 1.5), (0, 2), 1.0),  # [0, 2]
        ((3.2, 3.4), (3, 4), 0.0),  # [3, 3] has no length
        ((3.0, 3.0), (3, 3), 0.0),  # zero over zero
        ((4.4, 4.6), (4, 5), 1.0),
        ((24.6, 30.2), (24.5, 30), 5 / 5.5),  # the annotation is not rounded
        (None, (0, 1), 0.0),
    ],
)
def test_rounding_of_the_official_reading(predicted: Any, target: Any, official: float) -> None:
    assert reading_iou(predicted, target, "official") == pytest.approx(official, abs=1e-12)
    assert reading_iou(predicted, target, "exact") == (temporal_iou(predicted, target) if predicted else 0.0)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_whole_seconds_meet_a_threshold_exactly(threshold: float) -> None:
    for scale in range(1, 200):
        hull, overlap = 10 * scale, round(threshold * 10) * scale
        reached = sample("v", "q", (0, hull), (hull - overlap, hull))
        missed = sample("v", "q", (0, hull), (hull - overlap + 1, hull))
        assert evaluate([reached], "exact", [threshold]).recall[threshold] == 1
        assert evaluate([missed], "exact", [threshold]).recall[threshold] == 0


def test_fractions_of_a_second_compare_without_tolerance() -> None:
    assert 18 - 17.3 < 0.7
    assert evaluate([sample("v", "q", (17, 18), (17.3, 18))], "exact").recall[0.7] == 0


def test_best_of_several_windows_counts() -> None:
    windows = (Span(0, 4), Span(20, 30))
    assert reading_iou((20, 28), windows, "exact") == pytest.approx(0.8)
    several = Sample("v", "q", windows, Span(20, 28), "parsed")
    single = sample("v", "r", (0, 4), (0, 2))
    assert reading_ious([several, single], "exact").tolist() == pytest.approx([0.8, 0.5])


spans = st.tuples(st.floats(0, 60), st.floats(0, 60)).map(lambda t: Span(min(t), max(t)))
answers = st.builds(
    lambda video, query, target, predicted: sample(video, query, target, predicted),
    st.sampled_from("ABC"),
    st.sampled_from(["x", "y", " x. "]),
    st.sampled_from([(0, 10), (5, 9)]),
    st.none() | spans,
)


@given(st.lists(answers, min_size=1, max_size=30))
def test_evaluation_equals_a_dictionary_of_results(samples: list[Sample]) -> None:
    """The official reading, written as the benchmark's evaluation works: a dictionary of answers by text key."""
    results = {f"{s.video}>>>{s.query.strip(' .')}>>>{s.target[0]}": s for s in samples}
    ious = []
    for s in results.values():
        (start, end), predicted = s.target[0], s.predicted
        if predicted is None:
            ious.append(0.0)
            continue
        low, high = round(predicted.start), round(predicted.end)
        hull = max(end, high) - min(start, low)
        ious.append(max(min(end, high) - max(start, low), 0) / hull)
    scores = evaluate(samples, "official")
    assert scores.n == len(results)
    assert scores.miou == pytest.approx(sum(ious) / len(ious))
    for threshold in (0.3, 0.5, 0.7):
        assert scores.recall[threshold] == pytest.approx(sum(iou >= threshold for iou in ious) / len(ious))
    exact = evaluate(samples, "exact")
    assert exact.n == len(samples)
    assert reading_ious(samples, "exact").tolist() == [reading_iou(s.predicted, s.target, "exact") for s in samples]
    assert reading_ious(samples, "official").tolist() == [
        reading_iou(s.predicted, s.target, "official") for s in samples
    ]


def test_real_predictions_keep_their_published_iou(real_data: Path) -> None:
    rows = [json.loads(line) for line in _rows(real_data / "difficulty" / "timer1_train_2k5.json")]
    samples = [
        sample(str(i), "q", row["timestamp"], row["pred"]) if row["pred"][0] <= row["pred"][1] else None
        for i, row in enumerate(rows)
    ]
    kept = [(s, row["difficulty"]) for s, row in zip(samples, rows, strict=True) if s is not None]
    assert len(rows) == 2500
    ious = 100 * reading_ious([s for s, _ in kept], "exact")
    assert np.abs(ious - [difficulty for _, difficulty in kept]).max() < 1e-9
    assert all(row["difficulty"] == 0 for s, row in zip(samples, rows, strict=True) if s is None)


def _rows(path: Path) -> list[str]:
    text = path.read_text()
    return [json.dumps(row) for row in json.loads(text)] if text.lstrip().startswith("[") else text.splitlines()


def test_last_answer_to_a_duplicate_counts_and_is_reported() -> None:
    first, last = sample("A", "q", (0, 10), (0, 2)), sample("A", " q. ", (0, 10), (0, 8))
    missing = Sample("A", "q", (Span(0, 10),), None, "missing")
    other_span, other_subset = sample("A", "q", (0, 9), (0, 9)), sample("A", "q", (0, 10), (0, 2), subset="more")
    assert drop_duplicates([first, last, missing, other_span, other_subset]) == [last, other_span, other_subset]
    scores = evaluate([first, last, missing], "official")
    assert (scores.n, scores.duplicates_dropped, scores.duplicates_differing, scores.missing) == (1, 2, 1, 0)
    assert scores.miou == pytest.approx(0.8)
    assert evaluate([first, last, missing], "exact").miou == pytest.approx(1 / 3)


# --- joining answers with annotations


def annotation(video: str, query: str, target: tuple[float, float]) -> Sample:
    return Sample(video, query, (Span(*target),), None, "missing", subset="bench", duration=31.0)


def test_annotations_without_an_answer_are_missing() -> None:
    expected = [annotation("A", "one", (0, 10)), annotation("A", "two.", (0, 10)), annotation("B", "one", (0, 10))]
    joined = join_annotations(expected, [sample("x/B.mp4", " one", (0, 10), (0, 5)), sample("A", "two", (0, 10), None)])
    assert [s.status for s in joined.samples] == ["missing", "unparsed", "parsed"]
    assert {(s.subset, s.duration) for s in joined.samples} == {("bench", 31.0)}
    scores = evaluate(joined.samples, "official")
    assert (scores.n, scores.missing, scores.parse_failures) == (3, 1, 1)
    assert scores.miou == pytest.approx(0.5 / 3)


def test_results_keyed_once_answer_every_duplicate() -> None:
    expected = [annotation("A", "one", (0, 10))] * 2
    joined = join_annotations(expected, [sample("A", "one", (0, 10), (0, 5))])
    assert (joined.repeated, evaluate(joined.samples, "exact").miou) == (1, 0.5)
    two = [sample("A", "one", (0, 10), (0, 5)), sample("A", "one", (0, 10), (0, 6))]
    assert join_annotations(expected, two).repeated == 0
    assert evaluate(join_annotations(expected, two).samples, "exact").miou == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([sample("Z", "one", (0, 10), (0, 5))], "1 of 1 results belong to no annotation, first video 'Z'"),
        ([sample("A", "one", (0, 9), (0, 5))], "annotated as video 'A', query 'one', span \\[0, 10\\]"),
        ([sample("A", "one", (0, 10), (0, 5))] * 2, "2 results for 1 annotation"),
    ],
)
def test_results_without_annotation_are_refused(results: list[Sample], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_annotations([annotation("A", "one", (0, 10))], results)


# --- intervals


def clustered_data(
    generator: np.random.Generator, videos: int, spread: float = 0.6
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Correct or not, with a probability drawn per video (mean 0.4), one to five queries each."""
    sizes = generator.integers(1, 6, videos)
    clusters = np.repeat(np.arange(videos), sizes)
    chances = generator.beta(0.4 / spread, 0.6 / spread, videos)
    return (generator.random(clusters.size) < chances[clusters]).astype(float), clusters


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 30, 1312, 20001])
def test_t_quantile_against_scipy(degrees: int) -> None:
    for probability in (0.5, 0.75, 0.95, 0.975, 0.9995):
        assert t_quantile(probability, degrees) == pytest.approx(stats.t.ppf(probability, degrees), rel=1e-8, abs=1e-9)


def test_single_sample_clusters_give_the_ordinary_t_interval() -> None:
    x = np.random.default_rng(1).random(50)
    low, high, error = clustered_interval(x, list(range(50))) or pytest.fail("no interval")
    assert error == pytest.approx(stats.sem(x))
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 49, x.mean(), stats.sem(x)))


def test_standard_error_against_lmms_eval() -> None:
    lmms = pytest.importorskip("lmms_eval.api.metrics")
    x, _ = clustered_data(np.random.default_rng(2), 60)
    x, clusters = x[:120], np.repeat(np.arange(40), 3)
    interval = clustered_interval(x, clusters)
    assert interval is not None
    n, squares = x.size, float(((x - x.mean()) ** 2).sum())
    # With equal clusters both are sandwich estimates; lmms-eval divides the within-sample part by n (n - 1) and leaves
    # out G / (G - 1).
    theirs = lmms.clustered_stderr(x.tolist(), clusters.tolist()) ** 2 - squares / (n * (n - 1)) + squares / n**2
    assert interval.standard_error**2 == pytest.approx(theirs * 40 / 39)


def test_standard_error_against_leaving_out_each_video() -> None:
    x, clusters = clustered_data(np.random.default_rng(6), 12)
    means = np.array([x[clusters != g].mean() for g in range(12)])
    interval = clustered_interval(x, [f"video {g}" for g in clusters])
    assert interval is not None
    assert interval.standard_error**2 == pytest.approx(11 / 12 * float(((means - x.mean()) ** 2).sum()))


def test_standard_error_against_a_cluster_bootstrap() -> None:
    generator = np.random.default_rng(3)
    x, clusters = clustered_data(generator, 300)
    sums, sizes = np.bincount(clusters, weights=x), np.bincount(clusters)
    drawn = generator.integers(0, 300, (5000, 300))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    interval = clustered_interval(x, clusters)
    assert interval is not None
    assert interval.standard_error == pytest.approx(means.std(), rel=0.04)
    assert interval[:2] == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.005)


@pytest.mark.parametrize("videos", [30, 200])
def test_intervals_hold_the_true_mean_as_often_as_they_say(videos: int) -> None:
    generator = np.random.default_rng(4)
    held = naive = 0
    for _ in range(2000):
        x, clusters = clustered_data(generator, videos)
        low, high, _ = clustered_interval(x, clusters) or pytest.fail("no interval")
        held += low <= 0.4 <= high
        low, high, _ = clustered_interval(x, list(range(x.size))) or pytest.fail("no interval")
        naive += low <= 0.4 <= high
    assert 0.93 < held / 2000 < 0.965  # four standard errors of the simulation are 0.02
    assert naive / 2000 < 0.88  # intervals that ignore the videos are too narrow, which this check can see


def test_values_at_a_bound_keep_a_width() -> None:
    # No success in 10 videos: 1 - 0.025 ** (1 / 10) = 0.3085, as Clopper and Pearson give.
    zeros = clustered_interval(np.zeros(25), [i % 10 for i in range(25)])
    ones = clustered_interval(np.ones(25), [i % 10 for i in range(25)])
    assert zeros is not None
    assert ones is not None
    assert zeros[:2] == pytest.approx((0, stats.binomtest(0, 10).proportion_ci(0.95).high))
    assert ones[:2] == pytest.approx((stats.binomtest(10, 10).proportion_ci(0.95).low, 1))
    assert clustered_interval([0.2, 0.4], ["a", "a"]) is None
    equal = clustered_interval(np.zeros(9), list(range(9)), bounds=(-1, 1))
    assert equal is not None
    assert equal[:2] == (0, 0)


def test_average_weighs_subsets_equally() -> None:
    small = evaluate([sample("A", "q", (0, 10), (0, 10)), sample("B", "q", (0, 10), (0, 5))], "exact")
    large = evaluate([sample(str(i), "q", (0, 10), (0, 1 + i % 2)) for i in range(40)], "exact")
    mean = average([small, large])
    assert mean.miou == pytest.approx((0.75 + 0.15) / 2)
    assert mean.recall == {0.3: 0.5, 0.5: 0.5, 0.7: 0.25}
    assert (mean.n, mean.videos) == (42, 42)
    a, b = small.intervals["mIoU"], large.intervals["mIoU"]
    assert a is not None
    assert b is not None
    interval = mean.intervals["mIoU"]
    assert interval == average_interval([small.miou, large.miou], [a, b])
    assert interval is not None
    assert interval.high - mean.miou == pytest.approx(math.hypot(a.high - 0.75, b.high - 0.15) / 2)
    one_video = evaluate([sample("A", "q", (0, 10), (0, 10))], "exact")
    assert average([one_video, large]).intervals["mIoU"] is None


def test_paired_difference() -> None:
    generator = np.random.default_rng(5)
    a, b = [], []
    for i in range(300):
        end = float(generator.uniform(2, 20))
        worse = max(end - float(generator.uniform(0.0, 1.0)), 0.1)
        a.append(sample(str(i // 3), f"q{i}", (0, 20), (0, end)))
        b.append(sample(str(i // 3), f"q{i}", (0, 20), (0, worse)))
    generator.shuffle(b)  # type: ignore[arg-type]
    for reading in READINGS:
        difference = paired_difference(a, b, reading)
        first, second = evaluate(a, reading), evaluate(b, reading)
        assert (difference.n, difference.videos) == (300, 100)
        assert difference.miou == pytest.approx(first.miou - second.miou)
        assert difference.recall[0.5] == pytest.approx(first.recall[0.5] - second.recall[0.5])
        interval, own = difference.intervals["mIoU"], first.intervals["mIoU"]
        assert interval is not None
        assert own is not None
        assert interval.low > 0  # seen by pairing, though the runs' own intervals overlap by far
        assert own.low < second.miou
        assert paired_difference(b, a, reading).miou == pytest.approx(-difference.miou)
    by_video = defaultdict(list)
    pairs = {s.query: s for s in b}
    for s in a:
        by_video[s.video].append(reading_iou(s.predicted, s.target, "exact"))
        by_video[s.video][-1] -= reading_iou(pairs[s.query].predicted, s.target, "exact")
    # Three queries in every video: the mean of 100 video means, with its ordinary standard error.
    expected = stats.sem([np.mean(values) for values in by_video.values()])
    interval = paired_difference(a, b, "exact").intervals["mIoU"]
    assert interval is not None
    assert interval.standard_error == pytest.approx(expected)


def test_paired_difference_needs_the_same_annotations() -> None:
    with pytest.raises(ValueError, match="1 only in the first, 0 only in the second, for instance video 'C'"):
        paired_difference(HAND_MADE, HAND_MADE[:4], "exact")
    with pytest.raises(ValueError, match=r"\(6 and 5\): 0 only in the first"):
        paired_difference(HAND_MADE, HAND_MADE[:5], "exact")
    assert paired_difference(HAND_MADE, HAND_MADE[:5], "official").miou == 0


# --- chance levels


def test_chance_levels() -> None:
    targets = [(Span(0, 5),), (Span(4, 8), Span(0, 1)), (Span(10, 20),)]
    durations = [10.0, 16.0, 20.0]
    levels = chance_levels(targets, durations)
    assert levels["whole clip"].miou == pytest.approx((5 / 10 + 4 / 16 + 10 / 20) / 3)
    assert levels["whole clip"].recall == {0.3: 2 / 3, 0.5: 2 / 3, 0.7: 0}
    for name, scale in (("best constant span", [20.0 / 20] * 3), ("best relative span", durations)):
        top = 20.0 if name == "best constant span" else 1.0
        best = max(
            np.mean(
                [
                    reading_iou((i / 40 * top * d, j / 40 * top * d), target, "exact")
                    for target, d in zip(targets, scale, strict=True)
                ]
            )
            for i in range(40)
            for j in range(i + 1, 41)
        )
        assert levels[name].miou == pytest.approx(best)
        span = levels[name].span
        assert span is not None
        again = [reading_iou((span.start * d, span.end * d), t, "exact") for t, d in zip(targets, scale, strict=True)]
        assert np.mean(again) == pytest.approx(best)
    assert chance_levels(targets, durations) == levels
    assert chance_levels(targets, durations, seed=1)["random span"] != levels["random span"]


def test_random_span_against_its_expectation() -> None:
    # A target that fills the clip: the IoU is the length of the random span, whose mean is 1/3, and it exceeds t with
    # probability (1 - t)².
    level = chance_levels([(Span(0, 50),)] * 2000, [50.0] * 2000)["random span"]
    assert level.miou == pytest.approx(1 / 3, abs=0.003)
    assert level.recall[0.3] == pytest.approx(0.49, abs=0.005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate([], "exact"), "no samples"),
        (lambda: evaluate(HAND_MADE, "rounded"), "official, exact"),
        (lambda: evaluate(HAND_MADE, "exact", [0.5, 70]), "70"),
        (lambda: evaluate(HAND_MADE, "exact", confidence=95), "95"),
        (lambda: reading_iou((0, 1), (0, 1), "whole"), "whole"),
        (lambda: reading_iou((0, 1), (), "exact"), "at least one"),
        (lambda: evaluate([*HAND_MADE, Sample("v", "q", (), None, "missing")], "exact"), "not in the video, so there"),
        (lambda: Sample("v", "q", (Span(0, 1),), None, "parsed"), "'parsed' does not go"),
        (lambda: Sample("v", "q", (Span(0, 1),), Span(0, 1), "missing"), "'missing' does not go"),
        (lambda: Sample("v", "q", (Span(0, 1),), None, "failed"), "failed"),  # type: ignore[arg-type]
        (lambda: chance_levels([], []), "at least one"),
        (lambda: chance_levels([(Span(0, 1),)], [0.0]), "positive"),
        (lambda: average([]), "no scores"),
    ],
)
def test_refusals(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
