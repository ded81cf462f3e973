"""The loss and every gradient against the stock model on the repeated batch, and what the loss averages over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sft_runs import history
from torch import Tensor

from timelens_plugins.answers import format_answer
from timelens_plugins.moments import Moment
from timelens_plugins.sft import TimeLensSFTTrainer
from timelens_plugins.training.dataset import moments_dataset


def gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def stock_loss(trainer: TimeLensSFTTrainer, rows: list[dict[str, Any]]) -> tuple[Tensor, int]:
    """transformers' own loss of whole conversations, one after the other, labels on the answers found by text."""
    processor, total, count = trainer.processing_class, torch.zeros((), dtype=torch.float64), 0
    for moment in (moment for row in rows for moment in row["moments"]):
        reply = {"role": "assistant", "content": [{"type": "text", "text": format_answer(moment["spans"])}]}
        inputs = processor.apply_chat_template(
            [*moment["prompt"], reply], tokenize=True, return_dict=True, return_tensors="pt"
        )
        prompt = processor.apply_chat_template(
            moment["prompt"], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
        )
        labels = inputs["input_ids"].clone()
        labels[:, : prompt["input_ids"].shape[1]] = -100
        labels[:, -1] = -100  # the line break after the end of turn
        assert processor.tokenizer.decode(labels[labels != -100]).endswith(" seconds.<|im_end|>")
        inputs = {k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}
        logits = trainer.model(**inputs).logits[0, :-1]
        total = total + torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum")
        count += int((labels != -100).sum())
    return total / count, count


@pytest.mark.parametrize("encoding", ["native", "interleaved_timestamp"])
def test_loss_and_every_gradient_equal_the_stock_models(
    family: str, encoding: str, make_trainer: Callable[..., TimeLensSFTTrainer]
) -> None:
    """Two videos of three queries and one of one, in double precision, the whole vision tower trained."""
    trainer = make_trainer(family, encoding=encoding, vision="full")
    model = trainer.model.double().train()
    rows = [trainer.train_dataset[i] for i in (0, 1, 3)]
    assert [len(row["moments"]) for row in rows] == [3, 3, 1]
    expected, count = stock_loss(trainer, rows)
    reference = gradients(model, expected)
    assert len(reference) == len(list(model.parameters()))
    floor = 1e-3 * max(float(g.abs().max()) for g in reference.values())  # biases whose gradient is 0 but for rounding
    for share in (True, False):
        trainer.args.share_prefix = share
        examples = trainer._examples(rows)
        assert sum(example.scored_tokens for example in examples) == count
        loss = trainer.compute_loss(model, {"examples": examples}, num_items_in_batch=count)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        found = gradients(model, loss)
        assert found.keys() == reference.keys()
        for name, gradient in reference.items():
            error = float((found[name] - gradient).abs().max()) / max(float(gradient.abs().max()), floor)
            assert error < 1e-6, (share, name, error)


def test_the_loss_is_the_token_mean_of_the_global_batch(make_trainer: Callable[..., TimeLensSFTTrainer]) -> None:
    """However the six videos are cut into rows and micro-batches, packed or not: the same losses and gradient norms."""
    common: dict[str, Any] = {"vision": "merger", "train_sampling_strategy": "sequential", "max_steps": 2}
    runs = {
        "all at once": {"per_device_train_batch_size": 6},
        "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3},
        "unequal parts": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "plain": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2, "share_prefix": False},
        "checkpointed": {"per_device_train_batch_size": 6, "gradient_checkpointing": True},
    }
    logged = {}
    for name, settings in runs.items():
        trainer = make_trainer(**common, **settings)
        trainer.train()
        logged[name] = history(trainer, "loss", "grad_norm", "answer_tokens", "queries")
        assert [entry[3] for entry in logged[name]] == [16, 16]
    for name, entries in logged.items():
        for entry, expected in zip(entries, logged["all at once"], strict=True):
            assert entry == pytest.approx(expected, rel=1e-4), name
    assert logged["all at once"][1][0] < logged["all at once"][0][0]

    rows = make_trainer(**common, per_device_train_batch_size=16, max_queries_per_row=1)
    rows.train()
    for entry, expected in zip(history(rows, "loss", "grad_norm"), logged["all at once"], strict=True):
        assert entry == pytest.approx(expected[:2], rel=1e-4)
    assert history(rows, "rows", "tokens_saved") == [(16, 0.0)] * 2


def test_evaluation_is_a_token_mean_too(make_trainer: Callable[..., TimeLensSFTTrainer]) -> None:
    losses = []
    for batch, share in ((1, True), (4, False)):
        trainer = make_trainer(with_eval=True, per_device_eval_batch_size=batch, share_prefix=share)
        trainer.model.eval()
        losses.append(trainer.evaluate())
    assert losses[0]["eval_loss"] == pytest.approx(losses[1]["eval_loss"], rel=1e-5)
    rows = [trainer.train_dataset[i] for i in range(6)]
    expected, count = stock_loss(make_double(trainer), rows)
    assert losses[0]["eval_loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    assert losses[0]["eval_answer_tokens"] == count


def test_evaluation_of_named_and_of_other_data_sets(
    make_trainer: Callable[..., TimeLensSFTTrainer], moments: list[Moment]
) -> None:
    trainer = make_trainer(eval_names=("val", "other"), eval_strategy="steps", eval_steps=1, max_steps=1)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if any(key.startswith("eval_") for key in entry)]
    expected = trainer.evaluate(trainer.train_dataset)  # rows of videos
    assert [entry.get("eval_val_loss", entry.get("eval_other_loss")) for entry in entries] == [
        expected["eval_loss"]
    ] * 2
    rows = moments_dataset(moments, trainer.processing_class.encoding)
    assert trainer.evaluate(rows)["eval_loss"] == expected["eval_loss"]
    named = trainer.evaluate({"all": rows, "one": rows.select([0])})
    assert named["eval_all_loss"] == expected["eval_loss"] != named["eval_one_loss"]
    assert trainer.evaluate("val")["eval_loss"] == expected["eval_loss"]
    assert trainer.predict(rows).metrics["test_loss"] == expected["eval_loss"]


def make_double(trainer: TimeLensSFTTrainer) -> TimeLensSFTTrainer:
    trainer.model.double()
    return trainer
