"""Supervised fine-tuning on moments: all queries of a video in one row, their common prompt computed once.

- :mod:`~timelens_plugins.sft.config`: what can be set, on top of transformers' ``TrainingArguments``
- :mod:`~timelens_plugins.sft.rows`: moments of one clip as one row of the data
- :mod:`~timelens_plugins.sft.examples`: a row's prompts and answers, in tokens
- :mod:`~timelens_plugins.sft.scoring`: log-probs of answers, packed and plain
- :mod:`~timelens_plugins.sft.trainer`: the trainer, and what its loss averages over
"""

from timelens_plugins.sft.config import TimeLensSFTConfig
from timelens_plugins.sft.trainer import TimeLensSFTTrainer

__all__ = ["TimeLensSFTConfig", "TimeLensSFTTrainer"]
