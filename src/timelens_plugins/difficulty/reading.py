"""Difficulty files, joined with the moments they are about. A mismatch is an error with file, row and remedy."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from timelens_plugins.difficulty.estimates import Estimates
from timelens_plugins.moments import AnnotationError, Fault, Moment, moments_from_rows
from timelens_plugins.moments.files import Document, Entry, Layout, read_document

__all__ = ["load_estimates"]

logger = logging.getLogger(__name__)

_SHOWN = 5


def load_estimates(
    path: str | Path,
    moments: Sequence[Moment],
    *,
    known: Sequence[Moment] = (),
    settings: Mapping[str, Any] | None = None,
    on_missing: Literal["raise", "drop"] = "raise",
) -> Estimates:
    """Read a difficulty file: this package's, TimeLens's, Time-R1's, or rollouts of TimeLens2.

    A last line that a kill cut off is dropped, and the log says so; its moment then has no estimate.

    Args:
        path: the file.
        moments: what the estimates are for; they decide the order.
        known: further moments that rows may be about, such as those a filter left out; their rows are passed over.
        settings: what has to have been written into the rows, such as the model's name or fingerprint; only what is
            given is compared. Rows of other tools carry no settings, so these files are refused then.
        on_missing: ``"drop"`` leaves moments without a row out of the result, and the log says how many; whose videos
            could not be read, for example.

    Returns:
        One estimate a moment, in the moments' order.

    Raises:
        AnnotationError: a row without an IoU, with one that is not in 0..1, for a moment that is not in the data, that
            stands twice, or written by another model or other settings than the rest or than ``settings``; a moment
            without a row.
        OSError: the file cannot be read.
    """
    document = _without_cut_line(read_document(path))
    for entry in document.entries:
        if entry.fault is not None:
            raise AnnotationError(entry.fault)
    rows = [entry.value for entry in document.entries]
    try:
        loaded = moments_from_rows(rows, name=document.file)
    except AnnotationError as error:  # the loader's own remedy leaves rows out, which estimates cannot do
        remedy = "correct it, or estimate the difficulty again"
        raise AnnotationError(replace(error.fault, remedy=remedy)) from None
    _check_settings(document, settings)
    wanted = {moment.id for moment in (*moments, *known)}
    found: dict[str, tuple[str, Moment]] = {}
    for entry, moment in zip(document.entries, loaded, strict=True):
        if moment.iou is None:
            raise _fault(document, entry, "iou", "no IoU of a prediction in it", "estimate the difficulty first")
        if moment.id not in wanted:
            if "duplicate" in moment.flags:
                raise _fault(document, entry, "query", "repeats a moment of an earlier row", "keep one of the rows")
            shown = f"{moment.video_id!r}, {moment.query!r}, {[list(span) for span in moment.spans]}"
            raise _fault(
                document,
                entry,
                None,
                f"is about a moment that is not in the data ({shown})",
                "pass the annotations the file was made from, before any filter; or estimate again on these",
            )
        if moment.id in found:
            first = found[moment.id][0]
            raise _fault(document, entry, None, f"stands twice, first in {first}", "keep one of the rows")
        found[moment.id] = (entry.label, moment)
    missing = [moment for moment in moments if moment.id not in found]
    if missing and on_missing == "drop":
        logger.warning(
            "%s: no estimate for %d of %d moments, which are left out: %s%s",
            document.file,
            len(missing),
            len(moments),
            ", ".join(moment.id for moment in missing[:_SHOWN]),
            " …" if len(missing) > _SHOWN else "",
        )
        moments = [moment for moment in moments if moment.id in found]
        if not moments:
            reason, remedy = "has a row for none of the moments", "is this the file of these annotations?"
            raise AnnotationError(Fault(document.file, None, None, reason, remedy))
    elif missing:
        reason = (
            f"{len(missing)} of {len(moments)} moments have no row, such as {missing[0].id!r} ({missing[0].query!r})"
        )
        remedy = "run the estimation again, which continues, or leave these moments out (on_missing='drop')"
        raise AnnotationError(Fault(document.file, None, None, reason, remedy))
    ious = [_ious(found[moment.id][1]) for moment in moments]
    estimates = Estimates.from_ious([moment.id for moment in moments], ious)
    logger.info(
        "%s: difficulty of %d moments, mean IoU %.3f, %s answers each",
        document.file,
        len(moments),
        float(estimates.mean.mean()),
        "–".join(str(n) for n in sorted({int(estimates.answers.min()), int(estimates.answers.max())})),
    )
    return estimates


def _ious(moment: Moment) -> list[float]:
    ious = [p.iou for p in moment.predictions if p.iou is not None]
    return ious or [moment.iou or 0.0]


def _without_cut_line(document: Document) -> Document:
    """Without a broken last line, where the file does not end in a line break: a kill came while it was written."""
    if document.layout is not Layout.ROWS or len(document.entries) < 2:
        return document
    last = document.entries[-1]
    with Path(document.file).open("rb") as file:
        file.seek(-1, 2)
        complete = file.read(1) == b"\n"
    if last.fault is None or complete:
        return document
    logger.warning("%s: %s was cut off by a kill and is dropped", document.file, last.label)
    return Document(document.file, document.layout, document.entries[:-1])


def _check_settings(document: Document, wanted: Mapping[str, Any] | None) -> None:
    first: tuple[Entry, Any] | None = None
    for entry in document.entries:
        found = entry.value.get("settings")
        if first is None:
            first = (entry, found)
            if found is None and wanted:
                reason = f"does not say which model answered, and {', '.join(sorted(wanted))} must be known"
                raise _fault(document, entry, "settings", reason, "estimate again, or do not ask for settings")
        elif found != first[1]:
            reason = f"was written under other settings than {first[0].label} ({_differences(first[1], found)})"
            raise _fault(document, entry, "settings", reason, "do not mix estimates; estimate again")
    if first is None or first[1] is None:
        return
    if not isinstance(first[1], dict):
        raise _fault(document, first[0], "settings", "must be an object", "estimate again")
    differing = {k: v for k, v in (wanted or {}).items() if first[1].get(k) != v}
    if differing:
        reason = f"was written under other settings ({_differences(first[1], {**first[1], **differing})})"
        raise _fault(document, first[0], "settings", reason, "estimate with the model that will be trained")


def _differences(there: Any, here: Any) -> str:
    a, b = (value if isinstance(value, dict) else {} for value in (there, here))
    names = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
    return "; ".join(f"{k}: {a.get(k)!r}, here {b.get(k)!r}" for k in names) or "none in one of them"


def _fault(document: Document, entry: Entry, field: str | None, reason: str, remedy: str) -> AnnotationError:
    return AnnotationError(Fault(document.file, entry.label, field, reason, remedy))
