"""A recipe in place of itself, ended as by kill -9 after its third step: ``killed_recipe.py NAME FLAGS…``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from typing import Any

from recipe_runs import RECIPES
from transformers import Trainer, TrainerCallback


class Kill(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)


original = Trainer.__init__


def with_kill(self: Trainer, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    self.add_callback(Kill())


if __name__ == "__main__":
    Trainer.__init__ = with_kill  # type: ignore[method-assign]
    script = str(RECIPES / f"{sys.argv[1]}.py")
    sys.argv[:2] = [script]
    runpy.run_path(script, run_name="__main__")
