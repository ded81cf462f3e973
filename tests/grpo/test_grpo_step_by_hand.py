"""Whole optimizer steps, computed by hand: own sampling, rewards, advantages, losses, gradients and updates.

Nothing of the trainer is used for it, nor of TRL: the upstream model runs on one conversation at a time, as the
upstream processor makes it, and everything else is written out below. Two generation batches, the first used twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from grpo_runs import SAMPLING, history
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.video_utils import VideoMetadata

from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.moments import Moment
from timelens_plugins.training.dataset import moments_dataset
from timelens_plugins.video import sample_frames

SEED, TEMPERATURE, LENGTH, COMPLETIONS = 3, 0.9, 12, 4
LOW, HIGH = 0.02, 0.05
RATE, BETAS, EPSILON = 3e-4, (0.9, 0.999), 1e-3
WEIGHTS = (1.0, 0.5)
STOPS = list(range(5, 300, 9))
"""Tokens that end a completion, many, so that completions of a random model differ in length."""


UNUSED = "model.visual.deepstack_merger_list.1."
"""Its features join the video's places after the last layer, where nothing reads them: no gradient."""


def spread_reward(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    return [sum(ids) % 17 / 17 if ids[0] % 6 else None for ids in completion_ids]


def sometimes_reward(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
    return [len(ids) / 5 if ids[0] % 3 else None for ids in completion_ids]


@dataclass
class Case:
    loss_type: str
    scale: str
    beta: float
    groups: int = 2
    per_micro_batch: int = 1
    share_prefix: bool = True
    queries_per_video: int = 1


CASES = [
    Case("grpo", "group", 0.1),
    Case("bnpo", "none", 0.0, share_prefix=False),
    Case("dr_grpo", "none", 0.2),
    Case("dapo", "batch", 0.0, groups=4, per_micro_batch=2),
    Case("grpo", "group", 0.1, groups=6, per_micro_batch=3, queries_per_video=3),  # two micro-batches, a video each
]


class ByHand:
    """The upstream model, trained as the papers say."""

    def __init__(self, checkpoint: Path, rows: list[dict[str, Any]], case: Case) -> None:
        self.case, self.checkpoint = case, checkpoint
        self.model, self.reference = self.load(), self.load()
        self.inputs = [self.prompt(row) for row in rows]
        self.trained = {
            name: p for name, p in self.model.named_parameters() if "visual." not in name or "merger" in name
        }
        self.first = {name: torch.zeros_like(p) for name, p in self.trained.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.trained.items()}
        self.steps = 0
        self.clipped: set[str] = set()
        self.without_reward = 0

    def load(self) -> Any:
        return AutoModelForImageTextToText.from_pretrained(self.checkpoint, dtype=torch.float32).eval()

    def prompt(self, row: dict[str, Any]) -> dict[str, Tensor]:
        upstream = AutoProcessor.from_pretrained(self.checkpoint)
        clip = sample_frames(row["video"], load_processor(self.checkpoint, **SAMPLING).frame_sampling)
        chat = upstream.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        metadata = VideoMetadata(
            total_num_frames=clip.total_frames, fps=clip.fps, frames_indices=list(clip.frame_indices)
        )
        return dict(
            upstream(
                text=[chat.replace("<|vision_start|><|video_pad|><|vision_end|>", "<|video_pad|>")],
                videos=[clip.frames],
                video_metadata=[metadata],
                do_sample_frames=False,
                do_resize=False,
                return_tensors="pt",
            )
        )

    def sample(self, prompt: int, batch: int, place: int) -> list[list[int]]:
        """The completions of a prompt; by the run's seed, training (1), the generation batch and the place in it."""
        inputs = self.inputs[prompt]
        whole = {
            name: v.expand(COMPLETIONS, -1)
            for name, v in inputs.items()
            if v.dtype == torch.long and "grid" not in name
        }
        vision = {name: torch.cat([v] * COMPLETIONS) for name, v in inputs.items() if name not in whole}
        config = GenerationConfig(
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            max_new_tokens=LENGTH,
            eos_token_id=STOPS,
            pad_token_id=0,
            suppress_tokens=[self.model.config.image_token_id, self.model.config.video_token_id],
        )
        seed = int(np.random.SeedSequence((SEED, 1, batch, place)).generate_state(1, np.uint64)[0] >> 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokens = self.model.generate(**whole, **vision, generation_config=config)
        found = []
        for row in tokens[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in STOPS), len(row))
            found.append(row[:end])
        return found

    def log_probs(self, model: Any, prompt: int, completion: list[int]) -> Tensor:
        """Of one completion's tokens, at the temperature they were sampled with."""
        inputs = self.inputs[prompt]
        answer = torch.tensor([completion])
        ids = torch.cat([inputs["input_ids"], answer], 1)
        kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer)], 1)
        vision = {name: inputs[name] for name in ("pixel_values_videos", "video_grid_thw")}
        logits = model(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, use_cache=False, **vision
        ).logits[0, -len(completion) - 1 : -1]
        return torch.log_softmax(logits / TEMPERATURE, -1)[range(len(completion)), completion]

    def advantages(self, groups: list[list[list[int]]]) -> list[list[float]]:
        """A completion without any reward counts in no mean and no deviation, and has no advantage."""
        rewards: list[list[float | None]] = []
        for group in groups:
            known = list(zip(spread_reward(group), sometimes_reward(group), strict=True))
            weighted = [WEIGHTS[0] * (a or 0.0) + WEIGHTS[1] * (b or 0.0) for a, b in known]
            rewards.append([None if pair == (None, None) else w for pair, w in zip(known, weighted, strict=True)])
            self.without_reward += known.count((None, None))
        everything = [r for group in rewards for r in group if r is not None]
        found = []
        for group in rewards:
            scored = [r for r in group if r is not None]
            mean = sum(scored) / len(scored)
            scale = {"none": 1.0, "group": _deviation(scored) + 1e-4, "batch": _deviation(everything) + 1e-4}
            found.append([0.0 if r is None else (r - mean) / scale[self.case.scale] for r in group])
        return found

    def loss(self, prompts: list[int], groups: list[list[list[int]]], old: list[list[Tensor]]) -> Tensor:
        advantages = self.advantages(groups)
        per_group = []
        for g, (prompt, group) in enumerate(zip(prompts, groups, strict=True)):
            rows = []
            for i, completion in enumerate(group):
                now = self.log_probs(self.model, prompt, completion)
                ratio, advantage = (now - old[g][i]).exp(), advantages[g][i]
                bounded = ratio.clamp(1 - LOW, 1 + HIGH)
                self.clipped |= {"low"} if advantage < 0 and bool((ratio < 1 - LOW).any()) else set()
                self.clipped |= {"high"} if advantage > 0 and bool((ratio > 1 + HIGH).any()) else set()
                row = -torch.minimum(ratio * advantage, bounded * advantage)
                if self.case.beta:
                    with torch.no_grad():
                        reference = self.log_probs(self.reference, prompt, completion)
                    divergence = (reference - now).exp() - (reference - now) - 1
                    row = row + self.case.beta * ratio * divergence  # weighted as in DeepSeek-V3.2
                rows.append(row)
            per_group.append(rows)
        tokens = [sum(map(len, group)) for group in groups]
        assert len(set(tokens)) > 1
        if self.case.loss_type == "grpo":
            means = [row.mean() for rows in per_group for row in rows]
            return sum(means) / len(means)  # type: ignore[return-value]
        sums = [sum(row.sum() for row in rows) for rows in per_group]
        if self.case.loss_type == "bnpo":
            return sum(s / n for s, n in zip(sums, tokens, strict=True)) / len(groups)  # type: ignore[return-value]
        if self.case.loss_type == "dr_grpo":
            return sum(sums) / (len(groups) * COMPLETIONS * LENGTH)  # type: ignore[return-value]
        return sum(sums) / sum(tokens)  # type: ignore[return-value]

    def step(self, loss: Tensor) -> float:
        """AdamW without decay, of gradients whose norm is 1 at most; returns the norm before that."""
        found = dict(zip(self.trained, torch.autograd.grad(loss, list(self.trained.values())), strict=True))
        norm = float(torch.stack([g.square().sum() for g in found.values()]).sum().sqrt())
        self.steps += 1
        with torch.no_grad():
            for name, parameter in self.trained.items():
                g = found[name] * min(1.0, 1.0 / (norm + 1e-6))
                self.first[name] = BETAS[0] * self.first[name] + (1 - BETAS[0]) * g
                self.second[name] = BETAS[1] * self.second[name] + (1 - BETAS[1]) * g * g
                mean = self.first[name] / (1 - BETAS[0] ** self.steps)
                square = self.second[name] / (1 - BETAS[1] ** self.steps)
                parameter -= RATE * mean / (square.sqrt() + EPSILON)
        return norm

    def train(self) -> list[tuple[float, float]]:
        """Three steps: loss and norm of the gradient of each."""
        history: list[tuple[float, float]] = []
        for batch, uses in ((0, 2), (1, 1)):
            prompts = [batch * self.case.groups + place for place in range(self.case.groups)]
            groups = [self.sample(prompt, batch, place) for place, prompt in enumerate(prompts)]
            assert len({len(completion) for group in groups for completion in group}) > 2
            with torch.no_grad():
                old = [
                    [self.log_probs(self.model, p, c) for c in group] for p, group in zip(prompts, groups, strict=True)
                ]
            for _ in range(uses):
                loss = self.loss(prompts, groups, old)
                history.append((float(loss.detach()), self.step(loss)))
        return history


