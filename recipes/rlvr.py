"""Reinforcement learning with verifiable rewards (GRPO) on moments: answers without a thought, scored by temporal IoU.

    accelerate launch recipes/rlvr.py --config recipes/configs/tiny_rlvr.yaml
    accelerate launch --config_file recipes/accelerate/fsdp2.yaml recipes/rlvr.py \\
        --config recipes/configs/timelens_8b_rlvr.yaml

Settings: ``DataArguments``, ``DifficultyArguments``, ``StoppingArguments``, ``RewardArguments``,
``TimeLensGRPOConfig`` and TRL's ``ModelConfig``, by YAML and flags. The same command continues a run that was killed;
``resume_from_checkpoint`` says otherwise: a path, ``true`` or ``false``.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

from transformers import AutoModelForImageTextToText
from trl import ModelConfig, TrlParser, get_peft_config

from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.grpo.selection import (
    DifficultyArguments,
    StoppingArguments,
    estimates_of,
    reward_range,
    settings_of_run,
    training_set,
)
from timelens_plugins.plateau.best import save_final_model
from timelens_plugins.rewards import REWARDS
from timelens_plugins.synthetic.materialise import materialise
from timelens_plugins.timestamps import load_processor
from timelens_plugins.training.arguments import (
    DataArguments,
    annotated_moments,
    available_moments,
    suitable_moments,
)
from timelens_plugins.training.checkpoints import chosen_checkpoint
from timelens_plugins.training.dataset import moments_dataset


@dataclass
class RewardArguments:
    """What answers are rewarded for."""

    rewards: list[str] = field(
        default_factory=lambda: ["temporal_iou"],
        metadata={"help": f"Their weighted sum counts (reward_weights). Known: {', '.join(REWARDS)}."},
    )

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.rewards) - REWARDS.keys()):
            raise ValueError(f"unknown rewards {', '.join(unknown)}; known: {', '.join(REWARDS)}")


SETTINGS = (DataArguments, DifficultyArguments, StoppingArguments, RewardArguments, TimeLensGRPOConfig, ModelConfig)


def main(
    data: DataArguments,
    difficulty: DifficultyArguments,
    stopping: StoppingArguments,
    rewards: RewardArguments,
    training: TimeLensGRPOConfig,
    model_config: ModelConfig,
) -> None:
    if model_config.model_name_or_path is None:
        raise ValueError("model_name_or_path is not set")
    if model_config.load_in_8bit or model_config.load_in_4bit:
        raise ValueError("quantised base weights are not supported: leave load_in_8bit and load_in_4bit out")
    bounds = reward_range(rewards.rewards, training.reward_weights, difficulty)
    resumed = chosen_checkpoint(training.output_dir, training.resume_from_checkpoint)
    checkpoint = materialise(model_config.model_name_or_path, data.synthetic_folder)
    data.annotations = materialise(data.annotations, data.synthetic_folder)

    processor = load_processor(checkpoint, data.encoding, revision=model_config.model_revision, **data.sampling)
    annotated = annotated_moments(data)
    moments = suitable_moments(data, annotated)
    model = AutoModelForImageTextToText.from_pretrained(
        checkpoint,
        revision=model_config.model_revision,
        dtype=model_config.dtype,
        attn_implementation=model_config.attn_implementation,
    )
    estimates = None
    if difficulty.difficulty_file is not None:
        estimates = estimates_of(difficulty, moments, annotated, settings_of_run(model, processor))
    moments, online = training_set(difficulty, moments, estimates, seed=training.seed, rewards=bounds)
    moments = available_moments(data, moments, training.on_bad_video)
    plateau = stopping.callback()
    if plateau is not None and online is not None:
        logging.getLogger(__name__).warning(
            "early stopping with online difficulty: prompts get harder as the model gets better, so rewards may be "
            "flat while it still improves; compare difficulty/mean in the log before trusting a stop"
        )
    trainer = TimeLensGRPOTrainer(
        model=model,
        reward_funcs=[REWARDS[name] for name in rewards.rewards],
        args=training,
        train_dataset=moments_dataset(moments, processor.encoding),
        processing_class=processor,
        peft_config=get_peft_config(model_config),
        callbacks=[plateau] if plateau is not None else None,
        difficulty=online,
    )
    trainer.train(resume_from_checkpoint=resumed)
    save_final_model(trainer, None if stopping.saved_model == "last" else plateau)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    main(*TrlParser(SETTINGS).parse_args_and_config())
