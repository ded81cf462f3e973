"""For ``gpu.py``: ways of computing one thing, timed in turn, and the record that keeps what was found."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ENOUGH_SECONDS = 10.0  # of one way: it is not run again after so many


@dataclasses.dataclass(frozen=True)
class Way:
    """One way of computing a case.

    Attributes:
        name: unique in its case.
        run: what is timed; gets what ``prepare`` returned.
        versus: other ways by name, and how often each must run to do what this one does.
        prepare: what has to be there before each run, not timed.
        expected: seconds of the first run, from those of the ways before it.
    """

    name: str
    run: Callable[[Any], Any]
    versus: Mapping[str, float] = dataclasses.field(default_factory=dict)
    prepare: Callable[[], Any] = lambda: None
    expected: Callable[[Mapping[str, float]], float] = lambda done: 0.0


class Record:
    """All results, written after each section and whenever something is added."""

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        self.output = output
        self.found: dict[str, Any] = {**about, "sections": {}, "results": [], "figures": {}}

    def section(self, name: str, status: str) -> None:
        """How a section ended: ``done``, or why not."""
        self.found["sections"][name] = status
        self.save()

    def save(self) -> None:
        """Write the file, whole under its name."""
        part = self.output.with_name(self.output.name + ".part")
        part.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        os.replace(part, self.output)


class Bench:
    """A section's means: the device, its time, and where results go.

    Args:
        record: keeps what is found.
        device: all of it runs on.
        until: end of the section's time, on the monotonic clock.
        rounds: runs of each way after the first, which warms up.
        where: what all results of the section have in common.
    """

    def __init__(
        self, record: Record, device: torch.device, until: float, rounds: int, where: Mapping[str, Any]
    ) -> None:
        self.record, self.device, self.until, self.rounds, self.where = record, device, until, rounds, where

    def left(self) -> float:
        """Seconds of the section that are left."""
        return self.until - time.monotonic()

    def figure(self, what: str, value: float) -> None:
        """A number that stands for itself."""
        name = ", ".join([self.where["model"], self.where["attention"], what])
        self.record.found["figures"][name] = round(value, 4)

    def note(self, what: str, values: Mapping[str, float], **case: Any) -> None:
        """Several numbers of one case that are not times."""
        rounded = {name: float(f"{value:.4g}") for name, value in values.items()}
        self.record.found["results"].append(
            {**self.where, **case, "way": what, "status": "measured", "values": rounded}
        )

    def measure(self, ways: Sequence[Way], **case: Any) -> dict[str, float]:
        """Median seconds of each way that ran; what did not is in the record with the reason.

        The first run of each way warms up, and is counted where there is no other. Further runs take turns.
        """
        runs: dict[str, list[float]] = {way.name: [] for way in ways}
        spent: dict[str, float] = {}
        peaks: dict[str, float] = {}
        problems: dict[str, str] = {}
        for turn in range(self.rounds + 1):
            for way in ways:
                known = runs[way.name]
                if way.name in problems or (known and spent[way.name] * (1 + 1 / len(known)) > ENOUGH_SECONDS):
                    continue
                expected = (
                    spent[way.name] / len(known) if known else way.expected({n: r[0] for n, r in runs.items() if r})
                )
                if self.left() <= expected:
                    if not turn:
                        problems[way.name] = f"skipped: about {expected:.0f} s, and {max(0, self.left()):.0f} s left"
                    continue
                started = time.monotonic()
                seconds, peak, problem = self._once(way)
                if problem:
                    problems[way.name] = problem
                    self._clean()
                    continue
                known.append(seconds)
                spent[way.name] = spent.get(way.name, 0.0) + time.monotonic() - started
                peaks[way.name] = max(peak, peaks.get(way.name, 0.0))
        done = {name: statistics.median(one[1:] or one) for name, one in runs.items() if one}
        for way in ways:
            row = {**self.where, **case, "way": way.name, "status": problems.get(way.name, "measured")}
            if way.name in done:
                faster = {n: f * done[n] / done[way.name] for n, f in way.versus.items() if n in done}
                row |= {
                    "seconds": done[way.name],
                    "runs": runs[way.name],
                    "peak_gib": round(peaks[way.name] / 2**30, 2) if self.device.type == "cuda" else None,
                    "faster_than": {n: round(ratio, 3) for n, ratio in faster.items()},
                }
            self.record.found["results"].append(row)
        self.record.save()
        return done

    def _once(self, way: Way) -> tuple[float, float, str]:
        """Seconds, peak of allocated bytes, and what went wrong."""
        cuda = self.device.type == "cuda"
        try:
            prepared = way.prepare()
            if cuda:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            started = time.perf_counter()
            way.run(prepared)
            if cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        except torch.OutOfMemoryError:
            return 0.0, 0.0, "does not fit"
        except Exception as error:
            traceback.print_exc()
            return 0.0, 0.0, described(error)
        return seconds, float(torch.cuda.max_memory_allocated()) if cuda else 0.0, ""

    def _clean(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def described(error: Exception) -> str:
    """An error in one line."""
    return f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
