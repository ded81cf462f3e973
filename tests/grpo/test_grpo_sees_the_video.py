"""The training forward with one video and with another: equal in stock TRL, different here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_runs import GENERATIONS, SAMPLING, letters_reward
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from timelens_plugins.encodings import load_processor
from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.grpo.groups import by_row
from timelens_plugins.moments import Moment
from timelens_plugins.training.dataset import moments_dataset


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory: pytest.TempPathFactory) -> list[Moment]:
    """The same query about two videos of equal shape: equal token ids, other pixels."""
    from timelens_plugins.synthetic.mp4 import write_mp4

    folder = tmp_path_factory.mktemp("videos")
    moments = []
    for level in (20, 200):
        path = folder / f"{level}.mp4"
        frames = torch.full((32, 64, 64, 3), level, dtype=torch.uint8)
        frames[:, :32] = 255 - level
        write_mp4(path, frames.numpy(), 4.0)
        moments.append(
            Moment(
                id=path.stem,
                video=str(path),
                video_id=path.stem,
                query="a light",
                spans=(),
                duration=8.0,
                source="test",
            )
        )
    return moments


def training_scores(trainer: Any, dataset: Any) -> list[Tensor]:
    """Log-probs in the training forward of the same completion ids, once for each row of the data set."""
    scores: list[Tensor] = []
    original = trainer._get_per_token_logps_and_entropies

    def spy(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        scores.append(found[0].detach())
        return found

    trainer.model.train()
    batches = []
    for row in dataset:
        batch = trainer._generate_and_score_completions([dict(row) for _ in range(GENERATIONS)])
        batches.append(by_row(batch) if isinstance(trainer, TimeLensGRPOTrainer) else batch)
    assert torch.equal(batches[0]["prompt_ids"], batches[1]["prompt_ids"])
    trainer.current_gradient_accumulation_steps = 1
    trainer._get_per_token_logps_and_entropies = spy
    fixed = {k: batches[0][k] for k in ("completion_ids", "completion_mask")}
    for batch in batches:
        trainer.compute_loss(trainer.model, batch | fixed)
    return scores


def test_stock_trl_loses_the_video(
    family: str, tiny_checkpoints: dict[str, Path], two_videos: list[Moment], tmp_path: Path
) -> None:
    processor = load_processor(tiny_checkpoints[family], "native", **SAMPLING)
    dataset = moments_dataset(two_videos, processor.encoding)
    args = {"output_dir": str(tmp_path), "max_completion_length": 6, "report_to": [], "use_cpu": True, "bf16": False}
    batch = {"per_device_train_batch_size": GENERATIONS, "num_generations": GENERATIONS}
    trainer = GRPOTrainer(
        model=str(tiny_checkpoints[family]),
        reward_funcs=letters_reward,
        args=GRPOConfig(**args, **batch),
        train_dataset=dataset,
        processing_class=processor,
    )
    first, second = training_scores(trainer, dataset)
    assert torch.equal(first, second), "if this fails, stock TRL has learned to train on videos"


@pytest.mark.parametrize("share", [True, False])
def test_this_trainer_does_not(
    family: str, share: bool, make_trainer: Callable[..., TimeLensGRPOTrainer], two_videos: list[Moment]
) -> None:
    trainer = make_trainer(
        family, rows=two_videos, share_prefix=share, per_device_train_batch_size=GENERATIONS, max_completion_length=6
    )
    first, second = training_scores(trainer, trainer.train_dataset)
    assert (first - second).abs().mean() > 0.01


def test_prompts_are_those_of_the_processor(
    family: str, make_trainer: Callable[..., TimeLensGRPOTrainer], two_videos: list[Moment]
) -> None:
    """Ids and pixels of a group against one call of the processor on the messages of the row."""
    trainer = make_trainer(family, rows=[replace(m, query=f"a light {m.id}") for m in two_videos])
    processor = trainer.processing_class
    for row in trainer.train_dataset:
        group = trainer.prompts.group(row)
        expected = processor.apply_chat_template(
            row["prompt"], tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        assert torch.equal(group.prompt.input_ids, expected["input_ids"][0])
        assert torch.equal(group.prompt.mm_token_type_ids, expected["mm_token_type_ids"][0])
        for name, tensor in group.prompt.vision.items():
            assert torch.equal(tensor, expected[name]), name
