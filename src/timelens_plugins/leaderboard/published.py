"""Published results on TimeLens-Bench, the protocol they were made with, and what one row of a board holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from timelens_plugins.metrics import THRESHOLDS, Interval

__all__ = ["Benchmark", "Entry", "Protocol", "Published", "load_published"]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One set of annotations.

    Attributes:
        key: name in files and on the command line, such as ``"charades-timelens"``.
        title: name in tables.
        annotations, videos: how many the published evaluation counts; None where that is not recorded here.
        refined: whether it is part of TimeLens-Bench; otherwise one of the benchmarks it relabels.
        tasks: lmms-eval tasks that read it.
        sets: whether answers are scored as sets of spans.
    """

    key: str
    title: str
    annotations: int | None
    videos: int | None
    refined: bool
    tasks: tuple[str, ...]
    sets: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """The official evaluation: in words, as arguments of the lmms-eval model ``timelens``, and of its generation."""

    title: str
    settings: Mapping[str, Any]
    generation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model on one benchmark. Scores and intervals are percentages.

    Attributes:
        model: name in the table.
        benchmark: a :attr:`Benchmark.key`.
        source: where the figures come from: a citation, or the file they were computed from.
        miou: under the benchmark's own reading: official for TimeLens-Bench, exact for the originals.
        recall: threshold to R1 under the same reading; empty where only the mIoU was published.
        run: what entries of one evaluation share; ``""`` for a published row.
        differences: what makes the figures incomparable with the official protocol's; none for a ranked row.
        notes: what a reader has to know of a row that may be ranked all the same.
        rules: how a published model was run, in words.
        interval: of the mIoU, at 95 % and clustered by video; None without samples.
        miou_exact, recall_exact: the same predictions without rounding; None and empty where not known.
        n, videos: annotations scored and their videos; None where not known.
        date: of the run, as lmms-eval writes it.
    """

    model: str
    benchmark: str
    source: str
    miou: float
    recall: Mapping[float, float]
    run: str = ""
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rules: str = ""
    interval: Interval | None = None
    miou_exact: float | None = None
    recall_exact: Mapping[float, float] | None = None
    n: int | None = None
    videos: int | None = None
    date: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is a run that was given, and not a published row."""
        return bool(self.run)


@dataclass(frozen=True, slots=True)
class Published:
    """All that ``published.json`` holds."""

    protocol: Protocol
    benchmarks: Mapping[str, Benchmark]
    entries: tuple[Entry, ...]

    def of_task(self, task: str) -> Benchmark | None:
        """The benchmark that an lmms-eval task reads; None for tasks of other benchmarks."""
        return next((b for b in self.benchmarks.values() if task in b.tasks), None)


def load_published() -> Published:
    """Read the data that comes with the package."""
    content = json.loads(files("timelens_plugins.leaderboard").joinpath("published.json").read_text(encoding="utf-8"))
    sources = content["sources"]
    entries = []
    for row in content["rows"]:
        source = sources[row["source"]]
        for benchmark, (*recall, miou) in row["scores"].items():
            known = {t: r for t, r in zip(THRESHOLDS, recall, strict=True) if r is not None}
            entries.append(
                Entry(
                    row["model"],
                    benchmark,
                    source["citation"],
                    miou,
                    known,
                    differences=tuple(source["differences"]),
                    rules=content["rules"].get(row["rules"], ""),
                )
            )
    benchmarks = [Benchmark(**(b | {"tasks": tuple(b["tasks"])})) for b in content["benchmarks"]]
    return Published(Protocol(**content["protocol"]), {b.key: b for b in benchmarks}, tuple(entries))
