"""Names of video files: the id in a path, and the file on disk when its extension differs from the annotation's."""

from __future__ import annotations

from pathlib import Path

__all__ = ["VIDEO_SUFFIXES", "find_video", "without_video_suffix"]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


def without_video_suffix(path: str) -> str:
    """``path`` without the extension of a video file. Other dots stay: ids such as ``x_60.0_210.0`` end in one.

    >>> without_video_suffix("clips/x_60.0_210.0.mp4"), without_video_suffix("x_60.0_210.0")
    ('clips/x_60.0_210.0', 'x_60.0_210.0')
    """
    stem, dot, suffix = path.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES else path


def find_video(path: str | Path) -> Path:
    """The file at ``path``, or the one that differs from it only in a video extension.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: several files differ from it only in the extension.
    """
    path = Path(path)
    if path.is_file():
        return path
    stem = without_video_suffix(path.name)
    others = [other for suffix in VIDEO_SUFFIXES if (other := path.with_name(stem + suffix)).is_file()]
    if len(others) > 1:
        names = ", ".join(other.name for other in others)
        raise ValueError(f"{path} is missing, and {names} stand beside it: keep one, or rename the right one")
    if not others:
        raise FileNotFoundError(f"no video at {path}, nor with another extension ({', '.join(VIDEO_SUFFIXES)})")
    return others[0]
