"""Weights against closed forms, draws against probability, the released selection, and the sampler against TRL's."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from timelens_plugins.difficulty import (
    DURATION_EDGES,
    Difficulty,
    Weighting,
    draw,
    gaussian_weights,
    hard_weights,
    select_moments,
    stratified_draw,
)
from timelens_plugins.difficulty.sampler import DifficultySampler
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.spans import Span


def moments_of(durations: list[float | None]) -> list[Moment]:
    return [
        Moment(f"m{i}", f"v{i}.mp4", f"v{i}", "q", (Span(0, 1),), duration, "s") for i, duration in enumerate(durations)
    ]


def skewed_ious(n: int, seed: int = 0) -> np.ndarray:
    """Many failures, some good answers, as models give."""
    rng = np.random.default_rng(seed)
    iou = np.where(rng.random(n) < 0.5, rng.beta(0.5, 6, n), rng.beta(3, 1.2, n))
    return np.where(rng.random(n) < 0.2, 0.0, iou)


# ---------------------------------------------------------------- weights


def test_a_million_draws_follow_the_gaussian_within_two_percent() -> None:
    """Whatever the data: the share of bin i among the draws is the Gaussian's mass on it, on [0, 1]."""
    iou = np.random.default_rng(1).beta(0.7, 1.6, 200_000)  # all bins filled, smooth inside each
    weights = gaussian_weights(iou)
    counts = np.zeros(20)
    for seed in range(200):  # small parts of the data, as drawing most of it leaves nothing to choose
        counts += np.histogram(iou[draw(weights, 5000, seed)], bins=20, range=(0, 1))[0]
    share = counts / counts.sum()
    edges = np.linspace(0, 1, 21)
    mass = np.diff(erf((edges - 0.05) / (0.2 * np.sqrt(2))))
    mass /= mass.sum()
    assert counts.sum() == 1_000_000
    assert np.abs(share - mass).sum() / 2 < 0.02
    large = mass > 0.03
    np.testing.assert_allclose(share[large], mass[large], rtol=0.02)
    assert np.abs(np.histogram(iou, bins=20, range=(0, 1))[0] / len(iou) - mass).sum() / 2 > 0.2  # the data do not


def test_the_weight_of_a_bin_does_not_depend_on_how_many_moments_it_holds() -> None:
    iou = np.array([0.01] * 900 + [0.36] * 9 + [0.96])
    weights = gaussian_weights(iou, mean=0.3, std=0.2)
    total = {value: weights[iou == value].sum() for value in (0.01, 0.36, 0.96)}
    for a, b in itertools.combinations(total, 2):
        expected = np.exp(-((a - 0.3) ** 2 - (b - 0.3) ** 2) / (2 * 0.04))
        assert total[a] / total[b] == pytest.approx(expected)


def test_uncertainty_gives_the_expected_weight() -> None:
    """Against the average weight over many true IoUs around the estimate."""
    rng = np.random.default_rng(0)
    for value, error in ((0.1, 0.05), (0.5, 0.15), (0.4, 0.0)):
        averaged = np.exp(-((value + error * rng.standard_normal(400_000) - 0.05) ** 2) / (2 * 0.04)).mean()
        (weight,) = gaussian_weights([value], bins=None, uncertainty=[error])
        assert weight == pytest.approx(averaged, rel=0.01)


def test_the_hard_weights_are_those_of_timelens2() -> None:
    mean, std = np.array([0.0, 0.2, 0.9]), np.array([0.0, 0.3, 0.1])
    np.testing.assert_allclose(hard_weights(mean), [1.0, 0.64, 0.01])
    np.testing.assert_allclose(hard_weights(mean, std, a=1, b=2), [0.0, 0.8 * 0.09, 0.1 * 0.01])


