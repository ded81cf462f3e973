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

from transformers import AutoModelForImageTextToText
from trl import ModelConfig, TrlParser, get_peft_config

from timelens_plugins.sft import TimeLensSFTConfig, TimeLensSFTTrainer
from timelens_plugins.synthetic.materialise import materialise
from timelens_plugins.timestamps import load_processor
from timelens_plugins.training.arguments import DataArguments, training_moments
from timelens_plugins.training.checkpoints import chosen_checkpoint
from timelens_plugins.training.dataset import moments_dataset

SETTINGS = (DataArguments, TimeLensSFTConfig, ModelConfig)


def main(data: DataArguments, training: TimeLensSFTConfig, model_config: ModelConfig) -> None:
    if model_config.model_name_or_path is None:
        raise ValueError("model_name_or_path is not set")
    if model_config.load_in_8bit or model_config.load_in_4bit:
        raise ValueError("quantised base weights are not supported: leave load_in_8bit and load_in_4bit out")
    resumed = chosen_checkpoint(training.output_dir, training.resume_from_checkpoint)
    checkpoint = materialise(model_config.model_name_or_path, data.synthetic_folder)
    data.annotations = materialise(data.annotations, data.synthetic_folder)

    processor = load_processor(checkpoint, data.encoding, revision=model_config.model_revision, **data.sampling)
    moments = training_moments(data, training.on_bad_video)  # type: ignore[arg-type]  # checked by the config
    model = AutoModelForImageTextToText.from_pretrained(
        checkpoint,
        revision=model_config.model_revision,
        dtype=model_config.dtype,
        attn_implementation=model_config.attn_implementation,
    )
    trainer = TimeLensSFTTrainer(
        model=model,
        args=training,
        train_dataset=moments_dataset(moments, processor.encoding),
        processing_class=processor,
        peft_config=get_peft_config(model_config),
    )
    trainer.train(resume_from_checkpoint=resumed)
    trainer.save_model()
    trainer.accelerator.end_training()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO if os.environ.get("RANK", "0") == "0" else logging.WARNING)
    main(*TrlParser(SETTINGS).parse_args_and_config())
