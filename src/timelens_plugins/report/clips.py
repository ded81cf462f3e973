"""Which video file belongs to a moment, and the address under which a page can play it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from timelens_plugins.metrics.samples import VIDEO_EXTENSIONS
from timelens_plugins.moments.videos import without_video_suffix
from timelens_plugins.report.table import Row

__all__ = ["ClipFinder", "link_to"]


class ClipFinder:
    """Finds the clips of moments below some folders.

    The path that the file gives is tried first, as it stands and below each folder; then a file of the video's name
    anywhere below them. Where several have that name, one in a folder named in the path, or after the subset, is taken;
    otherwise none, and ``ambiguous`` counts the video.

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
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._found: dict[tuple[str, str], Path | None] = {}
        for folder in self.folders:
            for root, _, files in os.walk(folder):
                for file in sorted(files):
                    path = Path(root, file)
                    if path.suffix.lower() in VIDEO_EXTENSIONS:
                        self._by_name[path.stem].append(path)

    def find(self, row: Row) -> Path | None:
        """The clip of a moment, if it is there."""
        key = (row.path or row.video, row.subset)
        if key not in self._found:
            self._found[key] = self._look(Path(row.path or row.video), row.subset)
        return self._found[key]

    def _look(self, path: Path, subset: str) -> Path | None:
        for candidate in (path, *(folder / path for folder in self.folders)):
            if candidate.suffix.lower() in VIDEO_EXTENSIONS and candidate.is_file():
                return candidate
        named = list(dict.fromkeys(self._by_name.get(without_video_suffix(path.name), ())))
        if len({file.resolve() for file in named}) <= 1:
            return named[0] if named else None
        hints = {*path.parent.parts, *subset.replace("_", " ").split(), subset}
        hinted = [file for file in named if hints & set(file.parent.parts[-2:])]
        if len(hinted) == 1:
            return hinted[0]
        self.ambiguous.add(path.name)
        return None


def link_to(clip: Path, page: Path) -> str:
    """Address of a clip as seen from the page: relative, so that a folder with both can be moved; quoted for a URL."""
    target, start = clip.resolve(), page.resolve().parent
    try:
        relative = os.path.relpath(target, start)
    except ValueError:  # another drive
        return target.as_uri()
    return quote(Path(relative).as_posix())