@pytest.mark.parametrize("bad", [np.nan, -0.01, 1.01, np.inf])
def test_what_is_no_iou_is_an_error_that_says_where(bad: float) -> None:
    for weights in (gaussian_weights, hard_weights):
        with pytest.raises(ValueError, match=r"(iou|mean) 1 is .* not between 0 and 1"):
            weights([0.5, bad])
    with pytest.raises(ValueError, match="'m1' has the difficulty"):
        select_moments(moments_of([10, 20]), Difficulty(np.array([0.1, bad])), 1)


def test_settings_that_cannot_work_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown sampling method 'gauss'"):
        Weighting(method="gauss")
    with pytest.raises(ValueError, match="positive standard deviation"):
        gaussian_weights([0.5], std=0)
    with pytest.raises(ValueError, match="estimate with samples >= 2"):
        Weighting("hard", b=1.0).weights(Difficulty(np.array([0.5])))
    with pytest.raises(ValueError, match="estimate with samples >= 2"):
        hard_weights([0.5], [np.nan], b=1.0)
    with pytest.raises(ValueError, match="standard errors"):
        Weighting(uncertainty=True).weights(Difficulty(np.array([0.5])))


# ---------------------------------------------------------------- draws


def test_draws_have_the_chances_of_drawing_one_after_the_other() -> None:
    weights = np.array([1.0, 2.0, 5.0])
    pairs = Counter(tuple(draw(weights, 2, seed)) for seed in range(20_000))
    for a, b in itertools.permutations(range(3), 2):
        chance = weights[a] / 8 * weights[b] / (8 - weights[a])
        assert pairs[a, b] / 20_000 == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 20_000))


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=40),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_draws_are_different_indices_of_positive_weight_and_extend_each_other(
    weights: list[float], share: float, seed: int
) -> None:
    positive = sum(w > 0 for w in weights)
    count = int(share * positive)
    drawn = draw(weights, count, seed)
    assert len(set(drawn.tolist())) == len(drawn) == count
    assert all(weights[i] > 0 for i in drawn)
    assert drawn.tolist() == draw(weights, positive, seed)[:count].tolist()
    with pytest.raises(ValueError, match="cannot draw"):
        draw(weights, positive + 1, seed)


def test_weights_of_very_different_size_keep_their_order() -> None:
    assert draw([1e-300, 1.0, 1e300], 3, 0).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="weight 1 is nan"):
        draw([1.0, np.nan], 1, 0)
    with pytest.raises(ValueError, match="weight 0 is -1"):
        draw([-1.0, 1.0], 1, 0)


def test_a_hundred_thousand_moments_take_less_than_a_second() -> None:
    iou = skewed_ious(100_000)
    durations = np.random.default_rng(0).uniform(5, 500, 100_000)
    best = np.inf
    for _ in range(3):  # other work on the machine only ever adds
        begin = time.perf_counter()
        stratified_draw(gaussian_weights(iou), durations, 2500, 0)
        best = min(best, time.perf_counter() - begin)
    assert best < 1.0


# ---------------------------------------------------------------- the released selection


def test_the_released_selection_takes_2493_of_2500() -> None:
    """Nine bins of duration with 2500 // 9 = 277 each, IoUs in each as the Gaussian says."""
    n = 100_000
    iou = skewed_ious(n, seed=3)
    durations = np.random.default_rng(4).gamma(2.0, 55.0, n) + 5
    moments = moments_of(durations.tolist())
    selection = select_moments(moments, Difficulty(iou), 2500, seed=1)
    places = np.digitize(durations[selection.indices], DURATION_EDGES)
    assert len(selection.indices) == len(set(selection.indices.tolist())) == 2493
    assert np.bincount(places, minlength=9).tolist() == [277] * 9
    assert [b.quota for b in selection.bins] == [277] * 9
    # The target of the whole set, computed without this package: Gaussian over the filled bins of the data.
    filled = np.histogram(iou, bins=20, range=(0, 1))[0] > 0
    expected = np.array([np.exp(-((iou[(iou * 20).astype(int) == i] - 0.05) ** 2) / 0.08).mean() for i in range(20)])
    expected = np.where(filled, expected, 0) / expected[filled].sum()
    drawn = np.histogram(iou[selection.indices], bins=20, range=(0, 1))[0] / 2493
    assert np.abs(drawn - expected).sum() / 2 < 0.05  # 2,493 draws: sampling noise of about 0.03
    again = select_moments(moments, Difficulty(iou), 2500, seed=1)
    other = select_moments(moments, Difficulty(iou), 2500, seed=2)
    assert selection.indices.tolist() == again.indices.tolist() != other.indices.tolist()
    assert "2493 moments instead of 2500" in selection.summary()


