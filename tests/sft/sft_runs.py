"""What tests read off a finished run."""

from __future__ import annotations

from timelens_plugins.sft import TimeLensSFTTrainer


def history(trainer: TimeLensSFTTrainer, *names: str) -> list[tuple[float, ...]]:
    """What the trainer logged under ``names`` at each step."""
    return [tuple(entry[name] for name in names) for entry in trainer.state.log_history if "loss" in entry]
