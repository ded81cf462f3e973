"""Reinforcement learning with verifiable rewards (GRPO) on moments: answers without a thought, scored by temporal IoU.

    accelerate launch recipes/rlvr.py --config recipes/configs/tiny_rlvr.yaml
    accelerate launch --config_file recipes/accelerate/fsdp2.yaml recipes/rlvr.py \\
        --config recipes/configs/timelens_8b_rlvr.yaml

Settings: ``DataArguments``, ``Drawing``, ``StoppingArguments``, ``RewardArguments``,
``TimeLensGRPOConfig`` and TRL's ``ModelConfig``, by YAML and flags. The same command continues a run that was killed;
``resume_from_checkpoint`` says otherwise: a path, ``true`` or ``false``.
"""

from __future__ import annotations

import logging
import os

from trl import ModelConfig

from timelens_plugins.grpo import TimeLensGRPOConfig, TimeLensGRPOTrainer
from timelens_plugins.grpo.vllm_rollout import check_vllm_installed
from timelens_plugins.plateau.best import save_final_model
from timelens_plugins.recipe import (
    DataArguments,
    Drawing,
    RewardArguments,
    StoppingArguments,
    WeightedDrawing,
    adapters,
    annotated_moments,
    available_moments,
    base_checkpoint,
    before_training,
    described,
    estimates_of,
    files_of,
    load_base,
    load_recipe_processor,
    reward_range,
    settings_of_run,
    start,
    suitable_moments,
    training_set,
    warn_of_unearnable,
)
from timelens_plugins.training.checkpoints import chosen_checkpoint
from timelens_plugins.training.dataset import moments_dataset

SETTINGS = (DataArguments, Drawing, StoppingArguments, RewardArguments, TimeLensGRPOConfig, ModelConfig)


def main(
    data: DataArguments,
    difficulty: Drawing,
    stopping: StoppingArguments,
    rewards: RewardArguments,
    training: TimeLensGRPOConfig,
    model_config: ModelConfig,
) -> None:
    with before_training():
        if training.use_vllm:
            check_vllm_installed()
        bounds = reward_range(rewards.rewards, training.reward_weights, difficulty)
        resumed = chosen_checkpoint(training.output_dir, training.resume_from_checkpoint)
        checkpoint = base_checkpoint(model_config, data.synthetic_folder)
        data.annotations = files_of(data.annotations, data.synthetic_folder)

        processor = load_recipe_processor(data, checkpoint, model_config.model_revision)
        warn_of_unearnable(rewards.rewards, processor.prompt)
        annotated = annotated_moments(data)
        moments = suitable_moments(data, annotated)
        description = described(data, annotated, moments)
        if training.beta and model_config.model_revision != "main":  # TRL loads the reference model by these
            training.model_init_kwargs = {"revision": model_config.model_revision, **(training.model_init_kwargs or {})}
        model = load_base(model_config, checkpoint, processor, data.batch_frames)
        estimates = None
        if isinstance(difficulty, WeightedDrawing) and difficulty.difficulty_file is not None:
            estimates = estimates_of(difficulty, moments, annotated, settings_of_run(model, processor))
        moments, online = training_set(difficulty, moments, estimates, seed=training.seed, rewards=bounds)
        moments = available_moments(data, moments, training.on_bad_video)
    plateau = stopping.callback()
    if plateau is not None and online is not None:
        logging.getLogger(__name__).warning(
            "early stopping with online difficulty: prompts get harder as the model gets better, so rewards may be "
            "flat while it still improves; compare difficulty/mean in the log before trusting a stop"
        )
    with before_training():
        trainer = TimeLensGRPOTrainer(
            model=model,
            reward_funcs=rewards.functions(),
            args=training,
            train_dataset=moments_dataset(
                moments, processor.encoding, prompt=processor.prompt, description=description
            ),
            processing_class=processor,
            peft_config=adapters(model_config),
            callbacks=[plateau] if plateau is not None else None,
            difficulty=online,
        )
    trainer.train(resume_from_checkpoint=resumed)
    save_final_model(trainer, None if stopping.saved_model == "last" else plateau)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    start(main, SETTINGS)