def test_real_predictions_before_and_after(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moments = load_moments(real_data / "difficulty" / "timer1_train_2k5.json")
    iou = np.array([m.iou for m in moments])
    selection = select_moments(moments, Difficulty(iou), 450, seed=0)
    with capsys.disabled():
        print(f"\n{selection.summary()}\n{selection.histogram()}")
    durations = np.array([moments[i].duration for i in selection.indices])
    bins = np.bincount(np.digitize(durations, DURATION_EDGES), minlength=9)
    assert len(moments) == 2500
    assert bins.tolist() == [b.drawn for b in selection.bins]
    for b in selection.bins:
        assert b.drawn == min(50, b.moments)
    assert iou[selection.indices].mean() < iou.mean()
    filled = select_moments(moments, Difficulty(iou), 450, strata="duration_filled", seed=0)
    assert len(filled.indices) == 450


def test_real_predictions_follow_the_closed_form(real_data: Path) -> None:
    """Four at a time: the hardest bin has 53 moments, so a larger draw would change what is left of it."""
    moments = load_moments(real_data / "difficulty" / "timer1_train_2k5.json")
    iou = np.array([m.iou for m in moments])
    drawn = np.zeros(20)
    weights = gaussian_weights(iou)
    for seed in range(6000):
        chosen = draw(weights, 4, seed)
        drawn += np.histogram(iou[chosen], bins=20, range=(0, 1))[0]
    places = np.minimum((iou * 20).astype(int), 19)
    expected = np.array([np.exp(-((iou[places == i] - 0.05) ** 2) / 0.08).mean() for i in range(20)])
    assert np.abs(drawn / drawn.sum() - expected / expected.sum()).sum() / 2 < 0.02


# ---------------------------------------------------------------- bins and what is missing


@settings(max_examples=80, deadline=None)
@given(counts=st.lists(st.integers(0, 30), min_size=9, max_size=9), target=st.integers(1, 300))
def test_redistributed_quotas_reach_the_target_and_are_as_equal_as_the_bins_allow(
    counts: list[int], target: int
) -> None:
    middles = [0.0, *DURATION_EDGES]
    durations = np.repeat(np.array(middles) + 1, counts)
    chosen, reports = stratified_draw(np.ones(len(durations)), durations, target, 0, redistribute=True)
    assert len(chosen) == min(target, sum(counts))
    drawn = [r.drawn for r in reports]
    assert drawn == [r.quota for r in reports]
    most = max(drawn)
    assert all(d == c or d >= most - 1 for d, c in zip(drawn, counts, strict=True))
    if target < 9:
        with pytest.raises(ValueError, match="less than one moment for each of the 9 bins of duration"):
            stratified_draw(np.ones(len(durations)), durations, target, 0)
        return
    as_released, _ = stratified_draw(np.ones(len(durations)), durations, target, 0)
    assert len(as_released) == sum(min(c, target // 9) for c in counts)


def test_an_empty_bin_all_equal_ious_and_a_large_target_are_said(caplog: pytest.LogCaptureFixture) -> None:
    moments = moments_of([20.0] * 50 + [100.0] * 50)
    equal = Difficulty(np.full(100, 0.25))
    selection = select_moments(moments, equal, 18)
    assert len(selection.indices) == 4
    assert "no moment lasts [30, 60)" in caplog.text
    assert "all moments have the IoU 0.25" in caplog.text
    assert "4 moments instead of 18" in caplog.text
    assert "duration_filled" in caplog.text
    assert len(select_moments(moments, equal, 18, strata="duration_filled").indices) == 18
    caplog.clear()
    assert len(select_moments(moments, equal, 1000).indices) == 100
    assert "target 1000 is larger than the data: all 100" in caplog.text
    caplog.clear()
    assert select_moments(moments, equal, None).indices.tolist() == list(range(100))
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_what_equal_ious_mean_for_the_draw_is_said_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    moments = moments_of([20.0] * 10)

    def notes(difficulty: Difficulty, weighting: Weighting) -> str:
        return "\n".join(select_moments(moments, difficulty, 3, weighting=weighting, strata="none").notes)

    half, spread = np.full(10, 0.5), np.linspace(0.0, 0.3, 10)
    assert "difficulty does not tell them apart, the draw is uniform" in notes(Difficulty(half), Weighting("hard"))
    solved = notes(Difficulty(np.ones(10)), Weighting("hard"))
    assert "all moments have the IoU 1, and none has a weight above 0: nothing can be drawn" in solved
    undecided = notes(Difficulty(half, spread=spread), Weighting("hard", b=1.0))
    assert undecided == "all moments have the IoU 0.5: what tells them apart is the spread of a moment's answers alone"
    unsure = notes(Difficulty(half, error=spread), Weighting(uncertainty=True))
    assert unsure == "all moments have the IoU 0.5: what tells them apart is the error of an estimate alone"
    alike = notes(Difficulty(np.linspace(0, 0.9, 10)), Weighting("hard", a=0.0))
    assert alike == "all moments have the same weight: difficulty does not tell them apart, the draw is uniform"
    assert not notes(Difficulty(np.linspace(0, 0.9, 10)), Weighting("hard"))
    assert "uniform" not in solved + undecided + unsure


def test_moments_of_weight_zero_are_never_drawn_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    moments = moments_of([20.0] * 10)
    solved = Difficulty(np.array([1.0] * 7 + [0.2] * 3))
    selection = select_moments(moments, solved, 5, weighting=Weighting("hard"), strata="none")
    assert selection.indices.tolist() == [7, 8, 9]
    assert "7 moments have weight 0" in caplog.text


def test_bins_need_durations() -> None:
    moments = moments_of([20.0, None, 30.0])
    with pytest.raises(ValueError, match=r"1 of 3 moments have no duration, such as 'm1'.*strata: none"):
        select_moments(moments, Difficulty(np.full(3, 0.5)), 2)
    assert len(select_moments(moments, Difficulty(np.full(3, 0.5)), 2, strata="none").indices) == 2
    with pytest.raises(ValueError, match="duration 0 is -3"):
        stratified_draw([1.0], [-3.0], 1, 0)
    with pytest.raises(ValueError, match="strata must be one of"):
        select_moments(moments, Difficulty(np.full(3, 0.5)), 2, strata="length")
    with pytest.raises(ValueError, match="target_size must be at least 1"):
        select_moments(moments, Difficulty(np.full(3, 0.5)), 0)
    with pytest.raises(ValueError, match="3 moments and 2 estimates"):
        select_moments(moments, Difficulty(np.full(2, 0.5)), 1)


# ---------------------------------------------------------------- the sampler


def sampler_of(weights: np.ndarray, **options: int) -> DifficultySampler:
    return DifficultySampler(lambda: weights, len(weights), **{"prompts": 4, "generations": 3, "repeats": 2} | options)


def test_rows_come_as_from_trls_sampler() -> None:
    from trl.trainer.utils import RepeatSampler

    ours = list(sampler_of(np.ones(19)))
    theirs = list(RepeatSampler(range(19), mini_repeat_count=3, batch_size=4, repeat_count=2, seed=0))
    assert len(ours) == len(theirs) == len(sampler_of(np.ones(19)))

    def pattern(rows: list[int]) -> list[list[int]]:
        """Rows of each generation batch by order of first appearance, which leaves how they repeat."""
        batches = [rows[i : i + 24] for i in range(0, len(rows), 24)]
        return [[list(dict.fromkeys(batch)).index(row) for row in batch] for batch in batches]

    assert pattern(ours) == pattern(theirs)


def test_ranks_draw_the_same_groups_and_each_group_is_whole_on_one() -> None:
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    shards: list[list[list[int]]] = []
    for rank in range(2):
        sampler = sampler_of(np.arange(1.0, 33.0), generations=4, repeats=1)
        batches = BatchSampler(sampler, batch_size=8, drop_last=False)
        shards.append(list(BatchSamplerShard(batches, num_processes=2, process_index=rank)))
    assert len(shards[0]) == len(shards[1]) == 8
    whole = sampler_of(np.arange(1.0, 33.0), generations=4, repeats=1)
    for number, (a, b) in enumerate(zip(*shards, strict=True)):
        for rows in (a, b):
            assert [rows[i] for i in (0, 4)] == [row for i in (0, 4) for row in {*rows[i : i + 4]}]
        assert [*a[::4], *b[::4]] == whole.batch(0, number)
        assert len({*a, *b}) == 4


def test_draws_follow_the_weights_of_the_moment() -> None:
    weights = np.ones(50)
    sampler = DifficultySampler(lambda: weights, 50, prompts=5)
    order = sampler.order(0)
    first = list(itertools.islice(order, 5))
    weights[:] = 1e-12
    weights[40:45] = 1.0
    assert sorted(itertools.islice(order, 5)) == [40, 41, 42, 43, 44]
    assert sampler.batch(0, 0) == first


def test_a_resumed_run_draws_what_the_other_would_have_drawn() -> None:
    """The dataloader is a batch ahead when the checkpoint is written, and passes over the first ones afterwards."""

    def train(sampler: DifficultySampler, weights: np.ndarray, start: int, stop: int) -> list[list[int]]:
        seen, ahead = [], [sampler.batch(1, n) for n in range(start + 1)][start]
        for number in range(start, stop):
            current, ahead = ahead, sampler.batch(1, number + 1)
            weights[current] *= 0.25
            seen.append(current)
        return seen

    weights = np.ones(60)
    whole = DifficultySampler(lambda: weights, 60, prompts=4, seed=5)
    expected = train(whole, weights, 0, 12)

    weights = np.ones(60)
    first = DifficultySampler(lambda: weights, 60, prompts=4, seed=5)
    assert train(first, weights, 0, 7) == expected[:7]
    state = first.state_dict()
    second = DifficultySampler(lambda: weights, 60, prompts=4, seed=5)
    second.load_state_dict(state)
    assert train(second, weights, 7, 12) == expected[7:]
    third = DifficultySampler(lambda: weights, 60, prompts=4, seed=6)
    with pytest.raises(ValueError, match="saved with seed=5, this run has 6"):
        third.load_state_dict(state)


def test_a_sampler_that_cannot_fill_a_batch_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="3 prompts, fewer than the 4"):
        sampler_of(np.ones(3))
    with caplog.at_level(logging.WARNING, "timelens_plugins"):
        short = sampler_of(np.array([1.0, 3.0] + [0.0] * 6))
        batches = [short.batch(0, number) for number in range(400)]
    assert caplog.text.count("2 of 8 prompts have a weight above 0, and a generation batch takes 4") == 1
    assert all({0, 1} == set(batch[:2]) and len(set(batch)) == 4 for batch in batches)
    counts = np.bincount([index for batch in batches for index in batch[2:]], minlength=8)[2:]
    assert counts.min() > 90
    assert len(set(sampler_of(np.zeros(8)).batch(0, 0))) == 4
    with pytest.raises(ValueError, match="weight 0 is -1"):
        sampler_of(np.array([-1.0] + [0.0] * 7)).batch(0, 0)
    with pytest.raises(ValueError, match="weights of shape"):
        DifficultySampler(lambda: np.ones(3), 8, prompts=2).batch(0, 0)
