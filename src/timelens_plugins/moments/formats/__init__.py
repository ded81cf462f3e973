"""The annotation formats, one module each, and the choice among them by name or by content."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from itertools import islice

from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.files import Entry, Layout, Source
from timelens_plugins.moments.formats.base import AnnotationFormat
from timelens_plugins.moments.formats.captions_json import ACTIVITYNET_CAPTIONS, CAPTIONS_JSON, CHARADES_STA
from timelens_plugins.moments.formats.charades_sta_text import CHARADES_STA_TEXT
from timelens_plugins.moments.formats.chat import CHAT
from timelens_plugins.moments.formats.didemo import DIDEMO
from timelens_plugins.moments.formats.difficulty import DIFFICULTY
from timelens_plugins.moments.formats.lmms_eval import LMMS_EVAL
from timelens_plugins.moments.formats.own_rows import CSV, ROWS
from timelens_plugins.moments.formats.qvhighlights import QVHIGHLIGHTS
from timelens_plugins.moments.formats.span_sets import EGO4D_NLQ, MOMENTSEEKER, VUE_TR
from timelens_plugins.moments.formats.stored import STORED
from timelens_plugins.moments.formats.tacos import TACOS
from timelens_plugins.moments.formats.time_r1 import TIME_R1
from timelens_plugins.moments.formats.timelens2_rollouts import TIMELENS2_ROLLOUTS
from timelens_plugins.moments.formats.timelens_100k import TIMELENS_100K
from timelens_plugins.moments.formats.timelens_bench import TIMELENS_BENCH
from timelens_plugins.moments.formats.tvgbench import TVGBENCH

__all__ = ["FORMATS", "AnnotationFormat", "format_by_name", "format_of", "register_format"]

FORMATS: dict[str, AnnotationFormat] = {
    annotation_format.name: annotation_format
    for annotation_format in (
        TIMELENS_BENCH,
        TIMELENS_100K,
        CAPTIONS_JSON,
        CHARADES_STA,
        ACTIVITYNET_CAPTIONS,
        CHARADES_STA_TEXT,
        QVHIGHLIGHTS,
        TACOS,
        DIDEMO,
        TVGBENCH,
        VUE_TR,
        MOMENTSEEKER,
        EGO4D_NLQ,
        LMMS_EVAL,
        DIFFICULTY,
        TIME_R1,
        TIMELENS2_ROLLOUTS,
        STORED,
        CSV,
        ROWS,
        CHAT,
    )
}


def register_format(annotation_format: AnnotationFormat) -> AnnotationFormat:
    """Make a format known by its name, and by its content, to everything that reads annotations.

    Raises:
        ValueError: the name is taken.
    """
    if annotation_format.name in FORMATS:
        raise ValueError(f"there is an annotation format {annotation_format.name!r} already")
    FORMATS[annotation_format.name] = annotation_format
    return annotation_format


SAMPLE = 50  # entries looked at: enough to get past broken ones, and to see that a file is of one piece


def format_by_name(name: str) -> AnnotationFormat:
    """The format called ``name``; ``ValueError`` lists them."""
    try:
        return FORMATS[name]
    except KeyError:
        raise ValueError(f"unknown annotation format {name!r}; known: {', '.join(FORMATS)}") from None


def format_of(document: Source) -> AnnotationFormat:
    """The format of a document, by its content.

    Raises:
        AnnotationError: no format recognises any of the first entries, or several formats do.
    """
    if document.layout is Layout.TABLE:
        return CSV
    sample = list(islice((entry for entry in document.entries if entry.fault is None), SAMPLE))
    found = {f.name: f for entry in sample for f in _candidates(document.layout, entry)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        reason = f"entries of several formats: {', '.join(found)}"
        raise AnnotationError(Fault(document.file, None, None, reason, "pass format= to read all of them as one"))
    shapes = "".join(f"\n  {f.name}: {f.shape}" for f in FORMATS.values())
    reason = f"no known annotation format; found {document.layout.value}: {_glimpse(document.layout, sample)}"
    raise AnnotationError(Fault(document.file, None, None, reason, f"the known formats are{shapes}"))


def _candidates(layout: Layout, entry: Entry) -> Sequence[AnnotationFormat]:
    return [f for f in FORMATS.values() if f.layout is layout and f.recognises(entry.key, entry.value)]


def _glimpse(layout: Layout, sample: Sequence[Entry]) -> str:
    if not sample:
        return "nothing that can be read"
    value = sample[0].value
    if layout is Layout.TEXT:
        return reprlib.repr(value["line"])
    if isinstance(value, dict):
        return f"an object with {', '.join(reprlib.repr(key) for key in list(value)[:12]) or 'no keys'}"
    return reprlib.repr(value)
