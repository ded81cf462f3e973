"""Shrinkage against a simulated truth, and the selection effect that it is there for."""

from __future__ import annotations

import numpy as np
import pytest

from timelens_plugins.difficulty import ANSWER_STD, Estimates


def simulated(n: int, answers: int, seed: int = 0) -> tuple[np.ndarray, Estimates]:
    """True means of n moments, and estimates from so many answers of each."""
    rng = np.random.default_rng(seed)
    truth = rng.beta(3, 3, n)
    ious = rng.beta(truth[:, None] * 2.5, (1 - truth[:, None]) * 2.5, (n, answers))
    return truth, Estimates.from_ious([f"m{i}" for i in range(n)], ious.tolist())


@pytest.mark.parametrize("answers", [2, 4, 8])
def test_shrunk_estimates_are_closer_to_the_truth_and_know_how_close(answers: int) -> None:
    truth, estimates = simulated(20_000, answers)
    shrunk = estimates.shrunk()
    error = np.sqrt(((shrunk.mean - truth) ** 2).mean())
    assert error < 0.95 * np.sqrt(((estimates.mean - truth) ** 2).mean())
    assert shrunk.error is not None
    assert np.sqrt((shrunk.error**2).mean()) == pytest.approx(error, rel=0.05)


def test_the_shrinkage_is_that_of_the_closed_form() -> None:
    """One answer each and a known answer variance: the textbook formula, written out."""
    rng = np.random.default_rng(0)
    means = np.clip(0.5 + 0.15 * rng.standard_normal(5000) + 0.1 * rng.standard_normal(5000), 0, 1)
    estimates = Estimates.from_ious([str(i) for i in range(5000)], means[:, None].tolist())
    between = means.var(ddof=1) - 0.1**2
    expected = means.mean() + between / (between + 0.01) * (means - means.mean())
    np.testing.assert_allclose(estimates.shrunk(answer_std=0.1).mean, expected, atol=1e-12)


def test_moments_that_look_hard_are_less_hard_than_they_look() -> None:
    """Of the moments whose single answer failed, the model does well on many; shrunk estimates say so."""
    truth, single = simulated(20_000, 1)
    hardest = np.argsort(single.mean)[:2000]
    assert single.mean[hardest].mean() < 0.05 < 0.25 < truth[hardest].mean()
    corrected = single.shrunk(answer_std=float(np.sqrt((truth * (1 - truth)).mean() / 3.5))).mean
    assert corrected[hardest].mean() == pytest.approx(truth[hardest].mean(), abs=0.06)
    truth, several = simulated(20_000, 8)
    hardest = np.argsort(several.shrunk().mean)[:2000]
    assert several.shrunk().mean[hardest].mean() == pytest.approx(truth[hardest].mean(), abs=0.02)


def test_more_answers_move_less() -> None:
    ious = [[0.2], [0.2] * 4, [0.2] * 16, [0.9, 0.5], [0.6, 0.7], [0.1, 0.4]]
    shrunk = Estimates.from_ious(list("abcdef"), ious).shrunk()
    distance = np.abs(shrunk.mean[:3] - 0.2)
    assert distance[0] > distance[1] > distance[2] > 0
    assert shrunk.error is not None
    assert shrunk.error[0] > shrunk.error[1] > shrunk.error[2]


def test_single_answers_have_the_assumed_variance() -> None:
    estimates = Estimates.from_ious(["a", "b", "c"], [[0.0], [0.5], [1.0]])
    np.testing.assert_allclose(estimates.answer_variance(), ANSWER_STD**2)
    assert estimates.plain().spread is None
    assert estimates.plain().mean.tolist() == [0.0, 0.5, 1.0]


def test_differences_no_larger_than_the_noise_are_no_differences() -> None:
    estimates = Estimates.from_ious(["a", "b"], [[0.0, 1.0], [0.1, 0.9]])
    shrunk = estimates.shrunk()
    assert shrunk.mean.tolist() == [0.5, 0.5]
    assert Estimates.from_ious(["a"], [[0.3]]).shrunk().mean.tolist() == [0.3]


def test_ious_outside_their_range_are_errors() -> None:
    for bad in ([], [1.2], [float("nan")], [0.1, -0.1]):
        with pytest.raises(ValueError, match="moment 'b'"):
            Estimates.from_ious(["a", "b"], [[0.5], bad])


def test_taking_a_part() -> None:
    estimates = Estimates.from_ious(["a", "b", "c"], [[0.0], [0.5, 0.7], [1.0]])
    part = estimates.take(["c", "b"])
    assert part.ids == ("c", "b")
    assert part.mean.tolist() == [1.0, 0.6]
    assert part.answers.tolist() == [1, 2]
    with pytest.raises(ValueError, match="no estimate for 1 of 2 moments, such as 'd'"):
        estimates.take(["a", "d"])