def _deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return float((sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.loss_type}-{case.queries_per_video}")
def test_three_steps(
    case: Case,
    make_trainer: Callable[..., TimeLensGRPOTrainer],
    tiny_checkpoints: dict[str, Path],
    moments: list[Moment],
) -> None:
    rows = moments[: 2 * case.groups]
    trainer = make_trainer(
        rows=rows,
        reward=[spread_reward, sometimes_reward],
        reward_weights=list(WEIGHTS),
        loss_type=case.loss_type,
        scale_rewards=case.scale,
        beta=case.beta,
        use_bias_correction_kl=True,
        share_prefix=case.share_prefix,
        queries_per_video=case.queries_per_video,
        temperature=TEMPERATURE,
        epsilon=LOW,
        epsilon_high=HIGH,
        per_device_train_batch_size=case.per_micro_batch * COMPLETIONS,
        num_generations=COMPLETIONS,
        gradient_accumulation_steps=case.groups // case.per_micro_batch,
        num_iterations=2,
        max_completion_length=LENGTH,
        max_steps=3,
        learning_rate=RATE,
        adam_beta1=BETAS[0],
        adam_beta2=BETAS[1],
        adam_epsilon=EPSILON,
        weight_decay=0.0,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        shuffle_dataset=False,
        seed=SEED,
    )
    trainer.generation_config.eos_token_id = STOPS
    trainer.train()
    assert all(len({row.video for row in rows[i : i + 3]}) == 1 for i in range(0, len(rows) - 2, 3)), "three of a video"
    hand = ByHand(tiny_checkpoints["qwen3_vl"], list(moments_dataset(rows)), case)
    before = {name: p.detach().clone() for name, p in hand.trained.items()}
    expected = hand.train()
    assert hand.clipped == {"low", "high"}, "a run in which nothing is clipped says nothing of the bounds"
    assert hand.without_reward
    assert_close(history(trainer, "loss", "grad_norm"), expected, rtol=1e-3, atol=2e-5)
    found = dict(trainer.model.named_parameters())
    for name, parameter in hand.trained.items():
        moved = float((parameter - before[name]).abs().max())
        assert moved > RATE / 100 or name.startswith(UNUSED), name
        assert_close(
            found[name].detach(), parameter.detach(), rtol=0.0, atol=moved * 1e-2, msg=lambda m, n=name: f"{n}: {m}"
        )
