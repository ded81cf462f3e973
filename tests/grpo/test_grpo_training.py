"""Three steps in every way of training: the shared prefix against the plain repeated batch, and what is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import GENERATIONS, history
from peft import LoraConfig

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.grpo.groups import groups_of
from timelens_plugins.grpo.statistics import group_statistics
from timelens_plugins.moments import Moment

MakeTrainer = Callable[..., TimeLensGRPOTrainer]


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"], exclude_modules=".*visual.*")


WAYS: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    # name: (family, settings, parts that are trained)
    "full, checkpointing": (
        "qwen3_vl",
        {"vision": "full", "gradient_checkpointing": True},
        {"trunk", "merger", "language"},
    ),
    "full, reentrant checkpointing": (
        "qwen2_5_vl",
        {"vision": "full", "gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}},
        {"trunk", "merger", "language"},
    ),
    "merger, reference model, generations used twice": (
        "qwen3_vl",
        {"beta": 0.1, "num_iterations": 2, "merger_learning_rate": 1e-4},
        {"merger", "language"},
    ),
    "frozen tower, one generation for two steps": (
        "qwen2_5_vl",
        {"vision": "frozen", "per_device_train_batch_size": GENERATIONS, "steps_per_generation": 2},
        {"language"},
    ),
    "adapters and mergers, reference": (
        "qwen3_vl",
        {"peft_config": lora, "beta": 0.1, "gradient_checkpointing": True},
        {"merger", "adapters"},
    ),
    "frames as images, adapters, generations for two steps used twice": (
        "qwen2_5_vl",
        {
            "encoding": "interleaved_timestamp",
            "peft_config": lora,
            "vision": "frozen",
            "per_device_train_batch_size": GENERATIONS,
            "gradient_accumulation_steps": 2,
            "steps_per_generation": 4,
            "num_iterations": 2,
            "snap_spans": True,
        },
        {"adapters"},
    ),
    "linear attention, reference model, generations used twice": (
        "qwen3_5",
        {"beta": 0.1, "num_iterations": 2, "gradient_checkpointing": True},
        {"merger", "language"},
    ),
}


def part_of(name: str) -> str:
    if "lora_" in name:
        return "adapters"
    if "merger" in name:
        return "merger"
    return "trunk" if "visual." in name else "language"


def changed_parts(trainer: TimeLensGRPOTrainer, before: dict[str, torch.Tensor]) -> set[str]:
    return {part_of(n) for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}


def run(make: MakeTrainer, family: str, **settings: Any) -> tuple[TimeLensGRPOTrainer, set[str]]:
    if "peft_config" in settings:
        settings["peft_config"] = settings["peft_config"]()
    trainer = make(family, **settings)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    return trainer, changed_parts(trainer, before)


@pytest.mark.parametrize("way", WAYS)
def test_shared_and_plain_agree_and_train_what_they_should(way: str, make_trainer: MakeTrainer) -> None:
    family, settings, parts = WAYS[way]
    shared, changed = run(make_trainer, family, **settings)
    plain, _ = run(make_trainer, family, **settings, share_prefix=False)
    assert changed == parts
    assert len(history(shared)) == 3
    for name in ("loss", "grad_norm", "reward", "entropy", "kl"):
        found, expected = ([v[0] or 0.0 for v in history(t, name)] for t in (shared, plain))
        # The loss of a first update is a sum of advantages, 0 but for rounding.
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 if name in ("loss", "kl") else 0.0)
    assert min(v[0] for v in history(shared, "grad_norm")) > 0.01


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen3_5"])
def test_unequal_prompts_decoded_together_are_those_decoded_alone(family: str, make_trainer: MakeTrainer) -> None:
    """Four prompts of a batch at once, one after the other, and by the model's own ``generate``."""
    sampled: list[dict[str, list[list[int]]]] = []

    def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
        for row, ids in zip(columns["id"], completion_ids, strict=True):
            sampled[-1].setdefault(row, []).append(ids)
        return [len(set(ids)) / 10 for ids in completion_ids]

    for settings in ({"rollout_prompts": 4}, {"rollout_prompts": 1}, {"share_prefix": False}):
        sampled.append({})
        trainer = make_trainer(
            family, reward=reward, max_steps=1, per_device_train_batch_size=4 * GENERATIONS, **settings
        )
        trainer.train()
        assert len({len(group.prompt) for part in trainer._buffered_inputs for group in groups_of(part)}) > 2
    together, alone, plain = sampled
    assert len(together) == 4
    assert together == alone == plain
    assert len({tuple(ids) for group in plain.values() for ids in group}) > 8


def test_real_clips(family: str, make_trainer: MakeTrainer, real_moments: list[Moment]) -> None:
    trainer = make_trainer(family, rows=real_moments)
    trainer.train()
    assert len(history(trainer)) == 3
    assert all(norm > 0.01 and saved > 0.6 for norm, saved in history(trainer, "grad_norm", "sharing/saved_share"))
    assert trainer.prompts.clips.decoded == 6, "each clip once per step"


