"""Checkpoints that a run can rely on: marked when they are whole, found again, and deleted only after a newer one.

transformers deletes older checkpoints while it saves a new one, before a trainer can add to that what it needs. A kill
in between would leave none that is whole, and a kill while one is deleted would leave a part of it under its name.
:func:`save_checkpoint` saves, adds the trainer's own state as the mark, and deletes only then.

A checkpoint of ``save_only_model`` holds weights without optimizer and schedule. It gets no mark, and a run that would
go on from one, or start over beside it, is refused: neither is what the same command stands for.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from timelens_plugins.atomic import write_whole
from timelens_plugins.training.diverged import check_weights

__all__ = [
    "ANOTHER_METHOD",
    "STATE_FILE",
    "check_total_limit",
    "checkpoint_to_resume",
    "chosen_checkpoint",
    "last_checkpoint",
    "only_run",
    "read_state",
    "save_checkpoint",
]

logger = logging.getLogger(__name__)

STATE_FILE = "timelens_state.json"
"""Written into a checkpoint's folder after everything else; a checkpoint without it is not resumed from."""

ANOTHER_METHOD = "choose another output_dir (with model_name_or_path set to this checkpoint, to train its weights on)"
"""Remedy where a run finds a checkpoint of another trainer, whose optimizer and place in the data are not its own."""

_TRAINING_ARGUMENTS = "training_args.bin"
_LOCK = ".lock"


@contextlib.contextmanager
def only_run(trainer: Any) -> Iterator[None]:
    """While it lasts, no other run can train into the same output folder, where the checkpoints of both would mix.

    Called on all processes. The lock is the operating system's, so a kill leaves none; file systems without locks go
    without.

    Args:
        trainer: a ``transformers.Trainer``.

    Raises:
        ValueError: another run is at it, or the folder cannot be written to, which would show at the first checkpoint.
    """
    faults: list[str | None] = [None]
    with contextlib.ExitStack() as held:
        if trainer.is_world_process_zero():
            faults = [_lock(Path(trainer.args.output_dir), held)]
        if trainer.accelerator.num_processes > 1:
            broadcast_object_list(faults)
        if faults[0] is not None:
            raise ValueError(faults[0])
        yield


def _lock(folder: Path, held: contextlib.ExitStack) -> str | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = held.enter_context((folder / _LOCK).open("a"))
    except OSError as error:
        return f"output_dir: {folder} cannot be written to ({error.strerror})"
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return f"output_dir: another run is training into {folder}; wait for it, or choose another output_dir"
    except (OSError, ImportError):
        pass  # no locks here
    return None


# ---------------------------------------------------------------------- saving


def save_checkpoint(
    trainer: Any, folder: Path, save: Callable[[], None], state: Callable[[], Mapping[str, Any]]
) -> None:
    """Save a checkpoint, mark it as whole, and then delete those beyond ``save_total_limit``. Called on all processes.

    Args:
        trainer: a ``transformers.Trainer``.
        folder: of the checkpoint.
        save: what the trainer's parent does.
        state: content of :data:`STATE_FILE`; called on all processes, so it may save more. Not called with
            ``save_only_model``, whose checkpoints are not marked.

    Raises:
        FloatingPointError: the model has diverged.
    """
    args, wait = trainer.args, trainer.accelerator.wait_for_everyone
    check_weights(trainer.model, trainer.accelerator, trainer.state.global_step)
    if args.should_save and folder.is_dir():
        # One that is written over is no longer whole, keeps no file of what it was, and what shares its files by links,
        # as the best one of an earlier run, stays what it is.
        _delete(folder)
    wait()
    limit, args.save_total_limit = args.save_total_limit, None
    try:
        save()
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk is told by torch as a wrong position
        free = shutil.disk_usage(folder.parent).free
        error.add_note(
            f"{folder} could not be saved, with {free / 1e9:.3f} GB free there. It does not count: started again, the "
            "run goes on from the checkpoint before"
        )
        raise
    finally:
        args.save_total_limit = limit
    content = None if args.save_only_model else state()
    wait()
    if not args.should_save:
        return
    if (folder / _TRAINING_ARGUMENTS).is_file():
        torch.save(args, folder / _TRAINING_ARGUMENTS)  # was saved without the limit
    if content is not None:
        write_whole(folder / STATE_FILE, json.dumps(content, indent=1) + "\n")
    _delete_older(folder, limit, trainer.state.best_model_checkpoint)


def _delete_older(newest: Path, limit: int | None, best: str | None) -> None:
    """As transformers: the longest unchanged go first; the newest and the best one stay."""
    for left in newest.parent.glob(".checkpoint-*.deleted"):
        shutil.rmtree(left, ignore_errors=True)
    if not limit or limit < 0:
        return
    by_age = sorted(_checkpoints(newest.parent), key=lambda found: (found[1].stat().st_mtime_ns, found[0]))
    kept = {newest.resolve()} | ({Path(best).resolve()} if best is not None else set())
    spare = len(by_age) - max(limit, len(kept))
    for path in [path for _, path in by_age if path.resolve() not in kept][: max(0, spare)]:
        _delete(path)


