"""What the ``lmms-eval`` command must not report as success: a run that failed, and results that are not all there.

lmms-eval 0.7 logs every exception of an evaluation and goes on, and so it does where results could not be written,
pushed to the hub, sent to Weights & Biases or SwanLab, or compared with a baseline; it ends with exit status 0.
:func:`watch` is called where a run begins. In runs that are about our model or our tasks, the command ends with status
1 where lmms-eval logs such a failure: at once where nothing comes of the run, and where there are results once they are
printed. Whether results can be written is tried before the model is loaded.
"""

from __future__ import annotations

import fnmatch
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["ENDING", "LOST", "checking_saved_results", "checking_saved_samples", "ending_with_status", "watch"]

_COMMAND = "cli_evaluate_single"  # of lmms_eval.__main__: makes the task manager first of all
_MODEL = "timelens"

ENDING = ("Error during evaluation: ", "Need to specify task to evaluate.")
"""How lmms-eval begins what it logs before it ends or leaves a run, in ``lmms_eval.__main__``."""

LOST = (
    "Could not save results aggregated",
    "Could not save sample results",
    "Could not gate the repository",
    "Logging to Weights and Biases failed",
    "Logging to SwanLab failed",
    "[Baseline] Failed for",
    "[Baseline] Skipping",
)
"""And what it logs where a part of what was asked for is missing, before it goes on."""

_run: list[Any] = []  # arguments of the run that is going on, if it is about our model or our tasks
_lost: list[str] = []  # what is missing of what such runs were asked for


def watch(manager: Any) -> None:
    """Watch the run that is making this task manager, if the command line started it.

    Args:
        manager: what has a ``task_index``.

    Raises:
        OSError: results cannot be written below ``--output_path``.
        RuntimeError: SwanLab was asked for and is not there.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != _COMMAND:
        frame = frame.f_back
    arguments = None if frame is None else frame.f_locals.get("args")
    if frame is None or arguments is None or any(arguments is known for known in _run):
        return
    _run.clear()
    if not _is_ours(arguments, manager):
        return
    _run.append(arguments)
    from loguru import logger

    def look(message: Any) -> None:
        text, module = message.record["message"], str(message.record["name"])
        if not module.startswith("lmms_eval") or not any(arguments is known for known in _run):
            return
        if text.startswith(ENDING):
            fail(f"the evaluation failed. {text.removeprefix(ENDING[0])}")
        if text.startswith(LOST):
            cause = sys.exception()  # lmms-eval logs it in another line, where it is handled
            _lost.append(text if cause is None or str(cause) in text else f"{text}: {cause!r}")

    logger.add(look, level=0, catch=False)
    if arguments.output_path:
        _check_writable(Path(arguments.output_path))
    # lmms-eval warns of this before it makes a task manager.
    if arguments.swanlab_args and frame.f_back is not None and frame.f_back.f_locals.get("swanlab_logger", 0) is None:
        raise RuntimeError("--swanlab_args: SwanLab could not be started, see above; nothing was evaluated")


def fail(text: str) -> None:
    """End the command with status 1."""
    told = "".join(f"\ntimelens-plugins: {line}" for line in (*_lost, text))
    print(told, file=sys.stderr, flush=True)
    raise SystemExit(1)


def _is_ours(arguments: Any, manager: Any) -> bool:
    """Whether the run is about our model, one of our tasks, or a name that was meant to be one."""
    from timelens_plugins.evaluation.specs import SPEC_KEY, specs_of

    names = (arguments.tasks or "").split(",")
    if arguments.model == _MODEL or any(Path(name).name.startswith(_MODEL) for name in names):
        return True
    try:
        found = [task for name in names for task in fnmatch.filter(manager.task_index, name)]
        return bool(specs_of(found, manager)) or any(SPEC_KEY in config for config in _files(names))
    except ValueError:
        return True  # a task of ours whose spec is wrong


def _files(names: list[str]) -> list[dict[str, Any]]:
    """What stands in task files that are given by their paths, or by that of their folder."""
    from lmms_eval import utils

    paths = [Path(name) for name in names if name]
    files = [file for path in paths for file in (path.glob("*.yaml") if path.is_dir() else [path]) if file.is_file()]
    return [utils.load_yaml_config(str(file), mode="simple") for file in files]


def _check_writable(folder: Path) -> None:
    """Make the folder, and a file in it that is gone again."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"--output_path {folder}: {error.strerror or error}; nothing was evaluated") from error


def ending_with_status(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """``make_table``, by which the command prints results at its end: after the last table nothing more comes."""

    def make_table(result_dict: Any, column: str = "results", *args: Any, **kwargs: Any) -> Any:
        table = upstream(result_dict, column, *args, **kwargs)
        caller = sys._getframe(1)
        done = [one for one in caller.f_locals.get("results_list", ()) if one is not None]
        if _lost and done and result_dict is done[-1] and (column == "groups" or "groups" not in result_dict):
            print(table, flush=True)
            fail("the results are there, what is named above is not")
        return table

    return make_table


def checking_saved_results(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """``EvaluationTracker.save_results_aggregated``, which only logs that it could not write."""

    def save_results_aggregated(self: Any, results: Any, *args: Any, **kwargs: Any) -> Any:
        done = upstream(self, results, *args, **kwargs)
        if _run and self.output_path:
            path = _folder(self) / f"{getattr(self, 'date_id', '')}_results.json"
            if not _reads_as_json(path):
                print(json.dumps(results.get("results"), indent=2, default=str), flush=True)  # not lost at least
                fail(f"the results above could not be written to {path}")
        return done

    return save_results_aggregated


def checking_saved_samples(upstream: Callable[..., Any]) -> Callable[..., Any]:
    """``EvaluationTracker.save_results_samples``, which only logs that it could not write."""

    def save_results_samples(self: Any, task_name: str, samples: Any, *args: Any, **kwargs: Any) -> Any:
        done = upstream(self, task_name, samples, *args, **kwargs)
        if _run and self.output_path:
            path = _folder(self) / f"{getattr(self, 'date_id', '')}_samples_{task_name}.jsonl"
            written = path.read_bytes().count(b"\n") if path.is_file() else 0
            if written != len(samples):
                fail(f"{written} of {len(samples)} samples of {task_name} were written to {path}")
        return done

    return save_results_samples


def _folder(tracker: Any) -> Path:
    return Path(tracker.output_path) / tracker.general_config_tracker.model_name_sanitized


def _reads_as_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
