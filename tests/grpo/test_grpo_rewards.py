"""Rewards that are no numbers stop the run with the name of the function and the row."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from thinking_template import with_thinking
from torch import nn
from trl import GRPOTrainer

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.grpo.checked_rewards import RewardError, checked
from timelens_plugins.grpo.online import _is_temporal_iou
from timelens_plugins.moments import Moment
from timelens_plugins.rewards import temporal_iou_reward

MakeTrainer = Callable[..., TimeLensGRPOTrainer]


def gives(value: Any) -> Callable[..., list[Any]]:
    def sometimes_wrong(completions: list[Any], **_: Any) -> list[Any]:
        return [0.5] * (len(completions) - 1) + [value]

    return sometimes_wrong


def gives_later(value: Any) -> Callable[..., Any]:
    async def late(completions: list[Any], **_: Any) -> list[Any]:
        return gives(value)(completions)

    return late


@pytest.mark.parametrize("make", [gives, gives_later])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), torch.tensor(torch.nan), "0.5"])
def test_a_reward_that_is_no_number(make: Any, value: Any, make_trainer: MakeTrainer, moments: list[Moment]) -> None:
    name = "late" if make is gives_later else "sometimes_wrong"
    trainer = make_trainer(
        rows=moments[:2], reward=[temporal_iou_reward, make(value)], max_steps=1, shuffle_dataset=False
    )
    row = moments[1].id.replace("(", r"\(")
    with pytest.raises(RewardError, match=rf"reward function {name} gave .* for {row} .*None where the function has"):
        trainer.train()


class BrokenModel(nn.Module):
    """A reward model whose head overflows."""

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        class Output:
            logits = torch.full((len(input_ids), 1), torch.inf)

        return Output


def test_a_reward_model_that_overflows(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(max_steps=1)
    trainer.reward_funcs, trainer.reward_func_names = [BrokenModel()], ["broken"]

    def parents(*_: Any) -> torch.Tensor:
        return torch.full((8, 1), torch.inf)

    monkeypatch.setattr(GRPOTrainer, "_calculate_rewards", parents)
    with pytest.raises(RewardError, match="reward model broken gave inf for "):
        trainer.train()


def test_none_is_no_reward_and_names_are_kept() -> None:
    assert checked(gives(None))([1, 2], id=["a", "b"]) == [0.5, None]
    snapped = functools.partial(temporal_iou_reward, snap_predictions=True)
    assert checked(snapped).__name__ == "temporal_iou_reward"
    assert _is_temporal_iou(checked(snapped))
    assert checked("a/model") == "a/model"


def test_bnpo_says_where_it_depends_on_the_split(make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture) -> None:
    make_trainer(loss_type="bnpo")
    assert "each divides by its own completion tokens" not in caplog.text
    make_trainer(loss_type="bnpo", gradient_accumulation_steps=2)
    assert "loss_type=bnpo with 2 micro-batches a step" in caplog.text


def test_rewards_read_the_thought_that_the_prompt_opens(make_trainer: MakeTrainer) -> None:
    """Only where it does: with thinking off, the template closes it."""
    read: list[str] = []

    def reader(completions: list[Any], **_: Any) -> list[float]:
        read.extend(message["content"] for [message] in completions)
        return [float(len(set(message["content"]))) for [message] in completions]

    for thinking in (False, True):
        read.clear()
        trainer = make_trainer(reward=reader, max_steps=1)
        processor = trainer.processing_class
        processor.chat_template = with_thinking(processor.chat_template)
        processor.configure(thinking=thinking)
        trainer.train()
        assert [text.startswith("<think>\n") for text in read] == [thinking] * 8
