"""What a validation finds: a :class:`Problem` of one of the :data:`CHECKS`, gathered in a :class:`ValidationReport`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["CHECKS", "Check", "Problem", "Severity", "ValidationReport"]

Severity = Literal["error", "warning"]

_SHOWN = 3  # problems of one check that the table spells out


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked for. An *error* makes an annotation unusable, a *warning* makes it doubtful."""

    name: str
    severity: Severity
    meaning: str


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check("schema", "error", "a row that cannot be read as an annotation"),
        Check("missing_video", "error", "no video file at the annotation's path"),
        Check("unreadable_video", "error", "a video file that cannot be decoded"),
        Check("span_outside_video", "error", "a span that starts after the video ends"),
        Check("zero_length_span", "error", "a span that covers no time"),
        Check("span_beyond_duration", "warning", "a span that ends after the stated duration"),
        Check("span_beyond_video", "warning", "a span that ends after the real end of the video"),
        Check("wrong_duration", "warning", "a stated duration that is not the video's, or a window that ends after it"),
        Check("several_durations", "warning", "one video stated with different durations"),
        Check("duplicate", "warning", "the same video, query and spans once more"),
        Check("repeated_query", "warning", "the same query about the same video with other spans"),
        Check("odd_query", "warning", "characters in a query that no annotator means to write"),
        Check("repeated_video", "warning", "one file's bytes under several video ids"),
        Check("similar_video", "warning", "the same pictures in several files"),
        Check("odd_video", "warning", "a file whose frames some readers get wrong"),
        Check("leaked_video", "warning", "a video that the other file holds too"),
        Check("leaked_query", "warning", "a near-equal query about the same video in the other file"),
    )
}
"""What is checked, by name, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        check: a name in :data:`CHECKS`.
        where: the row of the file, the moment's id or the video.
        reason: what is wrong, with the figures.
        moments: ids of the moments concerned; empty where no moment could be read.
    """

    check: str
    where: str
    reason: str
    moments: tuple[str, ...] = ()

    @property
    def severity(self) -> Severity:
        """``error`` or ``warning``, by the check."""
        return CHECKS[self.check].severity


@dataclass(frozen=True)
class ValidationReport:
    """What :func:`~timelens_plugins.quality.validate` found.

    Attributes:
        file: the annotations.
        format: what they were read as.
        moments, videos: how many were read.
        videos_checked: how many video files were opened; 0 where no folder was given.
        problems: in the order of :data:`CHECKS`.
        notes: what was not compared, a sentence each.
    """

    file: str
    format: str
    moments: int
    videos: int
    videos_checked: int = 0
    problems: Sequence[Problem] = field(default_factory=tuple)
    notes: Sequence[str] = ()

    def count(self, severity: Severity) -> int:
        """Problems of one severity."""
        return sum(problem.severity == severity for problem in self.problems)

    def table(self) -> str:
        """Counts by check, with the first problems of each."""
        opened = f", {self.videos_checked:,} video files opened" if self.videos_checked else ", videos not looked at"
        lines = [f"{self.file} ({self.format}): {self.moments:,} moments of {self.videos:,} videos{opened}"]
        counts = Counter(problem.check for problem in self.problems)
        for name, check in CHECKS.items():
            if not counts[name]:
                continue
            lines.append(f"{check.severity:8} {name:21} {counts[name]:8,}  {check.meaning}")
            found = [problem for problem in self.problems if problem.check == name]
            lines += [f"{'':9}{problem.where}: {problem.reason}" for problem in found[:_SHOWN]]
            if len(found) > _SHOWN:
                lines.append(f"{'':9}and {len(found) - _SHOWN:,} more")
        lines += self.notes
        errors, warnings = self.count("error"), self.count("warning")
        lines.append(f"{errors:,} errors, {warnings:,} warnings" if errors or warnings else "nothing found")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "file": self.file,
            "format": self.format,
            "moments": self.moments,
            "videos": self.videos,
            "videos_checked": self.videos_checked,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "notes": list(self.notes),
            "problems": [asdict(problem) | {"severity": problem.severity} for problem in self.problems],
        }
