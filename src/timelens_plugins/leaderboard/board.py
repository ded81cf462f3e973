"""Which entries may stand in one ranking, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from timelens_plugins.leaderboard.published import Entry, Published
from timelens_plugins.metrics import THRESHOLDS, average_interval

__all__ = ["AVERAGE", "Board", "Ranked", "Section", "build_board"]

AVERAGE = "average"
DIGITS = 1  # papers print one decimal: what is equal in it shares a rank


@dataclass(frozen=True, slots=True)
class Ranked:
    """An entry and its rank among those of the official protocol; no rank outside of it."""

    entry: Entry
    rank: int | None


@dataclass(frozen=True, slots=True)
class Section:
    """One benchmark.

    Attributes:
        key: of the benchmark, or ``"average"``.
        title: what a heading says.
        rankable: whether any entry could follow the official protocol.
        ranked: entries of the official protocol, published and given, best first.
        published_apart: published under another protocol; not to be compared with the ranked ones.
        given_apart: runs that differ from the protocol, each with its reasons.
    """

    key: str
    title: str
    rankable: bool
    ranked: tuple[Ranked, ...]
    published_apart: tuple[Ranked, ...]
    given_apart: tuple[Ranked, ...]

    @property
    def blocks(self) -> tuple[tuple[str, tuple[Ranked, ...]], ...]:
        """Title and rows of the blocks that are not empty."""
        published = (
            "published under another protocol, not comparable with the rows above"
            if self.rankable
            else "published; how each model was run stands beside it, where it is known"
        )
        blocks = (
            (
                "published with the benchmark, by the rules beside each, and given runs under the official protocol",
                self.ranked,
            ),
            (published, self.published_apart),
            ("given runs that are not comparable with the rows above", self.given_apart),
        )
        return tuple(block for block in blocks if block[1])


@dataclass(frozen=True, slots=True)
class Board:
    """All sections, and the protocol that ranked rows follow, in words."""

    protocol: str
    sections: tuple[Section, ...]


def build_board(
    published: Published, runs: Sequence[Entry] = (), *, original: bool = False, sets: bool = False
) -> Board:
    """Sort published rows and runs into sections.

    A benchmark is shown where a run has results on it, without runs every refined one; the average over the three
    refined benchmarks where a run has all of them.

    Args:
        published: the published rows.
        runs: as of :func:`timelens_plugins.leaderboard.read_entries`.
        original: also show what was published on the original annotations.
        sets: also show what was published on benchmarks whose answers are sets of spans.
    """
    entries = [*published.entries, *runs]
    touched = {entry.benchmark for entry in runs}
    sections = []
    for benchmark in published.benchmarks.values():
        asked = sets if benchmark.sets else original
        shown = benchmark.key in touched or (benchmark.refined and not runs) or (asked and not benchmark.refined)
        if shown:
            title = benchmark.title + (", answers as sets of spans" if benchmark.sets else "")
            if benchmark.annotations is not None:
                title += f": {benchmark.annotations} annotations, {benchmark.videos} videos"
            sections.append(_section(benchmark.key, title, benchmark.refined, entries))
    refined = [b.key for b in published.benchmarks.values() if b.refined]
    averages = _averages(entries, refined)
    if not runs or any(entry.ours for entry in averages):
        title = f"Average of {', '.join(published.benchmarks[key].title for key in refined)}"
        sections.append(_section(AVERAGE, title, True, averages))
    return Board(published.protocol.title, tuple(sections))


def _section(key: str, title: str, rankable: bool, entries: Iterable[Entry]) -> Section:
    here = sorted((e for e in entries if e.benchmark == key), key=lambda e: (-round(e.miou, DIGITS), e.model))
    comparable = [e for e in here if not e.differences]
    ranked = [Ranked(e, 1 + sum(_better(other, e) for other in comparable)) for e in comparable]
    apart = [Ranked(e, None) for e in here if e.differences]
    return Section(
        key,
        title,
        rankable,
        tuple(ranked),
        tuple(row for row in apart if not row.entry.ours),
        tuple(row for row in apart if row.entry.ours),
    )


def _better(a: Entry, b: Entry) -> bool:
    return round(a.miou, DIGITS) > round(b.miou, DIGITS)


def _averages(entries: Sequence[Entry], benchmarks: Sequence[str]) -> list[Entry]:
    """The plain mean over the benchmarks, of every model or run that has them all."""
    groups: dict[tuple[str, str, str], dict[str, Entry]] = {}
    for entry in entries:
        if entry.benchmark in benchmarks:
            source = "" if entry.ours else entry.source
            groups.setdefault((entry.run, entry.model, source), {})[entry.benchmark] = entry
    return [_mean([group[key] for key in benchmarks]) for group in groups.values() if len(group) == len(benchmarks)]


def _mean(parts: Sequence[Entry]) -> Entry:
    first = parts[0]
    exact = [part.miou_exact for part in parts if part.miou_exact is not None]
    recalls_exact = [part.recall_exact for part in parts if part.recall_exact is not None]
    counts = [part.n for part in parts if part.n is not None]
    videos = [part.videos for part in parts if part.videos is not None]
    size = len(parts)
    return Entry(
        model=first.model,
        benchmark=AVERAGE,
        source="; ".join(dict.fromkeys(part.source for part in parts)),
        miou=_plain(part.miou for part in parts),
        recall={t: _plain(part.recall[t] for part in parts) for t in THRESHOLDS if all(t in p.recall for p in parts)},
        run=first.run,
        differences=tuple(dict.fromkeys(d for part in parts for d in part.differences)),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        rules="; ".join(dict.fromkeys(part.rules for part in parts)),
        interval=average_interval([part.miou for part in parts], [part.interval for part in parts]),
        miou_exact=_plain(exact) if len(exact) == size else None,
        recall_exact=(
            {t: _plain(recall[t] for recall in recalls_exact) for t in THRESHOLDS}
            if len(recalls_exact) == size
            else None
        ),
        n=sum(counts) if len(counts) == size else None,
        videos=sum(videos) if len(videos) == size else None,
        date=first.date,
    )


def _plain(values: Iterable[float]) -> float:
    given = list(values)
    return math.fsum(given) / len(given)
