"""The model that a run leaves in its output folder: that of where its plateau began, if it was stopped there."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import replacing
from timelens_plugins.plateau.callback import RewardPlateauCallback

__all__ = ["save_final_model"]

logger = logging.getLogger(__name__)


def save_final_model(trainer: Any, callback: RewardPlateauCallback | None) -> None:
    """``trainer.save_model()``, with the weights of ``best`` where the callback stopped the run.

    What the trainer writes is replaced, file by file, by what it had written into the plateau's checkpoint, so this
    holds for whole models, adapters and sharded training alike, as long as checkpoints hold whole weights. The model in
    memory stays the last one.

    Args:
        trainer: a ``transformers.Trainer``, after training.
        callback: of this run, or None.

    Raises:
        FileNotFoundError: ``best`` is gone, which leaves the saved model as it is, or has no whole weights.
    """
    stopped = callback is not None and callback.decision is not None
    if stopped and trainer.args.should_save and not (best := Path(trainer.args.output_dir) / "best").is_dir():
        raise FileNotFoundError(
            f"{best}, the model from where the plateau began, is gone; what {best.parent} holds stays as it is. "
            "saved_model: last saves the model of where the run stopped"
        )
    trainer.save_model()
    if not stopped:
        return
    if trainer.args.should_save:
        output = Path(trainer.args.output_dir)
        best = output / "best"
        names = sorted(path.name for path in output.iterdir() if path.is_file() and (best / path.name).is_file())
        if not any(name.endswith((".safetensors", ".bin")) and name != "training_args.bin" for name in names):
            raise FileNotFoundError(
                f"{best} holds no whole weights to save as the run's model: with FSDP, set fsdp_state_dict_type: "
                "FULL_STATE_DICT in accelerate's configuration"
            )
        for name in names:
            with replacing(output / name) as part:
                shutil.copyfile(best / name, part)  # no link: later writing would change the checkpoint, too
        logger.warning("the model in %s is that of %s, the saved one nearest to where the plateau began", output, best)
    trainer.accelerator.wait_for_everyone()
