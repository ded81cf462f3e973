"""Rewards: ranges, monotony, and 10,000 random cases against second implementations."""

from __future__ import annotations

import doctest
import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance as scipy_distance

from timelens_plugins import rewards
from timelens_plugins.answers import format_answer
from timelens_plugins.rewards import (
    REWARDS,
    format_reward,
    giou_reward,
    length_ratio_reward,
    parse_penalty,
    set_iou_reward,
    temporal_iou_reward,
    wasserstein_distance,
    wasserstein_reward,
)
from timelens_plugins.spans import Span

CASES = 10_000
RANGES = {"temporal_iou": (0, 1), "set_iou": (0, 1), "giou": (-1, 1), "wasserstein": (0, 1), "length_ratio": (0, 1)}

ticks = st.integers(0, 2000).map(lambda n: n / 10)
spans = st.tuples(ticks, ticks).filter(lambda p: p[0] != p[1]).map(lambda p: Span(min(p), max(p)))
span_sets = st.lists(spans, min_size=1, max_size=5)


def answer(*predicted: tuple[float, float]) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": format_answer(predicted)}]


def test_examples_run() -> None:
    results = doctest.testmod(rewards)
    assert results.failed == 0
    assert results.attempted == len(REWARDS) + 1


def test_no_torch_and_no_trl_are_needed() -> None:
    code = "import sys, timelens_plugins.rewards; print({'torch', 'trl', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@given(span_sets, span_sets, st.sampled_from(sorted(RANGES)))
def test_ranges_and_the_best_answer(predicted: list[Span], target: list[Span], name: str) -> None:
    low, high = RANGES[name]
    exact, other, silent = REWARDS[name](
        [answer(*target), answer(*predicted), "no idea"], spans=[target, target, target], query=["a", "b", "c"]
    )
    assert low <= other <= high
    assert silent == low
    assert exact == pytest.approx(1)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(0, 1500),
    st.integers(0, 300),
    st.integers(1, 50),
    st.sampled_from(["temporal_iou", "set_iou", "giou", "wasserstein"]),
)
def test_sliding_towards_the_target_never_costs(
    length: int, target_length: int, start: int, distance: int, step: int, name: str
) -> None:
    """From either side; centres are compared in half tenths, so that a step never passes the target."""
    step = min(step, distance)
    for side in (-1, 1):
        rewards_there = []
        for away in (distance, distance - step):
            centre2 = 2 * (start + 1000) + target_length + side * 2 * away  # twice the centre, in tenths
            begin = (centre2 - length) / 20
            target = [[(start + 1000) / 10, (start + 1000 + target_length) / 10]]
            text = f"The event happens in {begin!r} - {begin + length / 10!r} seconds."
            rewards_there += REWARDS[name]([text], spans=[target])
        assert rewards_there[1] >= rewards_there[0] - 1e-12
        if name == "wasserstein" and step:
            assert rewards_there[1] > rewards_there[0]


def random_sets(seed: int) -> list[tuple[list[tuple[float, float]], list[tuple[float, float]]]]:
    """Pairs of one to four spans on a clip of 30 s, in tenths of a second."""
    rng = np.random.default_rng(seed)

    def some() -> list[tuple[float, float]]:
        ends = rng.choice(301, (int(rng.integers(1, 5)), 2))
        ends[:, 1] += ends[:, 0] == ends[:, 1]
        return [(int(a) / 10, int(b) / 10) for a, b in np.sort(ends, axis=1)]

    return [(some(), some()) for _ in range(CASES)]


def covered(items: list[tuple[float, float]]) -> NDArray[np.bool_]:
    """Which tenths of a second a set covers: a count instead of a formula."""
    mask = np.zeros(302, dtype=bool)
    for start, end in items:
        mask[round(start * 10) : round(end * 10)] = True
    return mask


def test_ten_thousand_cases_against_second_implementations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "parse_answer", functools.cache(rewards.parse_answer))  # five rewards, one reading
    cases = random_sets(0)
    columns: dict[str, Any] = {"spans": [target for _, target in cases], "query": ["a red ball rolls"] * CASES}
    completions = [answer(*predicted) for predicted, _ in cases]
    found = {name: np.array(REWARDS[name](completions, **columns)) for name in RANGES}
    expected: dict[str, list[float]] = {name: [] for name in RANGES if name != "wasserstein"}
    distances, bounds, lengths = [], [], []
    middles = np.arange(302) / 10 + 0.05
    for predicted, target in cases:
        p, t = covered(predicted), covered(target)
        expected["set_iou"].append((p & t).sum() / (p | t).sum())
        distances.append(scipy_distance(middles[p], middles[t]))
        # Inside a cell the distribution functions differ by a straight line where scipy's points differ by its middle:
        # not the same where the line changes sign, at most once between neighbouring ends of spans.
        bounds.append(2 * (len(predicted) + len(target)) * 0.1 * (1 / p.sum() + 1 / t.sum()) / 4)
        lengths.append(t.sum() / 10)
        expected["length_ratio"].append(min(p.sum(), t.sum()) / max(p.sum(), t.sum()))
        first = covered(predicted[:1])
        ious, gious = [], []
        for span in target:
            one = covered([span])
            both = first | one
            hull = np.flatnonzero(both)[-1] - np.flatnonzero(both)[0] + 1
            ious.append((first & one).sum() / both.sum())
            gious.append(ious[-1] - (hull - both.sum()) / hull)
        expected["temporal_iou"].append(max(ious))
        expected["giou"].append(max(gious))
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-9, err_msg=name)
    error = -np.log(found["wasserstein"]) * lengths - distances
    assert (np.abs(error) <= np.array(bounds) + 1e-9).all()
    assert np.abs(error).max() > 1e-4  # the bound is about something
    assert (np.abs(error) < 1e-9).sum() > CASES / 10  # cases without such cells agree to rounding


