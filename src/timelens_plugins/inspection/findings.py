"""What a check found, and how findings are printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

__all__ = ["Finding", "Status", "as_json", "guarded", "render", "worst"]

Status = Literal["ok", "note", "warning", "broken"]
"""``note``: nothing to do. ``warning``: works, but slower or differently than it should. ``broken``: results would be
wrong, or a part does not run."""

_ORDER: tuple[Status, ...] = ("ok", "note", "warning", "broken")
_WIDTH = 100


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        area: what was looked at, such as ``video`` or ``checkpoint``.
        status: how it stands.
        text: what was seen.
        remedy: what to do about it; every warning and everything broken has one.
    """

    area: str
    status: Status
    text: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status in ("warning", "broken") and not self.remedy:
            raise ValueError(f"a {self.status} finding needs a remedy: {self.text}")


def guarded(area: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of one section; whatever it raises is one more, so that the others are still seen."""
    try:
        yield from check()
    except Exception as error:  # what a broken installation raises cannot be foreseen
        said = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {said[0] if said else 'no message'}"
        yield Finding(
            area, "broken", text, "see the versions and imports above for a package that is broken or refused"
        )


def as_json(findings: Iterable[Finding]) -> str:
    """The findings as a JSON list of objects."""
    return json.dumps([asdict(finding) for finding in findings], indent=2, ensure_ascii=False)


def worst(findings: Iterable[Finding]) -> Status:
    """The gravest status; ``ok`` of nothing."""
    return max((f.status for f in findings), key=_ORDER.index, default="ok")


def render(findings: Iterable[Finding]) -> Iterator[str]:
    """Lines for a terminal, under a heading per area."""
    area = None
    for finding in findings:
        if finding.area != area:
            if area is not None:
                yield ""
            yield (area := finding.area)
        yield from _wrapped(finding.text, f"  {finding.status:<8} ")
        if finding.remedy:
            yield from _wrapped(finding.remedy, f"  {'':<8} → ")


def _wrapped(text: str, lead: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )
