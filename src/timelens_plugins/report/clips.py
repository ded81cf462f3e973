"""Which video file belongs to a moment, and the address under which a page can play it."""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from timelens_plugins.moments.videos import without_video_suffix
from timelens_plugins.report.table import Row
from timelens_plugins.suffixes import VIDEO_SUFFIXES

__all__ = ["ClipFinder", "link_to"]


class ClipFinder:
    """Finds the clips of moments below some folders, and nowhere else: what a results file names is not trusted.

    The path that the file gives is tried below each folder; then a file of the video's name anywhere below them. Where
    several have that name, one in a folder named in the path, or after the subset, is taken; otherwise none, and
    ``ambiguous`` counts the video. Links are followed as long as they stay below the folders; ``outside`` has the files
    that they lead to elsewhere.

    Args:
        folders: to look in, with everything below them.

    Raises:
        ValueError: one of them is not a folder.
    """

    def __init__(self, folders: Sequence[str | Path] = ()) -> None:
        self.folders = [Path(folder) for folder in folders]
        for folder in self.folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: --videos takes folders, and this is none")
        self.ambiguous: set[str] = set()
        self.outside: set[Path] = set()
        self._roots = [folder.resolve() for folder in self.folders]
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._found: dict[tuple[str, str], Path | None] = {}
        for folder in self.folders:
            for path, real in _files_below(folder):
                if path.suffix.lower() not in VIDEO_SUFFIXES:
                    continue
                if self._is_inside(real):
                    self._by_name[path.stem].append(path)
                else:
                    self.outside.add(real)

    def find(self, row: Row) -> Path | None:
        """The clip of a moment, if it is there."""
        key = (row.path or row.video, row.subset)
        if key not in self._found:
            self._found[key] = self._look(Path(row.path or row.video), row.subset)
        return self._found[key]

    def _look(self, path: Path, subset: str) -> Path | None:
        for folder in self.folders:
            candidate = folder / path
            with suppress(OSError, ValueError):  # of a name that no file can have
                if candidate.suffix.lower() in VIDEO_SUFFIXES and candidate.is_file():
                    if self._is_inside(candidate.resolve()):
                        return candidate
                    self.outside.add(candidate.resolve())
        named = list(dict.fromkeys(self._by_name.get(without_video_suffix(path.name), ())))
        if len({file.resolve() for file in named}) <= 1:
            return named[0] if named else None
        hints = {*path.parent.parts, *subset.replace("_", " ").split(), subset}
        hinted = [file for file in named if hints & set(file.parent.parts[-2:])]
        if len({file.resolve() for file in hinted}) == 1:
            return hinted[0]
        self.ambiguous.add(path.name)
        return None

    def _is_inside(self, real: Path) -> bool:
        return any(real.is_relative_to(root) for root in self._roots)


def _files_below(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Every file below a folder and where it really is, the nearest first; unreadable folders are empty.

    A folder reached by several links is listed under each pair of names it ends in, as clips of one name are told apart
    by these. There are finitely many, so that links which lead back to where they lie come to an end.
    """
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = deque([folder])
    while waiting:
        place = waiting.popleft()
        real = os.path.realpath(place)
        known = (real, place.parts[-2:])
        if known in seen:
            continue
        seen.add(known)
        with suppress(OSError), os.scandir(place) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    waiting.append(place / entry.name)
                else:
                    is_link = entry.is_symlink()
                    yield place / entry.name, Path(os.path.realpath(entry.path) if is_link else f"{real}/{entry.name}")


def link_to(clip: Path, page: Path) -> str:
    """Address of a clip as seen from the page: relative, so that a folder with both can be moved; quoted for a URL."""
    target, start = clip.resolve(), page.resolve().parent
    try:
        relative = os.path.relpath(target, start)
    except ValueError:  # another drive
        return target.as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))
