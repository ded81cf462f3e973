"""A run that is killed in the middle of its fourth step: ``python killed_run.py CHECKPOINT ANNOTATIONS OUTPUT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpo_runs
from transformers import TrainerCallback

# Two optimizer steps take what was generated at once, twice: a kill after the third step is in the middle of it.
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": grpo_runs.GENERATIONS,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "max_steps": 7,
    "beta": 0.1,
    "save_strategy": "steps",
    "save_steps": 1,
}


class Kill(TrainerCallback):
    """The process ends as by ``kill -9``, between two micro-steps."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    checkpoint, annotations, output = map(Path, sys.argv[1:])
    moments = grpo_runs.training_moments(annotations)
    grpo_runs.make_trainer(checkpoint, moments, output, callbacks=[Kill()], **SETTINGS).train()
