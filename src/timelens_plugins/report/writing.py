"""From runs to a file: :func:`write_report`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import write_whole
from timelens_plugins.leaderboard import board_tables, build_board, entries_of, load_published
from timelens_plugins.report.clips import ClipFinder, link_to
from timelens_plugins.report.page import render_page
from timelens_plugins.report.payload import payload, strip_order
from timelens_plugins.report.strips import StripBudget, Strips, check_decoders, make_strips
from timelens_plugins.report.table import tabulate
from timelens_plugins.report.training import training_curves
from timelens_plugins.results import Run, collection_paused

__all__ = ["check_output", "write_report"]


def write_report(
    runs: Sequence[Run],
    output: str | Path,
    *,
    videos: Sequence[str | Path] = (),
    training: Sequence[str | Path] | Mapping[str, str | Path] = (),
    strips: StripBudget | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    progress: bool = True,
) -> Path:
    """Write one self-contained HTML file about one or several runs.

    Args:
        runs: see :func:`~timelens_plugins.report.load_runs`; with several, the differences are of the later ones to the
            earlier ones.
        output: the file; an existing one is replaced in one step.
        videos: folders to find the clips in, for frames and playing. The page links to clips and does not hold them.
        training: ``trainer_state.json`` files or run folders, for the curves; a mapping names them.
        strips: how many frames are embedded; default: :class:`StripBudget`.
        title: of the page; default: the names of the runs.
        notes: sentences that the page shows among its notes.
        progress: show a progress bar while frames are read.

    Returns:
        The file.

    Raises:
        ValueError: no runs, two of one name, a folder that is none, a training log without curves, frames wanted where
            nothing is installed to decode them.
        OSError: a file cannot be read or written; where the page cannot be written is found before any work.
    """
    if not runs:
        raise ValueError("there is no run to report on")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f"the runs need different names, got {', '.join(map(repr, names))}")
    output = Path(output)
    check_output(output)
    budget = StripBudget() if strips is None else strips
    if videos and budget.clips:
        check_decoders()
    named = training.items() if isinstance(training, Mapping) else [(None, path) for path in training]
    curves = [training_curves(path, name) for name, path in named]
    finder = ClipFinder(videos)
    with collection_paused():
        table = tabulate(runs)
        clips = [finder.find(row) for row in table.rows]
    links = {clip: link_to(clip, output) for clip in dict.fromkeys(clips) if clip is not None}
    wanted = strip_order(table, clips) if budget.clips else []
    made = make_strips(wanted, budget, progress=progress) if wanted else Strips({}, 0, ())
    said = [*notes, *_clip_notes(finder, clips)]
    with collection_paused():
        content = payload(table, clips, links, made, curves, title=title or " · ".join(names), notes=said)
        page = render_page(content | {"leaderboard": _board(runs)})
    _replace(output, page)
    return output


def _board(runs: Sequence[Run]) -> dict[str, Any] | None:
    """The runs among the published results, where they are on one of those benchmarks."""
    published = load_published()
    entries = entries_of(runs, published)
    return board_tables(build_board(published, entries), [run.name for run in runs]) if entries else None


def check_output(output: str | Path) -> None:
    """Refuse, before any work, a path at which no page can be written.

    Raises:
        OSError: it is a folder, or lies where no file can be made.
    """
    output = Path(output)
    if output.is_dir():
        raise IsADirectoryError(f"{output}: a folder; name the page in it, such as {output / 'report.html'}")
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise NotADirectoryError(f"{output}: the page cannot be written there, {folder} is a file and no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{output}: the page cannot be written there, the folder {folder} is not writable")


def _replace(output: Path, page: str) -> None:
    """Write the page in one step; what goes wrong is told of the page and not of the file it is first written to."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, page)
    except OSError as error:
        raise OSError(f"{output}: the page cannot be written: {error.strerror}") from error


def _clip_notes(finder: ClipFinder, clips: Sequence[Path | None]) -> list[str]:
    if not finder.folders:
        return []
    absent = sum(clip is None for clip in clips)
    notes = [f"The clips of {absent} moments are not in the given folders."] if absent else []
    if finder.outside:
        shown = ", ".join(map(str, sorted(finder.outside)[:3]))
        notes.append(
            f"{len(finder.outside)} clips lie outside of the given folders and are not shown, though links or paths "
            f"lead there: {shown}. Give their folders, too (--videos)."
        )
    if finder.ambiguous:
        shown = ", ".join(sorted(finder.ambiguous)[:3])
        notes.append(
            f"Several files have the name of {len(finder.ambiguous)} videos, and none of them is taken: {shown}."
        )
    return notes
