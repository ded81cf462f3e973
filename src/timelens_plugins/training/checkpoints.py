"""Telling whole checkpoints from those a kill left half-written."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

__all__ = ["STATE_FILE", "MarkComplete", "last_checkpoint"]

logger = logging.getLogger(__name__)

STATE_FILE = "timelens_state.json"
"""Written into a checkpoint's folder after everything else; a checkpoint without it is not resumed from."""


class MarkComplete(TrainerCallback):
    """Writes :data:`STATE_FILE` once all processes have saved what a trainer saves.

    Args:
        wait: returns when all processes are here, as ``Accelerator.wait_for_everyone`` does.
    """

    def __init__(self, wait: Any) -> None:
        self._wait = wait

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called on every process when its part of a checkpoint is on disk."""
        self._wait()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            part = folder / f".{STATE_FILE}.part"
            part.write_text("{}\n")
            os.replace(part, folder / STATE_FILE)


def last_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """The newest complete checkpoint of a run, or None; what a kill left half-written is named in the log.

    For ``trainer.train(resume_from_checkpoint=last_checkpoint(output_dir))``: the same command starts and continues.
    """
    found = [(int(m[1]), p) for p in Path(output_dir).glob("checkpoint-*") if (m := re.fullmatch(r"\D+-(\d+)", p.name))]
    for _, path in sorted(found, reverse=True):
        if (path / STATE_FILE).is_file():
            return str(path)
        logger.warning("%s is incomplete and will not be used", path)
    return None
