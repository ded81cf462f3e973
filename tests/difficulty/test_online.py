"""Online difficulty: what rewards teach it, on every process alike, and across a resume."""

from __future__ import annotations

import json

import numpy as np
import pytest

from timelens_plugins.difficulty import Estimates, OnlineDifficulty, Weighting

IDS = [f"m{i}" for i in range(6)]


def feed(online: OnlineDifficulty, name: str, rewards: list[float], times: int = 1) -> None:
    for _ in range(times):
        online.update([name] * len(rewards), rewards)


def test_easy_and_hopeless_moments_lose_their_weight() -> None:
    online = OnlineDifficulty(IDS, half_life=1000)
    for _ in range(20):
        feed(online, "m0", [1.0] * 8)
        feed(online, "m1", [0.0] * 8)
        feed(online, "m2", [0.0, 1.0] * 4)
        feed(online, "m3", [0.4, 0.6] * 4)
    easy, hopeless, undecided, steady, unseen, _ = online.weights()
    assert undecided > 5 * easy
    assert undecided > 2 * hopeless
    assert undecided > steady > easy
    assert easy < unseen < undecided  # what was never drawn is taken for average


def test_the_estimate_is_the_weighted_mean_written_out() -> None:
    online = OnlineDifficulty(["a", "b"], half_life=2.0, prior_answers=4.0)
    online.update(["a", "a", "b", "b"], [0.0, 0.5, 1.0, 1.0])  # draws 1 (a) and 2 (b)
    online.update(["a", "a"], [1.0, 1.0])  # draw 3
    kept = 0.5 ** (2 / 2.0)  # a's first answers are two draws old when its next come
    count_a, sum_a = kept * 2 + 2, kept * 0.5 + 2.0
    count_b, sum_b = 0.5**0.5 * 2, 0.5**0.5 * 2.0  # b's are one draw old now
    common = (sum_a + sum_b) / (count_a + count_b)
    expected = [(4 * common + s) / (4 + c) for s, c in ((sum_a, count_a), (sum_b, count_b))]
    np.testing.assert_allclose(online.difficulty().mean, expected)


def test_what_was_not_drawn_for_long_becomes_average_again() -> None:
    online = OnlineDifficulty(IDS, half_life=10)
    feed(online, "m0", [0.0] * 8)
    feed(online, "m1", [1.0] * 8, times=5)
    failed, *_, unseen = online.difficulty().mean
    feed(online, "m1", [1.0] * 8, times=200)
    late = online.difficulty()
    assert failed < unseen - 0.2
    assert late.mean[0] == pytest.approx(late.mean[5], abs=1e-3)
    assert late.error is not None
    assert late.error[0] == pytest.approx(late.error[5], rel=1e-3)


def test_one_unlucky_group_weighs_less_than_many() -> None:
    online = OnlineDifficulty(IDS)
    feed(online, "m5", [0.6] * 8, times=10)
    feed(online, "m0", [0.0])
    feed(online, "m1", [0.0] * 8)
    feed(online, "m2", [0.0] * 8, times=6)
    once, group, often = online.difficulty().mean[:3]
    assert once > group > often


def test_offline_estimates_are_a_start() -> None:
    prior = Estimates.from_ious(IDS[::-1], [[0.9, 0.7], [0.1], [0.5] * 8, [0.0, 0.2], [1.0], [0.3]])
    online = OnlineDifficulty(IDS, prior)
    mean = online.difficulty().mean
    assert mean[5] > mean[4]
    assert mean[1] > mean[2]
    with pytest.raises(ValueError, match="missing is 'm5'"):
        OnlineDifficulty(IDS, prior.take(IDS[:5]))


def test_a_resumed_state_goes_on_exactly() -> None:
    rng = np.random.default_rng(0)
    batches = [([IDS[i]] * 4, rng.random(4).tolist()) for i in rng.integers(0, 6, 60)]
    whole, first = OnlineDifficulty(IDS), OnlineDifficulty(IDS)
    for batch in batches[:25]:
        whole.update(*batch)
        first.update(*batch)
    second = OnlineDifficulty(IDS)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for batch in batches[25:]:
        whole.update(*batch)
        second.update(*batch)
    assert whole.weights().tobytes() == second.weights().tobytes()
    with pytest.raises(ValueError, match="half_life"):
        OnlineDifficulty(IDS, half_life=3).load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match="data set lacks"):
        OnlineDifficulty(IDS[:3], half_life=6).load_state_dict(first.state_dict())


def test_rewards_of_another_range_are_scaled_and_others_refused() -> None:
    plain, scaled = OnlineDifficulty(IDS), OnlineDifficulty(IDS, reward_range=(-1.0, 2.0))
    plain.update(["m0", "m0"], [0.0, 0.5])
    scaled.update(["m0", "m0"], [-1.0, 0.5])
    np.testing.assert_allclose(plain.weights(), scaled.weights())
    with pytest.raises(ValueError, match=r"'m0' has the reward 1\.5, outside reward_range"):
        plain.update(["m0"], [1.5])
    with pytest.raises(ValueError, match="'other', which is not a moment"):
        plain.update(["other"], [0.5])
    with pytest.raises(ValueError, match="2 moment ids and rewards of shape"):
        plain.update(["m0", "m0"], [0.5])


def test_rewards_that_are_missing_are_left_out() -> None:
    a, b = OnlineDifficulty(IDS), OnlineDifficulty(IDS)
    a.update(["m0", "m0", "m1"], [0.2, np.nan, np.nan])
    b.update(["m0"], [0.2])
    assert a.state_dict() == b.state_dict()


def test_settings_that_cannot_work_are_errors() -> None:
    with pytest.raises(ValueError, match="each needs its own"):
        OnlineDifficulty(["a", "a"])
    for options in ({"half_life": 0.0}, {"prior_answers": 0.0}, {"reward_range": (1.0, 1.0)}):
        with pytest.raises(ValueError, match="must be positive"):
            OnlineDifficulty(IDS, **options)  # type: ignore[arg-type]


def test_any_weighting_can_be_used() -> None:
    online = OnlineDifficulty(IDS, weighting=Weighting("gaussian", bins=None, uncertainty=True))
    feed(online, "m0", [0.1] * 8, times=5)
    feed(online, "m1", [0.9] * 8, times=5)
    weights = online.weights()
    assert weights[0] > weights[5] > weights[1]
