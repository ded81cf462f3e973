"""What is wrong with an annotation and where: :class:`Fault`, and :class:`AnnotationError` which raises one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

__all__ = ["BY_VALIDATE", "SKIP", "AnnotationError", "Fault", "skipped_by"]

SKIP = "load with on_error='skip'"
"""What leaves an annotation out, to who calls ``load_moments``; elsewhere :func:`skipped_by` says what does."""

BY_VALIDATE = "write a copy without it by timelens validate FILE --fix OUT"
"""What leaves it out where all annotations of a file count."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One structural fault: the file, the row in it, the field, the reason and what to do about it."""

    file: str
    row: str | None
    field: str | None
    reason: str
    remedy: str

    @property
    def place(self) -> str:
        """File, row and field."""
        place = [self.file, self.row, f"field {self.field!r}" if self.field else None]
        return ": ".join(p for p in place if p)

    def left_out(self) -> str:
        """What to say of a fault that was skipped: without the advice to skip it."""
        return f"{self.place}: {self.reason}" if SKIP in self.remedy else str(self)

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.remedy}"


class AnnotationError(ValueError):
    """An annotation that cannot be read as it stands. ``fault`` holds the parts of the message."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    @property
    def file(self) -> str:
        """The annotation file."""
        return self.fault.file

    @property
    def row(self) -> str | None:
        """Where in the file, such as ``line 3`` or ``video '3MSZA', annotation 2``; None for the file as a whole."""
        return self.fault.row

    @property
    def field(self) -> str | None:
        """The field at fault, where it is one field."""
        return self.fault.field

    @property
    def reason(self) -> str:
        """What is wrong."""
        return self.fault.reason


@contextmanager
def skipped_by(advice: str) -> Iterator[None]:
    """Faults raised inside advise what its user can do, in place of an argument of ``load_moments``.

    Args:
        advice: an order, such as ``"set on_bad_annotation: skip"``.
    """
    try:
        yield
    except AnnotationError as error:
        raise AnnotationError(replace(error.fault, remedy=error.fault.remedy.replace(SKIP, advice))) from None
