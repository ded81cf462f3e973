"""What a sign is worth: the share of moments with it that are wrong.

``calibration.json`` holds what was measured on seeded errors, one moment in ten of each kind, for each signal in bands
of its strength: the share of moments with the sign that were wrong (*precision*), and the share of the errors of its
kind that showed it (*recall*). ``benchmarks/audit.py --calibrate`` writes it.

Seeded errors are not real ones. Where findings with a sign were read on real benchmarks (``docs/audit.md``), at least
ten of a band, the share that was right counts instead; ``read`` holds right ones and all.

Right moments of another file may show a sign far more often: in some sets, many events do last the whole clip. That can
be seen in the file itself. If one moment in ten is wrong and a share r of those show a sign that a share f of all
moments surely shows (two standard deviations below what is counted), at most 0.1 r / f of the moments with it are
wrong; so no score is above that. Files with more errors than that get scores that are too low; the order stays.
"""

from __future__ import annotations

import bisect
import functools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from timelens_plugins.quality.findings import Evidence, Kind

__all__ = ["BANDS", "FILE", "Scorer", "measure"]

FILE = Path(__file__).with_name("calibration.json")

BANDS = (0.6, 0.7, 0.8, 0.9, 0.97)
"""Where one band of strength ends and the next begins."""

PRIOR = 0.1
"""Share of moments that are taken to have each kind of error."""

UNKNOWN = (0.2, 0.2)  # precision and recall of what was never measured

ENOUGH = 10
"""Findings of a band that have to be read before their share counts."""

Table = dict[str, list[tuple[float, float] | None]]


@functools.cache
def _table() -> Table:
    """Precision and recall by signal and band, readings taken into account."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    table: Table = content["signals"]
    for signal, bands in content["read"].items():
        known = table.setdefault(signal, [None] * (len(BANDS) + 1))
        for band, counts in enumerate(bands):
            if counts is not None and counts[1] >= ENOUGH:
                right, total = counts
                known[band] = ((right + 1) / (total + 2), (known[band] or UNKNOWN)[1])
    return table


def _band(evidence: Evidence) -> tuple[str, int]:
    return evidence.signal, bisect.bisect_right(BANDS, evidence.strength)


def _strongest(evidence: Iterable[Evidence]) -> list[Evidence]:
    """One sign a moment and signal."""
    best: dict[tuple[str, str], Evidence] = {}
    for sign in evidence:
        key = sign.moment, sign.signal
        if key not in best or best[key].strength < sign.strength:
            best[key] = sign
    return list(best.values())


class Scorer:
    """Chances for the signs of one file.

    Args:
        evidence: all of the file's.
        moments: how many moments the file has.
    """

    def __init__(self, evidence: Iterable[Evidence], moments: int) -> None:
        counts = Counter(map(_band, _strongest(evidence)))
        self._shares = {band: (count - 2 * count**0.5) / moments for band, count in counts.items()}

    def chance(self, evidence: Evidence) -> float:
        """The chance that a moment with this sign has this kind of error."""
        signal, band = _band(evidence)
        precision, recall = (_table().get(signal) or [None] * (len(BANDS) + 1))[band] or UNKNOWN
        share = self._shares[signal, band]
        return min(precision, PRIOR * recall / share) if share > 0 else precision

    def combined(self, evidence: Sequence[Evidence]) -> float:
        """The chance from several signs of one kind: what each signal's best one leaves of the chance to be right."""
        right = 1.0
        for sign in _strongest(evidence):
            right *= 1 - self.chance(sign)
        return 1 - right


def measure(evidence: Iterable[Evidence], wrong: Mapping[str, Kind]) -> Table:
    """Precision and recall by signal and band, with one right and one wrong moment added to each band that has any."""
    errors = Counter(wrong.values())
    counts: dict[str, list[list[int]]] = defaultdict(lambda: [[0, 0] for _ in range(len(BANDS) + 1)])
    kinds: dict[str, Kind] = {}
    for sign in _strongest(evidence):
        signal, band = _band(sign)
        kinds[signal] = sign.kind
        counts[signal][band][0] += wrong.get(sign.moment) == sign.kind
        counts[signal][band][1] += 1
    return {
        signal: [
            (round((hits + 1) / (total + 2), 4), round((hits + 1) / (errors[kinds[signal]] + 2), 4)) if total else None
            for hits, total in bands
        ]
        for signal, bands in sorted(counts.items())
    }
