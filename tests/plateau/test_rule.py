"""The plateau rule on curves whose truth is known; the full table is made by benchmarks/plateau_simulation.py."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from timelens_plugins.plateau import Decision, PlateauRule, PlateauSettings, suggested_patience
from timelens_plugins.plateau.rule import student_quantile


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "plateau_simulation.py"
    spec = importlib.util.spec_from_file_location("plateau_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["rise, then flat", "slow rise", "flat", "rise, then fall"])
def test_simulated_runs_stop_when_they_should(simulation: ModuleType, name: str) -> None:
    """60 seeds; the rates over 1,000 are in docs/plateau.md."""
    cells = [c.strip() for c in simulation.row(name, 64, "normal", range(60)).strip("|").split("|")]
    false, in_time = float(cells[3]), float(cells[4])
    assert false < 5
    assert in_time > 90


def run(
    rewards: np.ndarray, spreads: np.ndarray | None = None, *, batch: int = 8, patience: int = 64, **options: float
) -> Decision | None:
    rule = PlateauRule(PlateauSettings(patience, **options))  # type: ignore[arg-type]
    for i, reward in enumerate(rewards, 1):
        spread = None if spreads is None else float(spreads[i - 1])
        if decision := rule.update(i, i * batch, float(reward), spread):
            return decision
    return None


def rising(n: int, until: int, seed: int, noise: float = 0.02) -> np.ndarray:
    t = np.arange(n)
    return 0.3 + 0.3 * np.clip(t / until, 0, 1) + noise * np.random.default_rng(seed).standard_normal(n)


def test_a_plateau_is_found_where_it_is() -> None:
    decision = run(rising(300, 100, 0), 0.2 + 0.0 * rising(300, 1, 1) + 0.01 * np.random.default_rng(2).random(300))
    assert decision is not None
    assert decision.reason == "plateau"
    assert 70 <= decision.start_step <= 130
    assert 100 < decision.step < 170
    assert decision.reward.upper <= decision.reward.limit
    assert f"since step {decision.start_step}" in decision.summary()


def test_either_series_that_moves_keeps_the_run_going() -> None:
    rng = np.random.default_rng(0)
    flat = 0.5 + 0.02 * rng.standard_normal(200)
    falling_spread = 0.3 - 0.001 * np.arange(200) + 0.005 * rng.standard_normal(200)
    assert run(flat, falling_spread) is None
    assert run(0.3 + 0.001 * np.arange(200) + 0.005 * rng.standard_normal(200), 0.2 + 0.01 * rng.random(200)) is None
    assert run(flat) is not None
    assert run(flat, 0.2 + 0.001 * np.arange(200) + 0.01 * rng.random(200)) is not None  # a growing spread is no gain


def test_a_fall_stops_whatever_the_spread_does() -> None:
    t = np.arange(300)
    rewards = 0.3 + 0.3 * np.clip(t / 100, 0, 1) - 0.3 * np.clip((t - 120) / 100, 0, 1)
    rewards += 0.02 * np.random.default_rng(0).standard_normal(300)
    decision = run(rewards, 0.3 - 0.001 * t + 0.002 * np.random.default_rng(1).standard_normal(300))
    assert decision is not None
    assert decision.reason == "fall"
    assert 85 <= decision.start_step <= 135
    assert decision.step < 120 + 100 / 3


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_the_scale_of_rewards_does_not_matter(factor: float) -> None:
    a, b = (run(rising(300, 100, 3) * f) for f in (1.0, factor))
    assert a is not None
    assert b is not None
    assert (a.step, a.start_step) == (b.step, b.start_step)


def test_patience_counts_samples_not_steps() -> None:
    """The same data logged in steps of 8, of 16, or changing on the way: blocks of 16 samples are the same."""
    rewards = rising(400, 150, 4)
    merged = rewards.reshape(-1, 2).mean(axis=1)
    a, b = run(rewards, batch=8), run(merged, batch=16, min_steps=25)
    assert a is not None
    assert b is not None
    assert a.samples == b.samples
    assert a.start_samples == b.start_samples
    rule = PlateauRule(PlateauSettings(64, min_steps=50))
    entries = [(i, 8 * i, r) for i, r in enumerate(rewards[:100], 1)]
    entries += [(100 + i, 800 + 16 * i, r) for i, r in enumerate(merged[50:], 1)]
    mixed = next(d for e in entries if (d := rule.update(*e)))
    assert mixed.samples == a.samples


def test_one_wild_step_never_brings_a_stop_forward() -> None:
    for place in range(60, 240, 6):
        rewards = rising(250, 250, place)
        without = run(rewards)
        rewards[place] = 5.0
        decision = run(rewards)
        assert decision is None or (without is not None and decision.step >= without.step), (place, decision)


def test_no_stop_before_min_steps() -> None:
    flat = 0.5 + 0.02 * np.random.default_rng(0).standard_normal(300)
    late = run(flat, min_steps=200)
    assert late is not None
    assert 200 <= late.step < 210
    early = run(flat, min_steps=0)
    assert early is not None
    assert early.step < 50


def test_rewards_that_never_change_are_a_plateau() -> None:
    assert run(np.zeros(100), np.zeros(100)) is not None
    exact = run(np.arange(100.0), -np.arange(100.0))
    assert exact is None


@pytest.mark.parametrize("level", [0.1, 0.4, 0.7, 1.0, 1 / 3])
@pytest.mark.parametrize("batch", [8, 24])
def test_rounding_of_a_constant_reward_is_no_trend(level: float, batch: int) -> None:
    after_a_rise = np.r_[np.linspace(0.05, level, 80), np.full(220, level)]
    for rewards in (after_a_rise, np.full(300, level), level * (1 + 1e-15 * np.arange(300))):
        decision = run(rewards, np.full(300, level), batch=batch)
        assert decision is not None
        assert decision.reason == "plateau"
        assert decision.reward.slope == 0


def test_steps_without_a_reward_are_passed_over() -> None:
    rewards = rising(300, 100, 0)
    rewards[::7] = np.nan
    decision = run(rewards)
    assert decision is not None
    assert 100 < decision.step < 180


@pytest.mark.parametrize("missing", [[40], [40, 41, 42, 43], [*range(0, 200, 5)], [*range(120, 160)]])
def test_steps_without_a_spread_do_not_count_for_the_spread(missing: list[int]) -> None:
    rng = np.random.default_rng(0)
    rewards = 0.5 + 0.02 * rng.standard_normal(200)
    falling = 0.3 - 0.001 * np.arange(200) + 0.005 * rng.standard_normal(200)
    flat = 0.2 + 0.01 * rng.random(200)
    falling[missing] = flat[missing] = np.nan
    assert run(rewards) is not None
    assert run(rewards, falling) is None, "the spread that is known still moves"
    decision = run(rewards, flat)
    assert decision is not None
    assert decision.spread is not None
    whole = 0.2 + 0.0 * flat
    whole[missing] = np.inf
    assert run(rewards, whole) == run(rewards, np.where(np.isinf(whole), np.nan, whole))


def test_a_spread_that_most_of_the_run_lacks_is_not_measured() -> None:
    rng = np.random.default_rng(0)
    rewards = 0.5 + 0.02 * rng.standard_normal(200)
    spreads = 0.3 - 0.001 * np.arange(200) + 0.005 * rng.standard_normal(200)
    spreads[10:] = np.nan
    decision, alone = run(rewards, spreads), run(rewards)
    assert decision == alone
    assert decision is not None
    assert decision.spread is None
    assert "the reward alone decided" in decision.summary()


def test_a_fit_through_a_spread_with_gaps_is_that_of_the_blocks_that_have_one() -> None:
    rng = np.random.default_rng(3)
    spreads = 0.2 + 0.01 * rng.standard_normal(300)
    spreads[[20, 21, 30, 50, 51, 52, 53]] = np.nan  # blocks of two steps: three whole ones, and half of one
    decision = run(0.5 + 0.02 * rng.standard_normal(300), spreads)
    assert decision is not None
    assert decision.spread is not None
    blocks = np.array([np.mean(pair[np.isfinite(pair)]) for pair in spreads.reshape(-1, 2) if np.isfinite(pair).any()])
    middles = np.flatnonzero(np.isfinite(spreads.reshape(-1, 2)).any(1)) / 4
    last, count = decision.step / 8, round(decision.window / 16) / 4
    inside = (middles < last) & (middles >= last - count)
    fit = stats.linregress(middles[inside], blocks[inside])
    assert inside.sum() < round(decision.window / 16)
    assert decision.spread.slope == pytest.approx(-fit.slope)
    assert decision.spread.upper == pytest.approx(-fit.slope + stats.t.ppf(0.995, inside.sum() - 2) * fit.stderr)
    assert decision.spread.mean == pytest.approx(blocks[inside].mean())


def test_a_state_goes_on_exactly() -> None:
    rewards, spreads = rising(300, 100, 7), 0.2 + 0.01 * np.random.default_rng(8).random(300)
    spreads[[4, 32, 33, 70]] = np.nan
    expected = run(rewards, spreads)
    assert expected is not None
    for cut in (1, 33, 90, expected.step - 1):
        first, second = (PlateauRule(PlateauSettings(64)) for _ in range(2))
        for i in range(1, cut + 1):
            assert first.update(i, 8 * i, float(rewards[i - 1]), float(spreads[i - 1])) is None
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        rest = (second.update(i, 8 * i, float(rewards[i - 1]), float(spreads[i - 1])) for i in range(cut + 1, 300))
        assert next(d for d in rest if d) == expected
    assert Decision.from_dict(json.loads(json.dumps(expected.to_dict()))) == expected


def test_students_quantile_is_scipys() -> None:
    for probability in (0.9, 0.98, 0.995, 0.9999):
        for freedom in (1, 2, 3, 4, 7, 20, 101, 300):
            expected = stats.t.ppf(probability, freedom)
            assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-8)


def test_slopes_are_those_of_a_plain_fit() -> None:
    decision = run(rising(300, 100, 0))
    assert decision is not None
    rewards = rising(300, 100, 0)[: decision.step]
    blocks = rewards[: len(rewards) // 2 * 2].reshape(-1, 2).mean(axis=1)  # patience 64 / 4 blocks / 8 a step
    count = round(decision.window / 16)
    x = np.arange(count) / 4
    fit = stats.linregress(x, blocks[-count:])
    assert decision.reward.slope == pytest.approx(fit.slope)
    assert decision.reward.upper == pytest.approx(fit.slope + stats.t.ppf(0.995, count - 2) * fit.stderr)
    residual = blocks[-count:] - fit.intercept - fit.slope * x
    assert decision.reward.noise == pytest.approx(math.sqrt(residual @ residual / (count - 2) / 4))


def test_settings_that_cannot_work_are_errors() -> None:
    for options in ({"patience": 0}, {"patience": 2.5}, {"patience": True}, {"patience": 9, "min_steps": -1}):
        with pytest.raises(ValueError, match="whole number"):
            PlateauSettings(**options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="confidence"):
        PlateauSettings(9, confidence=1.0)
    rule = PlateauRule(PlateauSettings(9))
    rule.update(1, 8, 0.5)
    with pytest.raises(ValueError, match="they must grow"):
        rule.update(2, 8, 0.5)


def test_the_suggested_patience() -> None:
    assert suggested_patience(2400) == round(0.9 * 2400 ** (2 / 3)) == 161
    assert suggested_patience(300_000) == 10_000
    with pytest.raises(ValueError, match="positive number of samples"):
        suggested_patience(0)