def _delete(path: Path) -> None:
    """Under another name first: what a kill leaves of it then is no checkpoint."""
    hidden = path.with_name(f".{path.name}.deleted")
    if hidden.exists():
        shutil.rmtree(hidden, ignore_errors=True)
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def check_total_limit(limit: int | None) -> None:
    """Refuse ``save_total_limit=1``.

    Raises:
        ValueError: it is 1.
    """
    if limit == 1:
        raise ValueError(
            "save_total_limit=1: where another checkpoint than the last is the best one, transformers deletes the last "
            "at the end of training, and the same command would train on from the best. Set save_total_limit=2"
        )


# ---------------------------------------------------------------------- finding


def last_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """The newest complete checkpoint of a run, or None; what a kill left half-written is named in the log.

    For ``trainer.train(resume_from_checkpoint=last_checkpoint(output_dir))``: the same command starts and continues.

    Raises:
        ValueError: the newest one was saved by ``save_only_model``, so the run can neither go on nor start over.
    """
    for _, path in reversed(_checkpoints(Path(output_dir))):
        if _weights_alone(path):
            raise ValueError(
                f"{_cause(path)}: it cannot be continued from, and starting over would train again what it holds. "
                "Start in another output_dir (with model_name_or_path set to this checkpoint, to train its weights "
                "on), or remove it to start over here"
            )
        if (path / STATE_FILE).is_file():
            return str(path)
        logger.warning("%s is incomplete and will not be used", path)
    return None


def checkpoint_to_resume(resume_from_checkpoint: str | os.PathLike[str] | bool | None, output_dir: str) -> str | None:
    """What a trainer's ``train(resume_from_checkpoint=…)`` means: a complete checkpoint, or None.

    Args:
        resume_from_checkpoint: a path; True for the last complete one of ``output_dir``; None or False for none.
        output_dir: of the run.

    Raises:
        ValueError: there is none, or it is not complete.
    """
    if resume_from_checkpoint is None or resume_from_checkpoint is False:
        return None
    if resume_from_checkpoint is True:
        last = last_checkpoint(output_dir)
        if last is None:
            raise ValueError(f"resume_from_checkpoint=True, and {output_dir} holds no complete checkpoint")
        return last
    read_state(Path(resume_from_checkpoint))
    return os.fspath(resume_from_checkpoint)


def chosen_checkpoint(output_dir: str, setting: str | bool | None) -> str | None:
    """What a recipe continues from, by its setting ``resume_from_checkpoint``; None starts at step 0.

    Args:
        output_dir: of the run.
        setting: None: the last complete checkpoint of ``output_dir``, if there is one. ``true``: it must exist.
            ``false``: start at step 0; refused where checkpoints of an earlier run would mix with the new ones. Else
            the path of a checkpoint, of this run or another.

    Raises:
        ValueError: what the setting asks for cannot be done.
    """
    if isinstance(setting, str):
        setting = {"": None, "true": True, "false": False}.get(setting.lower(), setting)
    if setting is None:
        return last_checkpoint(output_dir)
    found = _checkpoints(Path(output_dir))
    if setting is False and found:
        raise ValueError(
            f"resume_from_checkpoint: false, and {output_dir} holds {found[-1][1].name} of an earlier run, with whose "
            "checkpoints new ones would mix: remove them, or choose another output_dir"
        )
    chosen = checkpoint_to_resume(setting, output_dir)
    if isinstance(setting, str):
        newer = [path.name for step, path in found if step > _step(Path(setting)) and (path / STATE_FILE).is_file()]
        if newer:
            logger.warning(
                "starting from %s, as resume_from_checkpoint says, although %s has %s. Leave the setting out to "
                "continue from the last",
                setting,
                output_dir,
                ", ".join(newer),
            )
    return chosen


def read_state(folder: Path) -> dict[str, Any]:
    """Content of a complete checkpoint's :data:`STATE_FILE`.

    Raises:
        ValueError: the checkpoint is not complete, with the reason; the file cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such checkpoint")
    path = folder / STATE_FILE
    if not path.is_file() or _weights_alone(folder):
        raise ValueError(
            f"{_cause(folder)}. timelens_plugins.training.checkpoints.last_checkpoint finds the last complete one"
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a state this version can read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a state this version can read (no object)")
    return content


def _checkpoints(output_dir: Path) -> list[tuple[int, Path]]:
    """``checkpoint-N`` folders, by step."""
    return sorted((_step(path), path) for path in output_dir.glob("checkpoint-*") if _step(path) >= 0 and path.is_dir())


def _step(path: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else -1


def _weights_alone(folder: Path) -> bool:
    """Saved by ``save_only_model``: to its end, as the trainer's state comes last, and yet without a schedule."""
    return (folder / "trainer_state.json").is_file() and not (folder / "scheduler.pt").is_file()


def _cause(folder: Path) -> str:
    if _weights_alone(folder):
        return f"{folder} holds a model without optimizer and schedule (save_only_model: true)"
    return f"{folder} has no {STATE_FILE}: saving it was interrupted, or another trainer saved it"