def test_the_closed_form_equals_scipys_on_a_grid_as_fine_as_asked() -> None:
    """The difference to point masses shrinks with the grid, down to rounding: no constant part is missing."""
    for predicted, target in random_sets(1)[:200]:
        exact = wasserstein_distance(predicted, target)
        errors = []
        for parts in (1, 8, 64):
            grid = (np.arange(302 * parts) + 0.5) / (10 * parts)
            p, t = (np.repeat(covered(side), parts) for side in (predicted, target))
            errors.append(abs(scipy_distance(grid[p], grid[t]) - exact))
        assert errors[2] < 1e-4
        assert errors[2] <= errors[0] + 1e-9


@given(span_sets, span_sets, span_sets)
def test_the_distance_is_a_metric(a: list[Span], b: list[Span], c: list[Span]) -> None:
    assert wasserstein_distance(a, a) == 0
    assert wasserstein_distance(a, b) == pytest.approx(wasserstein_distance(b, a), abs=1e-9)
    assert wasserstein_distance(a, c) <= wasserstein_distance(a, b) + wasserstein_distance(b, c) + 1e-9


def test_the_recipes_rules() -> None:
    target = [[4, 8]]
    reward = functools.partial(temporal_iou_reward, spans=[target])
    assert reward(["The event happens in 4.0 - 8.0, 0.0 - 30.0 seconds."]) == [1.0]  # several: the first
    assert reward(["The event happens in 6.0 - 6.0 seconds."]) == [0.0]
    assert reward(["I see 2 - 3 cups."]) == [0.0]
    assert reward([""]) == [0.0]
    assert reward(["The event happens in 4.0 - 12.0 seconds."], duration=[8.0]) == [0.5]  # an overrun is not cut
    assert temporal_iou_reward(["From 4 to 8 seconds."], spans=[[[0, 1], [4, 8]]]) == [1.0]  # any target is right


def test_failures_and_form() -> None:
    assert parse_penalty(["nothing", answer((1, 2))], spans=[[[0, 1]]] * 2) == [-1.0, 0.0]
    good = "<think>red\nblue</think>\n<answer>2 - 6 s</answer>\n"
    bad = [
        "<think>a</think>",
        "<answer>a</answer><think>b</think>",
        "so: " + good,
        good + "and",
        "<think>a<think>b</think><answer>c</answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<THINK>a</THINK><answer>b</answer>",
    ]
    assert format_reward([good, *bad]) == [1.0, *[0.0] * len(bad)]
    assert format_reward(["<think>" * 20000]) == [0.0]  # linear in the length of the text


@pytest.mark.parametrize("reward", [temporal_iou_reward, set_iou_reward, giou_reward, wasserstein_reward])
def test_snapping(reward: Callable[..., list[float]]) -> None:
    times = [[0.0, 2.0, 4.0, 6.0, 8.0]]
    text, target = ["The event happens in 2.0 - 6.0 seconds."], [[[2.4, 4.9]]]
    assert reward(text, spans=target)[0] < 1
    assert reward(text, spans=target, times=times) == [1.0]
    assert reward(text, spans=target, times=[None]) == reward(text, spans=target)
    loose = ["The event happens in 2.9 - 5.1 seconds."]
    assert reward(loose, spans=target, times=times)[0] < 1
    assert functools.partial(reward, snap_predictions=True)(loose, spans=target, times=times) == [1.0]
    with pytest.raises(ValueError, match="column 'times'"):
        reward(loose, spans=target, snap_predictions=True)


def test_a_target_beyond_the_sampled_times_has_no_length() -> None:
    columns: dict[str, Any] = {"spans": [[[9.0, 12.0]]], "times": [[0.0, 4.0, 8.0]]}
    text = ["The event happens in 9.0 - 12.0 seconds."]
    assert wasserstein_reward(text, **columns) == [0.0]
    assert wasserstein_reward(text, **columns, snap_predictions=True) == [1.0]
    assert temporal_iou_reward(text, **columns) == length_ratio_reward(text, **columns) == [0.0]


def test_wrong_columns_are_errors() -> None:
    with pytest.raises(ValueError, match="without spans"):
        temporal_iou_reward([answer((1, 2))], spans=[[]])
    with pytest.raises(ValueError, match="zip"):
        temporal_iou_reward([answer((1, 2))] * 2, spans=[[[0, 1]]])


extreme = st.floats(0, 1e15) | st.sampled_from((0.0, 5e-324, 1e-300, 1.0, 1e15))
extreme_spans = st.lists(st.tuples(extreme, extreme).map(lambda p: Span(min(p), max(p))), min_size=1, max_size=3)


@given(
    st.sampled_from(sorted(REWARDS)),
    extreme_spans,
    st.text(max_size=40) | st.tuples(extreme, extreme).map(lambda p: f"{p[0]:.9f} - {p[1]} seconds")
    | st.sampled_from(("1e400 - 2e400", "0 - 999999999 h", "1e-320 to 1e-310 s", "0.0000000001 - 0.0000000002")),
)  # fmt: skip
def test_no_reward_is_infinite_or_no_number(name: str, target: list[Span], text: str) -> None:
    """Whatever a model writes, and however small or long the target is."""
    (value,) = REWARDS[name]([text], spans=[target])
    low, high = rewards.REWARD_RANGES[name]
    assert low <= value <= high
