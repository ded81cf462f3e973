"""Prompts drawn by what the rewards of training say: what is drawn, what is learned from, and an exact resume."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpo_runs import GENERATIONS, Diary, history, killed_beside
from killed_online_run import KILLED_AFTER, SETTINGS, plateau

from timelens_plugins.difficulty import Estimates, OnlineDifficulty
from timelens_plugins.grpo import TimeLensGRPOTrainer, resume
from timelens_plugins.grpo.online import DIFFICULTY_FILE, OnlineDraws
from timelens_plugins.moments import Moment
from timelens_plugins.rewards import parse_penalty, temporal_iou_reward, wasserstein_reward
from timelens_plugins.training.checkpoints import STATE_FILE
from timelens_plugins.training.dataset import moments_dataset

MakeTrainer = Callable[..., TimeLensGRPOTrainer]
NAMES = ("loss", "grad_norm", "reward", "reward_within_group_std", "entropy", "num_tokens", "samples")
FIGURES = ("difficulty/expected", "difficulty/mean", "difficulty/effective_prompts")


def states(trainer: TimeLensGRPOTrainer) -> str:
    assert trainer._online is not None
    return json.dumps([trainer._online.difficulty.state_dict(), trainer._online.sampler.state_dict()])


def test_kill_and_resume(
    make_trainer: MakeTrainer, tiny_checkpoints: dict[str, Path], annotations: Path, tmp_path: Path
) -> None:
    """Losses, draws, estimates and what the plateau rule knows are those of an uninterrupted run."""
    killed = tmp_path / "killed"
    watching, diary = plateau(), Diary()
    whole = make_trainer(callbacks=[watching], reward=diary, **SETTINGS | {"save_strategy": "no"})
    checkpoint = killed_beside(whole, tiny_checkpoints["qwen3_vl"], annotations, killed)
    assert checkpoint == str(killed / f"checkpoint-{KILLED_AFTER}")

    rewatching, rest = plateau(), Diary()
    resumed = make_trainer(output_dir=killed, callbacks=[rewatching], reward=rest, **SETTINGS)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert len(diary.batches) == 6
    assert all(len(set(batch)) == 4 for batch in diary.batches)
    assert rest.batches == diary.batches[2:], "the second generation batch comes from the checkpoint"
    assert history(resumed, *NAMES[1:], *FIGURES) == history(whole, *NAMES[1:], *FIGURES)
    # transformers forgets the losses that wait for a log, and logs the mean over those since the resume.
    losses = [history(trainer, "loss") for trainer in (resumed, whole)]
    assert [i for i, pair in enumerate(zip(*losses, strict=True)) if pair[0] != pair[1]] == [1]
    assert sum(entry[2] is not None for entry in history(whole, *NAMES)) >= 5, "rewards were logged"
    assert states(resumed) == states(whole)
    assert rewatching._rule is not None
    assert watching._rule is not None
    assert rewatching._rule.state_dict() == watching._rule.state_dict()

    with pytest.raises(ValueError, match="saved by a run with online difficulty: resume with it"):
        make_trainer(output_dir=killed, **SETTINGS | {"online": None}).train(resume_from_checkpoint=checkpoint)
    with pytest.raises(
        ValueError, match=r"difficulty\.json: the state was kept with half_life=6\.0, this run has 7\.0"
    ):
        make_trainer(output_dir=killed, **SETTINGS | {"online": {"half_life": 7}}).train(
            resume_from_checkpoint=checkpoint
        )
    (Path(checkpoint) / DIFFICULTY_FILE).unlink()
    with pytest.raises(ValueError, match="saved by a run without online difficulty"):
        make_trainer(output_dir=killed, **SETTINGS).train(resume_from_checkpoint=checkpoint)
    shutil.rmtree(killed)


def test_resume_in_the_second_epoch(
    make_trainer: MakeTrainer, moments: list[Moment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One generation batch a step: the next one is always drawn before a step's rewards are known."""
    save = resume.save

    def save_last(trainer: TimeLensGRPOTrainer, folder: Path) -> Any:
        content = save(trainer, folder)
        assert (folder / DIFFICULTY_FILE).is_file()
        assert not (folder / STATE_FILE).exists(), "what marks a checkpoint as complete comes after everything else"
        return content

    monkeypatch.setattr(resume, "save", save_last)
    settings: dict[str, Any] = {"rows": moments[:6], "max_steps": 8, "save_steps": 1, "online": {"half_life": 4}}
    whole = make_trainer(**settings, output_dir=tmp_path, save_strategy="steps")
    whole.train()
    for step in (3, 5):  # at an epoch's end, and in the middle of one
        resumed = make_trainer(**settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert history(resumed, *NAMES, *FIGURES) == history(whole, *NAMES, *FIGURES)
        assert states(resumed) == states(whole)


def test_what_the_model_can_do_already_is_drawn_less(make_trainer: MakeTrainer, moments: list[Moment]) -> None:
    rows = moments[:12]
    easy = {m.id for m in rows[:6]}
    drawn: Counter[bool] = Counter()

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        drawn.update(name in easy for name in columns["id"][::GENERATIONS])
        return [1.0 if name in easy else float(i % 2) for i, name in enumerate(columns["id"])]

    trainer = make_trainer(
        rows=rows,
        max_steps=40,
        max_completion_length=2,
        reward=reward,
        online={"half_life": 500},
        learning_rate=0.0,
        clip_workers=0,
    )
    trainer.train()
    assert drawn[True] + drawn[False] == 80
    assert drawn[False] > 2.5 * drawn[True]
    assert trainer._online is not None
    mean = trainer._online.difficulty.difficulty().mean
    assert mean[:6].min() > mean[6:].max() + 0.1
    first, *_, last = history(trainer, *FIGURES)
    assert first[2] > last[2], "the weights have become unequal"
    assert last[0] < first[0] + 0.2


def test_unreadable_videos_teach_nothing(make_trainer: MakeTrainer, moments: list[Moment], tmp_path: Path) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"not a video")
    broken = replace(moments[0], id="broken", video=str(path))
    trainer = make_trainer(rows=[moments[0], broken], on_bad_video="skip", max_steps=3, online={})
    trainer.train()
    assert trainer._online is not None
    state = trainer._online.difficulty.state_dict()
    assert list(state["moments"]) == [moments[0].id]
    assert state["draws"] == 3


