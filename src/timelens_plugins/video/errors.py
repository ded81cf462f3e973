"""What can go wrong: with a video file, and with a backend that is asked to read it."""

from __future__ import annotations

__all__ = ["BackendError", "VideoError"]


class VideoError(ValueError):
    """A video cannot be read as asked. The message names the file, the fault and, where there is one, the remedy."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(f"{path}: {fault}")
        self.path = path
        self.fault = fault

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.fault)


class BackendError(Exception):
    """A backend cannot read a file that may well be intact; another may. The message says why, without the file."""
