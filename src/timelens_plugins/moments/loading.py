"""Annotations in, moments out: :func:`load_moments`, :func:`moments_from_rows`; and to a file: :func:`save_moments`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from timelens_plugins.moments.assembly import Assembler
from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.files import Document, Entry, Layout, read_document
from timelens_plugins.moments.formats import format_by_name, format_of
from timelens_plugins.moments.moment import Moment
from timelens_plugins.moments.report import LoadedMoments, LoadReport
from timelens_plugins.moments.rows import Row

__all__ = ["OnError", "load_moments", "moments_from_rows", "save_moments"]

OnError = Literal["raise", "skip"]


def load_moments(
    path: str | Path,
    format: str | None = None,  # noqa: A002 - the word for it
    video_root: str | Path | None = None,
    on_error: OnError = "raise",
    *,
    source: str | None = None,
) -> LoadedMoments:
    """Read an annotation file.

    Args:
        path: the file.
        format: a name in :data:`~timelens_plugins.moments.FORMATS`; None recognises it from the content.
        video_root: folder that the video paths of the annotations start from; they are not looked for.
        on_error: ``"raise"`` stops at the first structural fault. ``"skip"`` leaves out the annotation at fault, or the
            whole entry where nothing of it can be read, and lists it in the report, which the caller must show.
        source: name of the data set or subset; None takes what the annotations say, else the format's name.

    Returns:
        The moments in file order, with ``report``.

    Raises:
        AnnotationError: a structural fault, naming file, row and field; content of no known format; nothing to load.
        ValueError: an unknown ``format`` or ``on_error``.
        OSError: the file cannot be read.
    """
    _check(format, on_error)
    return _load(read_document(path), format, video_root, on_error, source)


def moments_from_rows(
    rows: Iterable[Mapping[str, Any]],
    format: str | None = None,  # noqa: A002 - the word for it
    video_root: str | Path | None = None,
    on_error: OnError = "raise",
    *,
    source: str | None = None,
    name: str = "rows",
) -> LoadedMoments:
    """As :func:`load_moments`, from rows at hand, such as those of a hub data set; messages call them ``name``."""
    _check(format, on_error)
    entries = [Entry(f"row {i}", dict(row) if isinstance(row, Mapping) else row) for i, row in enumerate(rows, 1)]
    return _load(Document(name, Layout.ROWS, entries), format, video_root, on_error, source)


def save_moments(moments: Iterable[Moment], path: str | Path) -> None:
    """Write moments as JSON Lines that :func:`load_moments` reads back as they are. Replaces the file in one step."""
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for moment in moments:
                file.write(json.dumps(moment.to_row(), allow_nan=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(name: str | None, on_error: str) -> None:
    if name is not None:
        format_by_name(name)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")


def _load(
    document: Document, name: str | None, video_root: str | Path | None, on_error: OnError, source: str | None
) -> LoadedMoments:
    if not document.entries:
        raise AnnotationError(Fault(document.file, None, None, "holds no annotations", "fetch or write it again"))
    chosen = format_by_name(name) if name is not None else format_of(document)
    if document.layout is not chosen.layout:
        reason = f"{chosen.name} is {chosen.layout.value}, this is {document.layout.value}"
        raise AnnotationError(Fault(document.file, None, None, reason, "leave format= out to have it recognised"))
    assembler = Assembler(video_root, source, default_source=chosen.name)
    moments: list[Moment] = []
    skipped: list[Fault] = []

    def failed(error: AnnotationError) -> None:
        if on_error == "raise":
            raise error
        skipped.append(error.fault)

    for entry in document.entries:
        try:
            if entry.fault is not None:
                raise AnnotationError(entry.fault)
            rows = list(chosen.split(Row(entry.value, document.file, entry.label, entry.key)))
        except AnnotationError as error:
            failed(error)
            continue
        for row in rows:
            try:
                moments.append(assembler.assemble(chosen.read(row), row))
            except AnnotationError as error:
                failed(error)
    if not moments:
        first = f"; the first fault: {skipped[0]}" if skipped else ""
        reason = f"no annotation could be loaded from {len(document.entries)} rows{first}"
        raise AnnotationError(Fault(document.file, None, None, reason, f"is this {chosen.name}?"))
    report = LoadReport(
        file=document.file,
        format=chosen.name,
        rows=len(document.entries),
        moments=len(moments),
        videos=len({moment.video_id for moment in moments}),
        flags=dict(sorted(Counter(flag for moment in moments for flag in moment.flags).items())),
        largest_overrun=assembler.largest_overrun,
        skipped=tuple(skipped),
    )
    return LoadedMoments(moments, report)
