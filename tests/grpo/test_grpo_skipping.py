"""A video that cannot be read: named, or left out and counted; never replaced, and without weight in the loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from grpo_runs import GENERATIONS, history

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.grpo.weights import slice_weights
from timelens_plugins.moments import Moment
from timelens_plugins.video import VideoError

MakeTrainer = Callable[..., TimeLensGRPOTrainer]


@pytest.fixture
def broken(tmp_path: Path, moments: list[Moment]) -> Moment:
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"not a video")
    return replace(moments[0], id="broken", video=str(path))


def test_error_names_the_file(make_trainer: MakeTrainer, moments: list[Moment], broken: Moment) -> None:
    trainer = make_trainer(rows=[moments[0], broken], max_steps=1)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        trainer.train()


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("loss_type", ["bnpo", "dapo", "grpo", "dr_grpo"])
def test_the_loss_is_that_of_the_groups_that_remain(
    loss_type: str, share: bool, make_trainer: MakeTrainer, moments: list[Moment], broken: Moment
) -> None:
    if not share and loss_type != "grpo":
        pytest.skip("one way of weighting is enough for the plain path")
    settings = {"loss_type": loss_type, "max_steps": 1, "shuffle_dataset": False, "share_prefix": share, "beta": 0.1}
    settings |= {"scale_rewards": "none", "num_iterations": 2, "max_grad_norm": 1e9}
    skipping = make_trainer(rows=[moments[0], broken], on_bad_video="skip", **settings)
    skipping.train()
    alone = make_trainer(rows=[moments[0]], per_device_train_batch_size=GENERATIONS, **settings)
    alone.train()
    torch.testing.assert_close(history(skipping, "grad_norm"), history(alone, "grad_norm"), rtol=1e-4, atol=0)
    torch.testing.assert_close(history(skipping, "reward"), history(alone, "reward"))
    [entry] = [e for e in skipping.state.log_history if "loss" in e]
    assert (entry["videos/skipped"], entry["videos/skipped_share"]) == (1.0, 0.5)
    assert list(skipping.prompts.clips.skipped) == [broken.video]
    for a, b in zip(skipping.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_nothing_but_broken_videos(make_trainer: MakeTrainer, broken: Moment) -> None:
    trainer = make_trainer(
        rows=[broken, replace(broken, query="another")], on_bad_video="skip", max_steps=2, self_check=True
    )
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    assert history(trainer, "loss", "grad_norm", "videos/skipped_share") == [(0.0, 0.0, 1.0)] * 2
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))


@pytest.mark.parametrize("loss_type", ["bnpo", "grpo", "dapo"])
@pytest.mark.parametrize("slices_per_step", [1, 2, 4])
def test_weights_against_the_losses_written_out(loss_type: str, slices_per_step: int) -> None:
    """Two processes, four slices of two groups of three rows: TRL's denominators, and those of the rows that remain."""
    generator = torch.Generator().manual_seed(7)
    processes, slices, groups, size = 2, 4, 2, 3
    tokens = torch.randint(1, 9, (processes, slices, groups, size), generator=generator).double()
    losses = torch.randn(processes, slices, groups, size, generator=generator, dtype=torch.float64)  # mean over tokens
    groups_kept = torch.rand(processes, slices, groups, generator=generator) > 0.4
    groups_kept[0, 0], groups_kept[1, 2] = False, False
    kept = groups_kept[..., None].expand_as(losses).double()
    weights = slice_weights(kept.sum((2, 3)), groups * size, loss_type, slices_per_step)
    for start in range(0, slices, slices_per_step):
        step = slice(start, start + slices_per_step)
        loss, n, k = losses[:, step], tokens[:, step], kept[:, step]
        weight = torch.tensor(weights[step])[None, :]
        total = (loss * n * k).sum((2, 3))
        if loss_type == "grpo":
            stock, expected = (loss * k).mean((2, 3)), (loss * k).sum() / k.sum()
        elif loss_type == "bnpo":
            count = (n * k).sum((2, 3))
            stock = total / count.clamp(min=1)
            expected = stock.sum() / (count > 0).sum()
        else:
            every = (tokens * kept).sum() / processes * slices_per_step / slices
            stock, expected = total / every * slices_per_step, total.sum() / every / processes
        torch.testing.assert_close((stock * weight).mean(), expected)
