"""What is left of the memory that a container, or another control group of Linux, may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["free_in_container"]

_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def free_in_container(root: Path = Path("/")) -> int | None:
    """Bytes until a limit on the process's control groups, or on one around them, is reached; None without a limit.

    The cache of files that were not used of late counts as free, as the kernel gives it up first.

    Args:
        root: of the file system.
    """
    left = [free for folder, names in _groups(root) if (free := _free(folder, *names)) is not None]
    return min(left, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """The folders of the groups that bound this process's memory, and the names of what stands in them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if controllers else "sys/fs/cgroup")
        group = PurePosixPath(path.lstrip("/"))  # of the host where the container sees no other: then the mount's own
        for part in (group, *group.parents):
            yield mount / part, _V1 if controllers else _V2


def _free(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such group, or one without bounds on memory
        return None
    return None if most == "max" else max(0, int(most) - used + int(stat.get(cache, 0)))
