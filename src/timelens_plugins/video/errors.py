"""What can go wrong: with a video file, and with a backend that is asked to read it."""

from __future__ import annotations

__all__ = ["BackendError", "VideoError", "fault_of"]

MAX_SHOWN = 500  # characters of a path; an address that holds a video has millions


class VideoError(ValueError):
    """A video cannot be read as asked. The message names the file, the fault and, where there is one, the remedy."""

    def __init__(self, path: str, fault: str) -> None:
        super().__init__(f"{_shown(path)}: {fault}")
        self.path = path
        self.fault = fault

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        return type(self), (self.path, self.fault)


class BackendError(Exception):
    """A backend cannot read a file that may well be intact; another may. The message says why, without the file."""


def fault_of(error: OSError | ValueError, path: str) -> str:
    """What is wrong with the file at ``path``, for a line that names it already."""
    if isinstance(error, VideoError):
        return error.fault
    return (getattr(error, "strerror", None) or str(error)).removeprefix(f"{path}: ")


def _shown(path: str) -> str:
    """A path in one line that can be printed: half characters, zero bytes and line ends escaped, long ones cut."""
    shown = path if path.isprintable() else path.encode("unicode_escape", "surrogatepass").decode("ascii")
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
