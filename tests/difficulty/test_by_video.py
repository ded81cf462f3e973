"""Several moments of a video at a time: chances stay the weights', parts are filled, a video is in one of them."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timelens_plugins.difficulty.by_video import Videos, draw_by_video
from timelens_plugins.difficulty.sampler import DifficultySampler


@pytest.mark.parametrize("drawn", [100_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_drawn_moments_have_their_weights_shares(drawn: int) -> None:
    """In 2,000 videos of one to nine moments, a draw hardly changes what is left: shares are the weights', whatever the
    size of the video, and whether its weights are alike or one is ten times the others."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 10, 2000)
    names = np.repeat(np.arange(2000), sizes)
    weights = rng.uniform(0.2, 1.0, len(names))
    first = np.unique(names, return_index=True)[1]
    weights[first[::3]] *= 10
    videos, counts = Videos(names.tolist()), np.zeros(len(names))
    generator = np.random.default_rng(8)
    batch = 100
    for _ in range(drawn // batch):
        counts[draw_by_video(weights, videos, [20] * 5, 4, generator)] += 1
    assert counts.sum() == drawn
    expected = weights / weights.sum() * counts.sum()

    def shares(of: np.ndarray) -> list[float]:
        return [counts[of == kind].sum() / expected[of == kind].sum() for kind in np.unique(of)]

    # A batch takes one video in 60, so much can its share be off, as in any draw without replacement; and a class of
    # moments is counted some thousand times at least.
    by_size, by_weight = (
        shares(sizes[names]),
        shares(np.digitize(weights, np.quantile(weights, np.arange(0.1, 1, 0.1)))),
    )
    heavy = np.isin(np.arange(len(names)), first[::3])
    assert max(abs(share - 1) for share in [*by_size, *by_weight, *shares(heavy)]) < (0.02 if drawn > 500_000 else 0.05)


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
def test_the_chances_of_one_draw_are_exact(limit: int) -> None:
    """Of the first draw of a part, by the chances written out and by counting."""
    sizes = [1, 2, 4, 6]
    names = [video for video, size in enumerate(sizes) for _ in range(size)]
    weights = np.random.default_rng(1).uniform(0.1, 1.0, len(names))
    weights[4] = 4.0
    videos, generator = Videos(names), np.random.default_rng(limit)
    counts, drawn_of = np.zeros(len(names)), np.zeros(len(sizes))
    numbers: list[set[int]] = [set() for _ in sizes]
    draws = 8_000
    for _ in range(draws):
        found = draw_by_video(weights, videos, [limit], limit, generator)
        video = names[found[0]]
        block = [i for i in found if names[i] == video]
        counts[block] += 1
        drawn_of[video] += 1
        numbers[video].add(len(block))
    tops = [max(w.max(), w.sum() / limit) for w in (weights[np.array(names) == v] for v in range(len(sizes)))]
    for counted, chance in ((counts, weights / sum(tops)), (drawn_of, np.array(tops) / sum(tops))):
        deviation = np.sqrt(draws * chance * (1 - chance))
        assert np.abs((counted - draws * chance) / deviation).max() < 4.5
    for video, seen in enumerate(numbers):
        mean = weights[np.array(names) == video].sum() / tops[video]
        assert seen <= {math.floor(mean + 1e-9), math.ceil(mean - 1e-9)}


@given(st.data())
def test_parts_are_filled_and_a_video_is_in_one(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=30))
    weights = np.array([data.draw(st.sampled_from([0.0, 1e-300, 0.5, 1.0, 1e300])) for _ in names])
    positive = int((weights > 0).sum())
    limit = data.draw(st.integers(1, 4))
    part = data.draw(st.integers(limit, 8))
    parts = [part] * data.draw(st.integers(0, positive // part))
    found = draw_by_video(weights, Videos(names), parts, limit, data.draw(st.integers(0, 99)))
    assert len(found) == len(set(found.tolist())) == sum(parts)
    assert (weights[found] > 0).all()
    runs = [names[i] for i in found]
    starts = [i for i, name in enumerate(runs) if i == 0 or runs[i - 1] != name]
    of_parts = [Counter(runs[at : at + part]) for at in range(0, len(found), part)]
    again = len(set(runs)) < len(starts) or any(max(counts.values()) > limit for counts in of_parts)
    drawable = {name for name, weight in zip(names, weights, strict=True) if weight > 0}
    assert not again or set(runs) == drawable, "a video comes again only where there is no other"


def test_equal_weights_give_all_that_a_video_has() -> None:
    names = ["a"] * 2 + ["b"] * 3 + ["c"] * 7
    for seed in range(200):
        found = draw_by_video(np.full(12, 0.3), Videos(names), [9], 4, seed)
        counts = {name: sum(names[i] == name for i in found) for name in "abc"}
        assert counts == {"a": 2, "b": 3, "c": 4}


def test_a_video_comes_again_where_there_is_no_other() -> None:
    found = draw_by_video([1.0] * 6 + [0.0] * 4, Videos([0] * 6 + [1] * 4), [2, 2, 2], 2, 0)
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="cannot draw 8 different indices: 6 of 10 weights are above 0"):
        draw_by_video([1.0] * 6 + [0.0] * 4, Videos([0] * 6 + [1] * 4), [8], 2, 0)
    with pytest.raises(ValueError, match="weight 1 is nan"):
        draw_by_video([1.0, math.nan], Videos([0, 0]), [1], 1, 0)


def test_the_sampler_of_a_generation_batch() -> None:
    """Fewer drawable prompts than a batch takes, the order of processes, and settings that cannot work."""
    names = [i // 5 for i in range(40)]
    options = {"prompts": 8, "videos": names, "queries_per_video": 3, "part": 4, "seed": 2}
    sampler = DifficultySampler(lambda: np.ones(40), 40, **options)  # type: ignore[arg-type]
    for number in range(30):
        batch = sampler.batch(0, number)
        assert len(set(batch)) == 8
        halves = [[names[i] for i in half] for half in (batch[:4], batch[4:])]
        assert all(sorted(half.count(name) for name in set(half)) == [1, 3] for half in halves)
        assert not set(halves[0]) & set(halves[1]), "a video is in one part"
    few = DifficultySampler(lambda: np.array([1.0] * 3 + [0.0] * 37), 40, **options)  # type: ignore[arg-type]
    assert all(len(set(few.batch(0, n))) == 8 and {*few.batch(0, n)} & {0, 1, 2} for n in range(20))
    state = sampler.state_dict()
    for changed in ({"queries_per_video": 2}, {"part": 8}):
        with pytest.raises(ValueError, match=f"saved with {next(iter(changed))}="):
            DifficultySampler(lambda: np.ones(40), 40, **options | changed).load_state_dict(state)  # type: ignore[arg-type]
    for changed, fault in (
        ({"part": 3}, "8 prompts of a generation batch in parts of 3 cannot take 3"),
        ({"part": 2}, "in parts of 2 cannot take 3 of a video"),
        ({"videos": None}, "needs the video of each of the 40 prompts"),
        ({"videos": names[:9]}, "needs the video of each of the 40 prompts"),
    ):
        with pytest.raises(ValueError, match=fault):
            DifficultySampler(lambda: np.ones(40), 40, **options | changed)  # type: ignore[arg-type]
