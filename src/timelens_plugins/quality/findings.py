"""What an audit finds: a :class:`Finding` of one of the five kinds of label error, with its evidence and its chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["KINDS", "Evidence", "Finding", "Kind"]

Kind = Literal["absent", "several", "duplicate", "unclear", "inaccurate"]
"""The five kinds of label error of TimeLens (arXiv 2512.14698, section 3): the event does not occur in the video; it
occurs several times; the same query stands twice for one video; the query is unclear; the span is inaccurate."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sign of one kind of error.

    Attributes:
        moment: id of the moment that may be wrong.
        kind: of error.
        signal: name of the sign; :mod:`timelens_plugins.quality.calibration` knows what each is worth.
        strength: how plain the sign is, 0..1, comparable within one signal only.
        reason: in words, with the figures.
        others: ids of moments it is compared with.
        spans: spans in seconds that the sign points to, such as a better one.
    """

    moment: str
    kind: Kind
    signal: str
    strength: float
    reason: str
    others: tuple[str, ...] = ()
    spans: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One moment that may have one kind of error.

    Attributes:
        score: chance that the moment has this error, 0..1, as measured on seeded errors.
        evidence: strongest first.
    """

    moment: str
    video: str
    query: str
    spans: tuple[tuple[float, float], ...]
    kind: Kind
    score: float
    evidence: tuple[Evidence, ...] = field(default_factory=tuple)

    def to_row(self) -> dict[str, Any]:
        """The finding as JSON types; :meth:`from_row` gives it back."""
        return {
            "moment": self.moment,
            "video": self.video,
            "query": self.query,
            "spans": [list(span) for span in self.spans],
            "kind": self.kind,
            "score": round(self.score, 4),
            "evidence": [
                {
                    "signal": e.signal,
                    "strength": round(e.strength, 4),
                    "reason": e.reason,
                    "others": list(e.others),
                    "spans": [list(span) for span in e.spans],
                }
                for e in self.evidence
            ],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Finding:
        """The finding of a :meth:`to_row`.

        Raises:
            ValueError: a field is missing or of another type, the kind is unknown, or the score no chance.
        """
        try:
            kind = row["kind"]
            if kind not in KINDS:
                raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
            evidence = tuple(
                Evidence(
                    str(row["moment"]),
                    kind,
                    str(e["signal"]),
                    float(e["strength"]),
                    str(e["reason"]),
                    tuple(map(str, e["others"])),
                    tuple((float(a), float(b)) for a, b in e["spans"]),
                )
                for e in row["evidence"]
            )
            spans = tuple((float(a), float(b)) for a, b in row["spans"])
            score = float(row["score"])
            if not 0 <= score <= 1:
                raise ValueError(f"a score lies between 0 and 1, got {score}")
            return cls(str(row["moment"]), str(row["video"]), str(row["query"]), spans, kind, score, evidence)
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a finding of `timelens audit`: {error!r}") from error
