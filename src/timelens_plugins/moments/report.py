"""What a load found: :class:`LoadedMoments`, and the :class:`LoadReport` that goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from timelens_plugins.moments.faults import Fault
from timelens_plugins.moments.moment import Moment

__all__ = ["LoadReport", "LoadedMoments"]

FAULTS_SHOWN = 10
NAMES_SHOWN = 12


@dataclass(frozen=True)
class LoadReport:
    """Counts of one load.

    Attributes:
        file: the annotation file.
        format: the format it was read as.
        rows: entries in the file: videos, objects or lines.
        moments: annotations loaded.
        videos: different ``video_id`` among them.
        flags: flag to the number of moments that carry it.
        largest_overrun: by how many seconds a span ends after its clip at most.
        skipped: the structural faults that ``on_error="skip"`` left out, a whole row or one annotation of it: the first
            thousand.
        left_out: how many there were.
        unused: fields of one's own rows that say nothing about a moment, and were not read.
    """

    file: str
    format: str
    rows: int
    moments: int
    videos: int
    flags: dict[str, int]
    largest_overrun: float
    skipped: tuple[Fault, ...]
    left_out: int = 0
    unused: tuple[str, ...] = ()

    def summary(self) -> str:
        """One line, and where something was skipped a line for each of the first faults."""
        text = f"{self.file} ({self.format}): {self.moments:,} moments of {self.videos:,} videos in {self.rows:,} rows"
        notes = []
        for flag, count in sorted(self.flags.items()):
            extent = f" (by up to {self.largest_overrun:.2f} s)" if flag == "span_beyond_duration" else ""
            notes.append(f"{count:,} {flag}{extent}")
        if notes:
            text += f"; flagged: {', '.join(notes)}"
        if self.unused:
            names = ", ".join(repr(name) for name in self.unused[:NAMES_SHOWN])
            more = f" and {len(self.unused) - NAMES_SHOWN:,} more" if len(self.unused) > NAMES_SHOWN else ""
            text += f"; not read: {names}{more}"
        if self.skipped:
            text += f"; SKIPPED: {self.left_out:,}"
            text += "".join(f"\n  {fault.left_out()}" for fault in self.skipped[:FAULTS_SHOWN])
            if self.left_out > FAULTS_SHOWN:
                text += f"\n  and {self.left_out - FAULTS_SHOWN:,} more"
        return text


class LoadedMoments(Sequence[Moment]):
    """The moments of a load in file order, with ``report``. Who passes ``on_error="skip"`` must show the report."""

    def __init__(self, moments: Sequence[Moment], report: LoadReport) -> None:
        self._moments = tuple(moments)
        self.report = report

    @overload
    def __getitem__(self, index: int) -> Moment: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Moment, ...]: ...
    def __getitem__(self, index: int | slice) -> Moment | tuple[Moment, ...]:
        return self._moments[index]

    def __len__(self) -> int:
        return len(self._moments)

    def __repr__(self) -> str:
        return f"<LoadedMoments {self.report.summary()}>"
