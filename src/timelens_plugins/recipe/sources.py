"""Names in a configuration that stand for files which something else makes, such as ``synthetic:training_set``.

What stands before the colon is an entry point of the group ``timelens_plugins.files``, of any installed package: a
function ``(name, folder) -> path`` that makes what the whole name stands for under a folder.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

__all__ = ["GROUP", "files_of"]

GROUP = "timelens_plugins.files"


def files_of(name: str, folder: str) -> str:
    """The path of what a name stands for, made under ``folder``; a path or hub name as it is.

    Raises:
        ValueError: nothing that is installed makes what the name stands for, or two packages do.
    """
    scheme, colon, _ = name.partition(":")
    if not colon or len(scheme) == 1 or Path(name).exists():  # a drive of Windows has one letter
        return name
    found = list(entry_points(group=GROUP, name=scheme))
    if not found:
        raise ValueError(
            f"{name}: no such file, and no installed package makes files for names that begin with '{scheme}:' (entry "
            f"point group {GROUP}); after an update of the package that does, install it again"
        )
    if len(found) > 1:
        raise ValueError(f"{name}: {' and '.join(point.value for point in found)} both make such files")
    return str(found[0].load()(name, folder))
