"""What is wrong with an annotation and where: :class:`Fault`, and :class:`AnnotationError` which raises one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AnnotationError", "Fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One structural fault: the file, the row in it, the field, the reason and what to do about it."""

    file: str
    row: str | None
    field: str | None
    reason: str
    remedy: str

    def __str__(self) -> str:
        place = [self.file, self.row, f"field {self.field!r}" if self.field else None]
        return f"{': '.join(p for p in place if p)}: {self.reason}; {self.remedy}"


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
