"""The moments of all runs in one table: which moments the runs share, and what each run answered to each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from timelens_plugins.answers import normalize_query
from timelens_plugins.metrics import video_name
from timelens_plugins.results import Case, Run, Window
from timelens_plugins.spans import Span

__all__ = ["Row", "Table", "tabulate"]

Key: TypeAlias = tuple[str, str, tuple[Span, ...], Window | None, str]

DURATION_TOLERANCE = 0.5  # seconds by which two runs may state the duration of a clip differently


@dataclass(frozen=True, slots=True)
class Row:
    """A moment and each run's case of it; None where a run does not hold it."""

    subset: str
    video: str
    query: str
    target: tuple[Span, ...]
    duration: float | None
    window: Window | None
    path: str
    cases: tuple[Case | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All moments of all runs.

    Attributes:
        runs: with the same name for the same subset in all of them.
        rows: a moment each, those of the first run first. Exact repetitions of an annotation are rows of their own.
        notes: what had to be settled between the runs.
    """

    runs: tuple[Run, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def subsets(self) -> list[str]:
        """In order of first appearance."""
        return list(dict.fromkeys(row.subset for row in self.rows))

    def shared(self, a: int, b: int, subset: str | None = None) -> list[tuple[Case, Case]]:
        """Cases of the moments that runs ``a`` and ``b`` both hold, of one subset or of all."""
        chosen = (row for row in self.rows if subset is None or row.subset == subset)
        return [(x, y) for row in chosen if (x := row.cases[a]) is not None and (y := row.cases[b]) is not None]


def tabulate(runs: Sequence[Run]) -> Table:
    """Match the moments of the runs: by name of the video, normalised query, spans, window and subset.

    Files of different tools call subsets differently, so the subset's name is left out of the match unless moments of
    one run differ in nothing else; the first run's name then stands for all.
    """
    keys = [[_key(case) for case in run.cases] for run in runs]
    labelled = any(len({key[:-1] for key in of_run}) < len(set(of_run)) for of_run in keys)
    order: dict[tuple[Key, int], list[Case | None]] = {}
    for i, run in enumerate(runs):
        seen: Counter[Key] = Counter()
        for case, full in zip(run.cases, keys[i], strict=True):
            key = full if labelled else (*full[:-1], "")
            place = order.setdefault((key, seen[key]), [None] * len(runs))
            place[i] = case
            seen[key] += 1
    rows, renamed, durations = [], defaultdict[tuple[int, str, str], int](int), 0
    for cases in order.values():
        held = [case for case in cases if case is not None]
        first = held[0]
        subset = first.moment.subset
        stated = [case.moment.duration for case in held if case.moment.duration is not None]
        durations += bool(stated) and max(stated) - min(stated) > DURATION_TOLERANCE
        for i, of_run in enumerate(cases):
            if of_run is not None and of_run.moment.subset != subset:
                renamed[i, of_run.moment.subset, subset] += 1
        rows.append(
            Row(
                subset,
                first.moment.video,
                first.moment.query,
                first.moment.target,
                stated[0] if stated else None,
                first.window,
                first.path,
                tuple(c and _settled(c, first.moment.video, subset) for c in cases),
            )
        )
    notes = [
        f"{runs[i].name}: {count} moments of the subset {old or '(none)'!r} are shown as {new or '(none)'!r}, as "
        "another run calls them."
        for (i, old, new), count in renamed.items()
    ]
    if durations:
        notes.append(f"The runs state different durations for {durations} moments; the first run's is shown.")
    by_run = [tuple(c for row in rows if (c := row.cases[i]) is not None) for i in range(len(runs))]
    settled = tuple(replace(run, cases=cases) for run, cases in zip(runs, by_run, strict=True))
    return Table(settled, tuple(rows), tuple(notes))


def _key(case: Case) -> Key:
    moment = case.moment
    return video_name(moment.video), normalize_query(moment.query), moment.target, case.window, moment.subset


def _settled(case: Case, video: str, subset: str) -> Case:
    """With the table's name of video and subset, so that a run's clusters are those of every other run."""
    if (case.moment.video, case.moment.subset) == (video, subset):
        return case
    return replace(case, samples=tuple(replace(s, video=video, subset=subset) for s in case.samples))
