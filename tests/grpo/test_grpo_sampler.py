"""The order of prompts: TRL's in the first epoch, and a function of the epoch's number after that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.utils import RepeatSampler

from timelens_plugins.grpo.groups import split_groups
from timelens_plugins.grpo.sampler import PromptSampler, shuffled


def sampler(size: int, prompts: int, generations: int, repeats: int, epoch: int = 0, seed: int = 0) -> PromptSampler:
    return PromptSampler(
        shuffled(size, seed),
        size,
        prompts=prompts,
        generations=generations,
        repeats=repeats,
        epoch=lambda: epoch,
    )


@given(st.data())
def test_the_first_epoch_is_that_of_trl(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 20))
    prompts = data.draw(st.integers(1, size))
    generations, repeats, seed = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 99)))
    stock = RepeatSampler(range(size), generations, prompts, repeats, shuffle=True, seed=seed)
    ours = sampler(size, prompts, generations, repeats, seed=seed)
    assert list(ours) == list(stock)
    assert len(ours) == len(stock) == len(list(ours))


def test_an_epoch_has_its_own_order_however_often_it_is_read() -> None:
    first, second = (sampler(9, 3, 2, 1, epoch) for epoch in (0, 1))
    assert list(second) == list(second) != list(first)
    assert sorted(second) == sorted(first)


def test_an_order_is_read_as_late_as_possible() -> None:
    seen: list[int] = []

    def order(epoch: int):  # type: ignore[no-untyped-def]
        for index in range(6):
            seen.append(index)
            yield index

    rows = iter(PromptSampler(order, 6, prompts=2, generations=2, repeats=3, epoch=lambda: 0))
    for _ in range(2 * 2 * 3):
        next(rows)
    assert seen == [0, 1]


def test_too_few_prompts() -> None:
    with pytest.raises(ValueError, match="2 prompts, fewer than the 3 of one generation batch"):
        sampler(2, 3, 1, 1)
    short = PromptSampler(lambda epoch: range(3), 4, prompts=2, generations=1, repeats=1, epoch=lambda: 0)
    with pytest.raises(ValueError, match="ended early"):
        list(short)


def test_rows_that_are_no_groups() -> None:
    rows = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}]
    with pytest.raises(ValueError, match="groups of 2 equal prompts"):
        split_groups(rows, 2)
    with pytest.raises(ValueError, match="groups of 3 equal prompts"):
        split_groups(rows, 3)
