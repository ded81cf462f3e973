"""A video that cannot be read: named, or left out and counted; never replaced, and without weight in the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import GENERATIONS, SAMPLING, history
from transformers import AutoModelForImageTextToText

from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.grpo.groups import groups_of
from timelens_plugins.grpo.weights import slice_weights
from timelens_plugins.moments import Moment
from timelens_plugins.shared_prefix import Prompt
from timelens_plugins.video import VideoError, sample_frames

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


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("loss_type", ["bnpo", "dapo", "grpo", "dr_grpo"])
def test_bonus_and_load_balancing_by_hand(
    loss_type: str,
    share: bool,
    make_trainer: MakeTrainer,
    tiny_checkpoints: dict[str, Path],
    moments: list[Moment],
    broken: Moment,
) -> None:
    """Two slices of two groups, of which one or both were skipped in one of them, against the upstream model.

    The policy's loss is a mean over what remains of the batch, as its kind says; the entropy bonus and the
    load-balancing loss are means over the slices of which something remains, black frames not among their tokens.
    """
    if not share and loss_type != "grpo":
        pytest.skip("one way of weighting is enough for the plain path")
    checkpoint, size, length, temperature, bonus, balance = tiny_checkpoints["qwen3_vl_moe"], 4, 10, 0.9, 0.3, 0.5
    if "entropy_coef" not in TimeLensGRPOConfig.__dataclass_fields__:
        pytest.skip("this TRL has no entropy bonus")

    def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
        return [sum(ids) % 17 / 17 for ids in completion_ids]

    spoiled = [replace(broken, query=query) for query in ("one", "another")]
    left: set[tuple[int, ...]] = set()
    for rows, seed in (([*moments[:3], broken], 3), ([*moments[:2], *spoiled], 6), ([*moments[:2], *spoiled], 8)):
        trainer = make_trainer(
            "qwen3_vl_moe",
            rows=rows,
            reward=reward,
            loss_type=loss_type,
            share_prefix=share,
            on_bad_video="skip",
            scale_rewards="none",
            beta=0.0,
            temperature=temperature,
            entropy_coef=bonus,
            router_aux_loss_coef=balance,
            gradient_accumulation_steps=2,
            max_completion_length=length,
            max_steps=1,
            max_grad_norm=1e9,
            shuffle_dataset=False,
            seed=seed,
        )
        trainer.train()
        model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
        policy: list[list[torch.Tensor]] = []
        extras: list[torch.Tensor] = []
        for part in trainer._buffered_inputs:
            kept = [i for i, group in enumerate(groups_of(part)) if group.kept]
            if not kept:
                policy.append([])
                continue
            policy.append([])
            prompts = [clean_prompt(checkpoint, groups_of(part)[i].row) for i in kept for _ in range(size)]
            answers = [
                ids[mask.bool()]
                for i in kept
                for ids, mask in zip(part["completion_ids"][i], part["completion_mask"][i], strict=True)
            ]
            log_p, entropies, routed = upstream_scores(model, prompts, answers, temperature)
            extras.append(-bonus * torch.cat(entropies).mean() + balance * routed)
            for g in range(len(kept)):
                group = slice(g * size, (g + 1) * size)
                scores = torch.tensor(reward([a.tolist() for a in answers[group]]))
                for row, advantage in zip(log_p[group], scores - scores.mean(), strict=True):
                    policy[-1].append(-(row - row.detach()).exp() * advantage)
        left.add(tuple(sorted(len(part) // size for part in policy)))
        every = [row for part in policy for row in part]
        total = sum(row.sum() for row in every)
        means = [torch.cat(part).mean() for part in policy if part]
        loss = {
            "grpo": torch.stack([row.mean() for row in every]).mean(),
            "dr_grpo": total / len(every) / length,
            "dapo": total / sum(map(len, every)),
            "bnpo": torch.stack(means).mean(),
        }[loss_type] + torch.stack(extras).mean()
        trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
        parameters = [p for name, p in model.named_parameters() if name in trained]
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        norm = torch.stack([g.square().sum() for g in gradients if g is not None]).sum().sqrt()
        torch.testing.assert_close(
            history(trainer, "loss", "grad_norm")[0], (loss.item(), norm.item()), rtol=1e-3, atol=1e-5
        )
    assert left == {(1, 2), (1, 1), (0, 2)}, "the seeds make all kinds of slices"


def clean_prompt(checkpoint: Path, row: Mapping[str, Any]) -> Prompt:
    processor = load_processor(checkpoint, **SAMPLING)
    clip = load_clip(processor, sample_frames(row["video"], processor.frame_sampling))
    return clip.prompt(row["prompt"])


def upstream_scores(
    model: Any, prompts: list[Prompt], answers: list[torch.Tensor], temperature: float
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Log-probs and entropies of each answer's tokens, and the load-balancing loss, of one padded batch."""
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids, mask, kinds = torch.zeros(3, len(prompts), width, dtype=torch.long)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids[i, : len(prompt) + len(answer)] = torch.cat([prompt.input_ids, answer])
        kinds[i, : len(prompt)] = prompt.mm_token_type_ids
        mask[i, : len(prompt) + len(answer)] = 1
    output = model(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=kinds,
        output_router_logits=True,
        use_cache=False,
        **{name: torch.cat([prompt.vision[name] for prompt in prompts]) for name in prompts[0].vision},
    )
    spread = torch.log_softmax(output.logits / temperature, -1)
    own = [spread[i, len(p) - 1 : len(p) + len(a) - 1] for i, (p, a) in enumerate(zip(prompts, answers, strict=True))]
    log_p = [s[range(len(a)), a] for s, a in zip(own, answers, strict=True)]
    return log_p, [-(s.exp() * s).sum(-1) for s in own], output.aux_loss


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
    weights = [w.policy for w in slice_weights(kept.sum((2, 3)), groups * size, loss_type, slices_per_step)]
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
