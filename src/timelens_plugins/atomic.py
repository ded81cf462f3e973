"""Files that are whole under their name: written beside it, synced, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["NO_FOLLOW", "refuse_special", "replacing", "write_whole"]

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Flag of ``os.open``: a link in the last place is an error. 0 on systems that have no such flag."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new, empty file in the folder of ``path``, which takes its place when the block is through.

    Until then ``path`` is what it was, and it stays so where the block or the disk fails. The new file has a name that
    nobody else chose and is no link, so several processes may write the same ``path``: the last one counts. A kill
    leaves at most a hidden file ending in ``.part``.

    Args:
        path: of the file; its folder exists.

    Raises:
        OSError: it cannot be written, with the name of ``path``; a device, a pipe or a socket, which is never replaced.
    """
    path = Path(path)
    refuse_special(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o666))
        try:
            yield part
            with part.open("r+b") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(part), part):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def refuse_special(path: Path) -> None:
    """Refuse what a file must not take the place of: root could rename one over ``/dev/null`` or ``/dev/stdout``.

    Raises:
        OSError: ``path`` is a device, a pipe or a socket, or a link to one, or a name in ``/dev``, as ``/dev/stdout``
            may lead to a file.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = stat.S_IFREG  # nothing that could be replaced
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or path.absolute().parent == Path("/dev"):
        raise OSError(f"{path}: a device, pipe or socket, which no file may replace; name a file to write")


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Make ``text``, in UTF-8, the content of ``path``; see :func:`replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
