"""What lmms-eval leaves of an evaluation: the samples of every task, and one results file beside them.

All of them have the time of the evaluation in their names. The results file records scores and settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from timelens_plugins.renamed import RENAMED
from timelens_plugins.results.json_files import read_json

__all__ = [
    "RESULTS_NAME",
    "SAMPLES_NAME",
    "Record",
    "evaluations_of",
    "model_arguments",
    "read_record",
]

RESULTS_NAME = "results.json"  # <time>_results.json
SAMPLES_NAME = re.compile(r"(?P<time>.*_|)samples_(?P<task>.+)\.jsonl")

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
    (
        "batch_size",
        "max_batch_size",
        "device",
        "device_map",
        "journal",
        "cache",
        "cache_gb",
        "clip_workers",
        "share_prefix",
        *RENAMED,
    )
)


@dataclass(frozen=True, slots=True)
class Record:
    """A results file of lmms-eval: ``results``, ``config`` and ``configs`` are objects; the rest may be absent."""

    path: Path
    content: Mapping[str, Any]

    @property
    def date(self) -> str:
        """Of the evaluation, as lmms-eval writes it."""
        return str(self.content.get("date", ""))

    @property
    def arguments(self) -> dict[str, Any]:
        """``--model_args``."""
        return model_arguments(self.content["config"].get("model_args"))

    @property
    def groups(self) -> dict[str, Any]:
        """Groups of tasks, whose rows of results are averages."""
        found = self.content.get("groups")
        return found if isinstance(found, dict) else {}

    def generation(self, task: str) -> dict[str, Any]:
        """Settings of generation, as they reached the task."""
        found = self._of_task("configs", task).get("generation_kwargs")
        return dict(found) if isinstance(found, dict) else {}

    def scores(self, task: str) -> dict[str, Any]:
        """The task's row of results."""
        return self._of_task("results", task)

    def count(self, task: str) -> int | None:
        """How many moments of the task were evaluated; None where it is not recorded."""
        count = self._of_task("n-samples", task).get("effective")
        return count if isinstance(count, int) else None

    def _of_task(self, name: str, task: str) -> dict[str, Any]:
        tasks = self.content.get(name)
        found = tasks.get(task) if isinstance(tasks, dict) else None
        return found if isinstance(found, dict) else {}


def read_record(path: Path) -> Record | None:
    """The results file at ``path``; None where lmms-eval did not write it.

    Raises:
        ValueError: it is not JSON, or lacks what such a file has.
        OSError: it cannot be read.
    """
    content = read_json(path)
    if not isinstance(content, dict) or "results" not in content:
        return None
    for name in ("results", "config", "configs"):
        if not isinstance(content.get(name), dict):
            raise ValueError(f"{path}: field '{name}' is missing or no object, so this is no results file of lmms-eval")
    return Record(path, content)


def model_arguments(given: object) -> dict[str, Any]:
    """``--model_args`` as a dictionary: lmms-eval records them as they were given, mostly as text."""
    if isinstance(given, Mapping):
        return dict(given)
    # A comma separates arguments where a name and "=" follow; elsewhere it belongs to a value.
    parts = re.split(r",(?=\s*\w+\s*=)", str(given or ""))
    return {name.strip(): value.strip() for name, found, value in (part.partition("=") for part in parts) if found}


def evaluations_of(files: Mapping[Path, Record | None]) -> tuple[str, bool] | None:
    """Which samples are of which evaluation, and whether the settings of all are known and the same.

    None where lmms-eval wrote all of the files at the same time.
    """
    parts = {file: m for file in files if (m := SAMPLES_NAME.fullmatch(file.name)) and m["time"]}
    times = sorted({m["time"] for m in parts.values()}, reverse=True)
    if len(times) < 2:
        return None
    said = "; ".join(
        f"{', '.join(m['task'] for m in parts.values() if m['time'] == time)} of {_date(time)}" for time in times
    )
    text = f"put together from {len(times)} evaluations: {said}."
    settings = {file: _settings(record, parts[file]["task"]) for file in parts if (record := files[file]) is not None}
    if unknown := [file for file in parts if file not in settings]:
        names = ", ".join(file.name for file in unknown)
        return f"{text} Whether their settings are the same is not known: no results file beside {names}.", False
    differing = _differences(settings, {file: _date(m["time"]) for file, m in parts.items()})
    if differing:
        return f"{text} Their settings differ: {'; '.join(differing)}.", False
    return f"{text} Their settings are the same.", True


def _settings(record: Record, task: str) -> dict[str, str]:
    """What lmms-eval recorded of an evaluation, by name."""
    found = {name: value for name, value in record.content["config"].items() if name not in MACHINE}
    found.pop("model_args", None)
    found |= {name: value for name, value in record.arguments.items() if name not in MACHINE_ARGUMENTS}
    if generation := record.generation(task):  # what of --gen_kwargs reached the task
        found.pop("gen_kwargs", None)
        found |= generation
    return {
        name: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for name, value in found.items()
    }


def _differences(settings: Mapping[Path, Mapping[str, str]], dates: Mapping[Path, str]) -> list[str]:
    """``fps 1.0 (2026-01-05 …), 2.0 (2026-03-01 …)`` for every setting that is not the same everywhere."""
    differing = []
    for name in dict.fromkeys(name for found in settings.values() for name in found):
        by_value: dict[str, dict[str, None]] = {}
        for file, found in settings.items():
            by_value.setdefault(_short(found.get(name, "unset")), {})[dates[file]] = None
        if len({found.get(name) for found in settings.values()}) > 1:
            differing.append(f"{name} " + ", ".join(f"{value} ({', '.join(when)})" for value, when in by_value.items()))
    return differing


def _date(time: str) -> str:
    try:
        return str(datetime.strptime(time, "%Y%m%d_%H%M%S_"))
    except ValueError:
        return time.rstrip("_")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
