"""The check on the first batch passes where all is well, and stops a run that computes something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from timelens_plugins.grpo import SelfCheckError, TimeLensGRPOTrainer, self_check
from timelens_plugins.shared_prefix import plan

MakeTrainer = Callable[..., TimeLensGRPOTrainer]


def test_it_says_what_it_measured(make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(max_steps=1).train()
    [line] = [line for line in capsys.readouterr().out.splitlines() if "self-check" in line]
    assert "shared prefix and plain log-probs differ by" in line
    assert "tolerance 1.00e-03" in line
    assert "another video changes them by up to" in line


def test_other_scores_stop_the_run(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    original = self_check.shared_scores

    def off(*args: Any) -> Any:
        log_probs, *rest = original(*args)
        return log_probs + 0.01, *rest

    monkeypatch.setattr(self_check, "shared_scores", off)
    with pytest.raises(SelfCheckError, match=r"differ from those of the plain model by 1\.00e-02 nats"):
        make_trainer(max_steps=1).train()
    make_trainer(max_steps=1, self_check_tolerance=0.02).train()
    make_trainer(max_steps=1, self_check=False).train()


@pytest.mark.parametrize("queries", [1, 3])
def test_siblings_that_see_each_other_stop_the_run(
    queries: int, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attention kernel that ignores the mask of a block, and takes the row as causal."""
    original = plan.Block.visible

    def causal(block: plan.Block, device: torch.device) -> torch.Tensor:
        seen, n = original(block, device), block.stop - block.start
        seen[:, -n:] = torch.ones(n, n, dtype=torch.bool).tril()
        return seen

    monkeypatch.setattr(plan.Block, "visible", causal)
    with pytest.raises(SelfCheckError, match="differ from those of the plain model"):
        make_trainer(max_steps=1, queries_per_video=queries, per_device_train_batch_size=12).train()


@pytest.mark.parametrize("share", [True, False])
def test_a_lost_video_stops_the_run(share: bool, make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(max_steps=1, vision="full", share_prefix=share)
    core = trainer.model.model

    def blind(*args: Any, original: Any = core.visual.forward, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        output.pooler_output = output.pooler_output * 0
        if getattr(output, "deepstack_features", None):
            output.deepstack_features = [f * 0 for f in output.deepstack_features]
        return output

    monkeypatch.setattr(core.visual, "forward", blind)
    with pytest.raises(SelfCheckError, match="does not see the video"):
        trainer.train()


def test_other_ids_stop_the_run(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(max_steps=1)
    original = trainer.prompts.group

    def retokenised(row: Any) -> Any:
        group = original(row)
        trained = dataclasses.replace(group.prompt, input_ids=group.prompt.input_ids.clone())
        trained.input_ids[-1] += 1
        return dataclasses.replace(group, prompt=trained)

    # What is remembered for the check is what the rollout used; training gets something else.
    remember = trainer._first_batch.remember
    monkeypatch.setattr(trainer._first_batch, "remember", lambda groups, c: remember([retokenised(groups[0].row)], c))
    with pytest.raises(SelfCheckError, match="prompt ids of training are not those of the rollout"):
        trainer.train()

    trainer = make_trainer(max_steps=1)
    remember = trainer._first_batch.remember
    monkeypatch.setattr(
        trainer._first_batch, "remember", lambda groups, c: remember(groups, [[x.flip(0) for x in c[0]]])
    )
    with pytest.raises(SelfCheckError, match="completion ids of training"):
        trainer.train()


def test_nothing_is_random_about_it(make_trainer: MakeTrainer) -> None:
    """A run with and without the check is the same run."""
    runs = []
    for check in (True, False):
        trainer = make_trainer(max_steps=2, self_check=check)
        trainer.train()
        runs.append([p.detach().clone() for p in trainer.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
