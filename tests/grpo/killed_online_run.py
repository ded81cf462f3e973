"""As ``killed_run.py``, with online difficulty and the plateau callback: killed in the middle of a generation batch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpo_runs
from transformers import TrainerCallback

from timelens_plugins.plateau.callback import RewardPlateauCallback

# Four optimizer steps take what was generated at once; the sixth step is in the middle of the second generation batch.
# Logs come every four steps, so at that time the second batch's rewards wait for the next one.
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": grpo_runs.GENERATIONS,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 4,
    "num_iterations": 2,
    "max_steps": 22,
    "logging_steps": 4,
    "save_strategy": "steps",
    "save_steps": 1,
    "online": {"half_life": 6},
}
VIDEOS: dict[str, Any] = SETTINGS | {
    "per_device_train_batch_size": 2 * grpo_runs.GENERATIONS,
    "queries_per_video": 2,
    "max_steps": 10,
}
"""The same in eight prompts of four videos."""
KILLED_AFTER = 6


def plateau() -> RewardPlateauCallback:
    """One that watches and does not stop these few steps."""
    return RewardPlateauCallback(patience=8, min_steps=1000)


class Kill(TrainerCallback):
    """The process ends as by ``kill -9``, between two micro-steps."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    checkpoint, annotations, output = map(Path, sys.argv[1:4])
    moments = grpo_runs.training_moments(annotations)
    settings = VIDEOS if sys.argv[4:] == ["videos"] else SETTINGS
    grpo_runs.make_trainer(checkpoint, moments, output, callbacks=[plateau(), Kill()], **settings).train()
