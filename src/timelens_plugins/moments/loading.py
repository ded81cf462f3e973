"""Annotations in, moments out: :func:`load_moments`, :func:`moments_from_rows`; and to a file: :func:`save_moments`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from timelens_plugins.atomic import replacing
from timelens_plugins.moments.assembly import Assembler
from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.files import Document, Entry, Layout, Source, open_document
from timelens_plugins.moments.formats import format_by_name, format_of
from timelens_plugins.moments.json_stream import collection_paused
from timelens_plugins.moments.moment import Moment
from timelens_plugins.moments.report import LoadedMoments, LoadReport
from timelens_plugins.moments.rows import Row

__all__ = ["OnError", "load_moments", "moments_from_rows", "save_moments"]

OnError = Literal["raise", "skip"]

FAULTS_KEPT = 1000  # of a load that skips them; the others are counted


def load_moments(
    path: str | Path,
    format: str | None = None,  # noqa: A002 - the word for it
    video_root: str | Path | None = None,
    on_error: OnError = "raise",
    *,
    source: str | None = None,
    allow_absent: bool = False,
) -> LoadedMoments:
    """Read an annotation file.

    Args:
        path: the file.
        format: a name in :data:`~timelens_plugins.moments.FORMATS`; None recognises it from the content.
        video_root: folder that the video paths of the annotations start from; they are not looked for.
        on_error: ``"raise"`` stops at the first structural fault. ``"skip"`` leaves out the annotation at fault, or the
            whole entry where nothing of it can be read, and lists it in the report, which the caller must show.
        source: name of the data set or subset; None takes what the annotations say, else the format's name.
        allow_absent: an empty list of spans says that the event is not in the video: a moment without spans, for which
            there is no IoU. Else it is a fault.

    Returns:
        The moments in file order, with ``report``.

    Raises:
        AnnotationError: a structural fault, naming file, row and field; content of no known format; nothing to load.
        ValueError: an unknown ``format`` or ``on_error``.
        OSError: the file cannot be read.
    """
    _check(format, on_error)
    table = format is not None and format_by_name(format).layout is Layout.TABLE
    with collection_paused():
        return _load(open_document(path, table=table), format, video_root, on_error, source, allow_absent)


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
    with collection_paused():
        return _load(Document(name, Layout.ROWS, entries), format, video_root, on_error, source)


def save_moments(moments: Iterable[Moment], path: str | Path) -> None:
    """Write moments as JSON Lines that :func:`load_moments` reads back as they are. Replaces the file in one step."""
    with replacing(path) as part, part.open("w", encoding="utf-8") as file:
        for moment in moments:
            file.write(json.dumps(moment.to_row(), allow_nan=False) + "\n")


def _check(name: str | None, on_error: str) -> None:
    if name is not None:
        format_by_name(name)
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")


def _load(
    document: Source,
    name: str | None,
    video_root: str | Path | None,
    on_error: OnError,
    source: str | None,
    allow_absent: bool = False,
) -> LoadedMoments:
    nothing = AnnotationError(Fault(document.file, None, None, "holds no annotations", "fetch or write it again"))
    if document.layout is not Layout.TABLE and next(iter(document.entries), None) is None:
        raise nothing
    chosen = format_by_name(name) if name is not None else format_of(document)
    if document.layout is not chosen.layout:
        reason = f"{chosen.name} is {chosen.layout.value}, this is {document.layout.value}"
        raise AnnotationError(Fault(document.file, None, None, reason, "leave format= out to have it recognised"))
    if chosen.check_columns is not None:
        chosen.check_columns(document.file, document.columns)
    assembler = Assembler(video_root, source, default_source=chosen.name)
    moments: list[Moment] = []
    skipped: list[Fault] = []
    unused: dict[str, None] = {}
    entries = left_out = 0

    def failed(error: AnnotationError) -> None:
        nonlocal left_out
        if on_error == "raise":
            raise error
        left_out += 1
        if len(skipped) < FAULTS_KEPT:
            skipped.append(error.fault)

    for entry in document.entries:
        entries += 1
        try:
            if entry.fault is not None:
                raise AnnotationError(entry.fault)
            whole = Row(entry.value, document.file, entry.label, entry.key, allow_absent=allow_absent)
            rows = list(chosen.split(whole))
        except AnnotationError as error:
            failed(error)
            continue
        for row in rows:
            try:
                moments.append(assembler.assemble(chosen.read(row), row))
            except AnnotationError as error:
                failed(error)
        if chosen.fields is not None and len(unused) < FAULTS_KEPT:
            unused |= dict.fromkeys(entry.value.keys() - chosen.fields)
    if not entries:
        raise nothing
    if not moments:
        first = f"; the first fault: {skipped[0].left_out()}" if skipped else ""
        reason = f"no annotation could be loaded from {entries} rows{first}"
        raise AnnotationError(Fault(document.file, None, None, reason, f"is this {chosen.name}?"))
    report = LoadReport(
        file=document.file,
        format=chosen.name,
        rows=entries,
        moments=len(moments),
        videos=len({moment.video_id for moment in moments}),
        flags=dict(sorted(Counter(flag for moment in moments for flag in moment.flags).items())),
        largest_overrun=assembler.largest_overrun,
        skipped=tuple(skipped),
        left_out=left_out,
        unused=tuple(sorted(unused)),
    )
    return LoadedMoments(moments, report)
