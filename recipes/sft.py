r"""Supervised fine-tuning on moments: all queries of a video in one row.

    accelerate launch recipes/sft.py --config recipes/configs/tiny_sft.yaml
    accelerate launch --config_file recipes/accelerate/fsdp2.yaml recipes/sft.py \
        --config recipes/configs/timelens_8b_sft.yaml

Settings: ``DataArguments``, ``TimeLensSFTConfig`` and TRL's ``ModelConfig``, by YAML and flags. The same command
continues a run that was killed; ``resume_from_checkpoint`` says otherwise: a path, ``true`` or ``false``.
"""

from __future__ import annotations

import logging
import os

from trl import ModelConfig

from timelens_plugins.recipe import (
    DataArguments,
    adapters,
    annotated_moments,
    available_moments,
    base_checkpoint,
    before_training,
    described,
    files_of,
    load_base,
    load_recipe_processor,
    start,
    suitable_moments,
)
from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.training.checkpoints import chosen_checkpoint
from timelens_plugins.training.dataset import moments_dataset

SETTINGS = (DataArguments, TimeLensSFTConfig, ModelConfig)


def main(data: DataArguments, training: TimeLensSFTConfig, model_config: ModelConfig) -> None:
    with before_training():
        resumed = chosen_checkpoint(training.output_dir, training.resume_from_checkpoint)
        checkpoint = base_checkpoint(model_config, data.synthetic_folder)
        data.annotations = files_of(data.annotations, data.synthetic_folder)

        processor = load_recipe_processor(data, checkpoint, model_config.model_revision)
        annotated = annotated_moments(data)
        suitable = suitable_moments(data, annotated)
        moments = available_moments(data, suitable, training.on_bad_video)
        model = load_base(model_config, checkpoint, processor, data.batch_frames)
    description = described(data, annotated, suitable)
    with before_training():
        trainer = TimeLensSFTTrainer(
            model=model,
            args=training,
            train_dataset=moments_dataset(
                moments, processor.encoding, prompt=processor.prompt, description=description
            ),
            processing_class=processor,
            peft_config=adapters(model_config),
        )
    trainer.train(resume_from_checkpoint=resumed)
    trainer.save_model()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    start(main, SETTINGS)