def test_evaluation_teaches_nothing(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(
        with_eval=True, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=GENERATIONS, online={}
    )
    trainer.train()
    assert trainer._online is not None
    assert trainer._online.difficulty.draws == 3 * 2


def draws(moments: list[Moment], functions: list[Any], **options: Any) -> OnlineDraws:
    dataset = moments_dataset(moments)
    return OnlineDraws(OnlineDifficulty(dataset["id"], **options), dataset, functions, prompts=2, seed=0)


def test_the_temporal_iou_is_the_difficulty_where_it_is_a_reward(moments: list[Moment]) -> None:
    ids = [moments[0].id] * 2 + [moments[1].id] * 2
    rewards = np.array([[-1.0, 0.1], [0.0, 0.5], [0.0, 1.0], [np.nan, np.nan]])
    expected = OnlineDifficulty([m.id for m in moments])
    expected.update(ids, [0.1, 0.5, 1.0, np.nan])
    for iou in (temporal_iou_reward, partial(partial(temporal_iou_reward), snap_predictions=True)):
        online = draws(moments, [parse_penalty, iou])
        online.update(ids, rewards, np.array([1.0, 0.0]))
        assert online.difficulty.state_dict() == expected.state_dict()
    with pytest.raises(ValueError, match=r"reward_range=.* has no effect"):
        draws(moments, [parse_penalty, temporal_iou_reward], reward_range=(-1.0, 1.0))


def test_a_prior_of_ious_and_rewards_of_another_scale_are_warned_of(
    moments: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    prior = Estimates.from_ious([m.id for m in moments], [[0.5, 0.1]] * len(moments))
    draws(moments, [parse_penalty, temporal_iou_reward], prior=prior)
    draws(moments, [wasserstein_reward], reward_range=(0.0, 1.0))
    assert not caplog.text
    draws(moments, [wasserstein_reward], prior=prior)
    assert "starts from estimates, which are IoUs, and goes on with the rewards" in caplog.text


def test_else_the_weighted_sum_is_scaled(moments: list[Moment]) -> None:
    ids = [moments[0].id] * 2 + [moments[1].id] * 2
    rewards = np.array([[-1.0, 0.0], [0.0, 0.5], [0.0, np.nan], [np.nan, np.nan]])
    expected = OnlineDifficulty([m.id for m in moments], reward_range=(-1.0, 2.0))
    expected.update(ids, [-1.0, 1.0, 0.0, np.nan])
    online = draws(moments, [parse_penalty, wasserstein_reward], reward_range=(-1.0, 2.0))
    figures = online.update(ids, rewards, np.array([1.0, 2.0]))
    assert online.difficulty.state_dict() == expected.state_dict()
    assert figures["difficulty/expected"] == 0.5, "nothing was known before"
    assert 0 < figures["difficulty/effective_prompts"] <= len(moments)
    outside = draws(moments, [parse_penalty, wasserstein_reward])
    with pytest.raises(ValueError, match=r"the reward -1\.0, outside reward_range"):
        outside.update(ids, rewards, np.array([1.0, 2.0]))


def test_settings_that_cannot_work(make_trainer: MakeTrainer, moments: list[Moment]) -> None:
    with pytest.raises(ValueError, match="difficulty decides the order"):
        make_trainer(online={}, shuffle_dataset=False)
    dataset = moments_dataset(moments)
    reverse = OnlineDifficulty(dataset["id"][::-1])
    with pytest.raises(ValueError, match="the same in the same order"):
        OnlineDraws(reverse, dataset, [], prompts=2, seed=0)
    with pytest.raises(ValueError, match="needs a column 'id'"):
        OnlineDraws(reverse, dataset.remove_columns("id"), [], prompts=2, seed=0)


def test_resuming_with_other_data_is_said(
    make_trainer: MakeTrainer, moments: list[Moment], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"output_dir": tmp_path, "save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make_trainer(rows=moments[:6], **settings).train()
    for rows, said in ((moments[:6], False), (moments[:5], True)):
        caplog.clear()
        make_trainer(rows=rows, **settings | {"max_steps": 2, "save_strategy": "no"}).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-1")
        )
        assert ("was saved with another data set" in caplog.text) == said
