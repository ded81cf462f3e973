"""Run by accelerate in place of the recipe: the same, and a kill -9 after the third step."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from timelens_plugins.sft import TimeLensSFTTrainer


class Kill(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


original = TimeLensSFTTrainer.__init__


def with_kill(self: TimeLensSFTTrainer, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    self.add_callback(Kill())


TimeLensSFTTrainer.__init__ = with_kill  # type: ignore[method-assign]
recipe = Path(__file__).parents[2] / "recipes" / "sft.py"
sys.argv[0] = str(recipe)
runpy.run_path(str(recipe), run_name="__main__")