def test_mixed_precision_and_a_table_of_spans(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    import pandas

    trainer = make_trainer(bf16=True, max_steps=2, log_completions=True, gradient_checkpointing=True)
    trainer.train()
    assert all(step[0] > 0.01 for step in history(trainer, "grad_norm"))
    table = pandas.read_parquet(next(Path(trainer.args.output_dir).glob("completions/*_00002.parquet")))
    assert list(table["spans"]) == ["-"] * 8, "a random model states nothing"
    assert set(table["status"]) <= {"no_span", "empty", "cut_off", "denied"}
    assert table["target"].str.fullmatch(r"\d+\.\d-\d+\.\d").all()


def test_metrics_over_groups(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(max_steps=1, vision="frozen")
    trainer.train()
    entry = trainer.state.log_history[0]
    prompts = entry["num_tokens"] - 8 * entry["completions/mean_length"]
    assert entry["sharing/saved_tokens"] == pytest.approx(prompts * 3 / 4)
    assert entry["sharing/saved_share"] == pytest.approx(entry["sharing/saved_tokens"] / entry["num_tokens"])
    assert entry["parse_failures"] == 1.0
    assert entry["zero_spread_groups"] == 0.0
    assert entry["prompts_per_second"] > 0
    assert entry["reward_within_group_std"] > 0


def test_completions_that_no_reward_function_scores_are_no_zeros(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(reward=lambda completions, **_: [0.5, 0.5, 0.5, None] * (len(completions) // 4), max_steps=1)
    trainer.train()
    [entry] = [e for e in trainer.state.log_history if "loss" in e]
    assert (entry["reward"], entry["reward_std"], entry["reward_within_group_std"]) == (0.5, 0.0, 0.0)
    assert entry["zero_spread_groups"] == 1.0


def test_the_spread_is_that_of_the_scores_there_are() -> None:
    rewards = torch.tensor([[0.0, 1.0, torch.nan], [0.5, torch.nan, torch.nan], [0.3, 0.3, 0.3], [9.0, 1.0, 2.0]])
    kept = torch.tensor([True, True, True, False]).repeat_interleave(3)
    failures = torch.tensor([[True, True, False]] + [[False] * 3] * 11)
    found = group_statistics(rewards.flatten(), failures, kept, 3)
    assert found["reward_within_group_std"] == pytest.approx((0.5**0.5 + 0.0) / 2)
    assert (found["zero_spread_groups"], found["videos/skipped_share"]) == (0.5, 0.25)
    unscored = group_statistics(torch.full((12,), torch.nan), failures, kept, 3)
    names = ("parse_failures", "parse_failures/swapped", "parse_failures/zero_length")
    assert [found[name] for name in names] == pytest.approx([1 / 9, 1 / 9, 0.0])
    assert unscored.keys() == {*names, "videos/skipped_share"}


def test_evaluation_during_training(make_trainer: MakeTrainer) -> None:
    evaluation = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 4, "num_generations_eval": 2}
    trainer = make_trainer(max_steps=1, with_eval=True, **evaluation)
    trainer.train()
    [entry] = [e for e in trainer.state.log_history if "eval_loss" in e]
    assert entry["eval_parse_failures"] == 1.0
    assert entry["eval_reward"] > 0


def test_evaluation_of_named_and_of_other_data_sets(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(with_eval=True, per_device_eval_batch_size=4, max_completion_length=3)
    rows = trainer.eval_dataset
    assert {"eval_all_loss", "eval_one_loss"} <= trainer.evaluate({"all": rows, "one": rows.select([0])}).keys()
    trainer.eval_dataset = {"val": rows}
    assert "eval_val_loss" in trainer.evaluate()
    assert "eval_loss" in trainer.evaluate(rows.select([1]))
    assert [entry["eval_reward"] > 0 for entry in trainer.state.log_history] == [True] * 4
    assert not trainer.prompts.clips._wanted


@pytest.mark.parametrize("masked", [False, True])
def test_groups_that_state_nothing_and_completions_cut_at_the_limit(masked: bool, make_trainer: MakeTrainer) -> None:
    from timelens_plugins.rewards import temporal_iou_reward

    trainer = make_trainer(reward=temporal_iou_reward, max_steps=1, mask_truncated_completions=masked)
    trainer.generation_config.suppress_tokens = [*trainer.generation_config.suppress_tokens, *trainer.eos_token_ids]
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    entry = trainer.state.log_history[0]
    assert entry["completions/clipped_ratio"] == 1.0
    assert entry["parse_failures"] == entry["zero_spread_groups"] == 1.0
    assert (entry["loss"], entry["grad_norm"], entry["reward"]) == (0.0, 0.0, 0.0)
    assert changed_parts(trainer, before) == set()


def test_vision_tokens_are_never_sampled(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer()
    core = trainer.model.config
    assert {core.image_token_id, core.video_token_id} <= set(trainer.generation_config.suppress_tokens)


def test_separate_rate_of_the_mergers(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(merger_learning_rate=5e-5, learning_rate=1e-6)
    rates = {
        part_of(name): group["lr"]
        for group in trainer.create_optimizer().param_groups
        for name, parameter in trainer.model.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    assert rates == {"merger": 5e-5, "language": 1e-6}
