"""What lmms-eval leaves in a folder: which samples files make a run, and whether evaluations put together are alike.

lmms-eval writes the samples of every task and one results file beside them, all with the time of the evaluation in
their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from timelens_plugins.metrics.results import OWN_METRIC, UPSTREAM_METRIC

__all__ = ["LMMS_EVAL_NAME", "evaluations_of", "samples_in"]

LMMS_EVAL_NAME = re.compile(r"(?P<time>\d{8}_\d{6})_samples_(?P<task>.+)")

# Of what lmms-eval records, that which chooses the machine and leaves the answers alone. Anything else is compared.
MACHINE = frozenset(
    (
        "batch_size",
        "batch_sizes",
        "device",
        "use_cache",
        "bootstrap_iters",
        "process_docs_parallel",
        "resolved_cli_args",
    )
)
MACHINE_ARGUMENTS = frozenset(
    ("batch_size", "max_batch_size", "device", "device_map", "journal", "decoder_threads", "share_prefill")
)


def samples_in(folder: Path) -> tuple[list[Path], list[str]]:
    """The samples files that make one run of a folder, and what a reader has to know of the choice, a sentence each.

    The newest evaluation counts where it holds every task; otherwise the newest file of each task. Files of tasks that
    are not about moments are passed over.

    Raises:
        ValueError: no samples of moments, or those of several models.
    """
    named = {file: m for file in sorted(folder.rglob("*.jsonl")) if (m := LMMS_EVAL_NAME.fullmatch(file.stem))}
    if not named:
        raise ValueError(
            f"{folder}: no samples of lmms-eval in this folder (*_samples_*.jsonl); was it run with --log_samples?"
        )
    others = [file for file in named if _is_of_another_task(file)]
    found = {file: (m["time"], m["task"]) for file, m in named.items() if file not in others}
    if not found:
        raise ValueError(
            f"{folder}: no samples of moments in this folder, only of other tasks: {_names(others)}; give the folder "
            "of a run of the timelens tasks"
        )
    if len(folders := sorted({str(file.parent) for file in found})) > 1:
        raise ValueError(f"{folder}: holds results of several models, give each folder: {', '.join(folders)}")
    newest = {task: file for (_, task), file in sorted((key, file) for file, key in found.items())}
    left = [file for file in found if file not in newest.values()]
    notes = [f"{folder}: passed over, samples of other tasks: {_names(others)}."] if others else []
    if left:
        notes.append(f"{folder}: older samples of the same tasks are not shown: {_names(left)}.")
    return list(newest.values()), notes


def evaluations_of(files: Sequence[Path]) -> tuple[str, bool] | None:
    """Which part of a run is of which evaluation, and whether the settings of all parts are known and the same.

    None where lmms-eval wrote all of the files at the same time.
    """
    parts = {file: m for file in files if (m := LMMS_EVAL_NAME.fullmatch(file.stem))}
    times = sorted({m["time"] for m in parts.values()}, reverse=True)
    if len(times) < 2:
        return None
    said = "; ".join(
        f"{', '.join(m['task'] for m in parts.values() if m['time'] == time)} of {_date(time)}" for time in times
    )
    text = f"put together from {len(times)} evaluations: {said}."
    settings = {file: _settings(file, m["time"], m["task"]) for file, m in parts.items()}
    if unknown := [file for file, found in settings.items() if found is None]:
        return (
            f"{text} Whether their settings are the same is not known: no results file beside {_names(unknown)}.",
            False,
        )
    differing = _differences({file: found for file, found in settings.items() if found is not None}, parts)
    if differing:
        return f"{text} Their settings differ: {'; '.join(differing)}.", False
    return f"{text} Their settings are the same.", True


def _is_of_another_task(file: Path) -> bool:
    """Whether the first row is one of lmms-eval without a moment in it. What is no such row is left to the readers."""
    with file.open(encoding="utf-8-sig", errors="replace") as lines:
        first = next((line for line in lines if line.strip()), "")
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        return False
    if not isinstance(row, dict) or "doc_id" not in row:
        return False
    return not any(isinstance(row.get(metric), dict) for metric in (OWN_METRIC, UPSTREAM_METRIC))


def _settings(samples: Path, time: str, task: str) -> dict[str, str] | None:
    """What lmms-eval recorded of an evaluation, by name; None where it is not there to be read."""
    try:
        content = json.loads(samples.with_name(f"{time}_results.json").read_text(encoding="utf-8"))
        config, generation = content["config"], content["configs"][task].get("generation_kwargs")
        found = {name: value for name, value in config.items() if name not in MACHINE}
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    given = _arguments(found.pop("model_args", None))
    found |= {name: value for name, value in given.items() if name not in MACHINE_ARGUMENTS}
    if isinstance(generation, dict):  # what of --gen_kwargs reached the task
        found.pop("gen_kwargs", None)
        found |= generation
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in found.items()
    }


def _arguments(given: object) -> dict[str, Any]:
    """``--model_args``, recorded as text or as an object. A comma parts them only where a name and ``=`` follow."""
    if isinstance(given, dict):
        return given
    parts = (part.partition("=") for part in re.split(r",(?=\s*\w+\s*=)", str(given or "")))
    return {name.strip(): value.strip() for name, found, value in parts if found}


def _differences(settings: Mapping[Path, Mapping[str, str]], parts: Mapping[Path, re.Match[str]]) -> list[str]:
    """``fps 1.0 (2026-01-05 …), 2.0 (2026-03-01 …)`` for every setting that is not the same everywhere."""
    differing = []
    for name in dict.fromkeys(name for found in settings.values() for name in found):
        dates: dict[str, dict[str, None]] = {}
        for file, found in settings.items():
            dates.setdefault(_short(found.get(name, "unset")), {})[_date(parts[file]["time"])] = None
        if len({found.get(name) for found in settings.values()}) > 1:
            differing.append(f"{name} " + ", ".join(f"{value} ({', '.join(when)})" for value, when in dates.items()))
    return differing


def _date(time: str) -> str:
    try:
        return str(datetime.strptime(time, "%Y%m%d_%H%M%S"))
    except ValueError:
        return time


def _names(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
