"""Names of video files: addresses, the id in a path, and the file whose extension differs from the annotation's."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

from timelens_plugins.suffixes import VIDEO_SUFFIXES

__all__ = ["find_video", "read_address", "without_video_suffix"]

SCHEME = re.compile(r"(?i)(data:|[a-z][a-z0-9+.-]+://)")  # of more than one letter: C:// is a Windows drive
FILE_URL = re.compile(r"(?i)file:(//(localhost)?(?=/)|(?=/(?!/)))")


def read_address(video: str) -> tuple[str, str | None]:
    """The path that a video is named by, and what is wrong where it is the address of no file on this machine.

    A file of exactly that name comes first. ``file://`` is taken with and without percent encoding.

    >>> read_address("file:///videos/a%20b.mp4"), read_address("clips/a.mp4")
    (('/videos/a b.mp4', None), ('clips/a.mp4', None))
    """
    if not (SCHEME.match(video) or FILE_URL.match(video)) or _exists(video):
        return video, None
    if beginning := FILE_URL.match(video):
        path = video[beginning.end() :]
        return path if _exists(path) else unquote(path, errors="surrogateescape"), None
    if video.lower().startswith("file:"):
        return video, "is not an address of this machine; write file:///absolute/path, or the path itself"
    if video.lower().startswith("data:"):
        return video, "holds the video itself; write it to a file and give its path"
    return video, "is an address, not a file; download it first, and give the path (or file:// and an absolute path)"


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # of a zero byte or a lone surrogate
        return False


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
        FileNotFoundError: there is neither, or the path is an address.
        ValueError: several files differ from it only in the extension.
    """
    named, fault = read_address(os.fspath(path))
    if fault is not None:
        raise FileNotFoundError(f"{named[:200]}: {fault}")
    path = Path(named)
    if path.is_file():
        return path
    stem = without_video_suffix(path.name)
    others = [other for suffix in VIDEO_SUFFIXES if (other := path.with_name(stem + suffix)).is_file()]
    if len(others) > 1:
        names = ", ".join(other.name for other in others)
        raise ValueError(f"{path}: missing, and {names} stand beside it: keep one, or rename the right one")
    if not others:
        raise FileNotFoundError(f"{path}: no video there, nor with another extension ({', '.join(VIDEO_SUFFIXES)})")
    return others[0]
