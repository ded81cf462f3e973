"""From what a format's reader found to a :class:`Moment`: its path, flags and id. The same for every format."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timelens_plugins.moments.moment import Moment, Prediction
from timelens_plugins.moments.rows import TIME_TOLERANCE, Row
from timelens_plugins.spans import Span, temporal_iou

__all__ = ["Assembler", "Draft"]


@dataclass(slots=True)
class Draft:
    """What an annotation says, before anything is derived from it. Fields as in :class:`Moment`."""

    video: str
    video_id: str
    query: str
    spans: tuple[Span, ...]
    duration: float | None = None
    source: str | None = None  # where the annotation names its data set
    video_start: float | None = None
    video_end: float | None = None
    iou: float | None = None
    predictions: tuple[Prediction, ...] = ()
    flags: tuple[str, ...] = ()
    id: str | None = None  # where the annotation brings one


class Assembler:
    """Makes the moments of one load, which share a name space of ids.

    Args:
        video_root: folder that relative video paths start from.
        source: the data set of every moment; None takes each annotation's own.
        default_source: for annotations that name none.
    """

    def __init__(self, video_root: str | Path | None, source: str | None, default_source: str) -> None:
        self._root = os.fspath(video_root) if video_root is not None else None
        self._source, self._default_source = source, default_source
        self._contents: set[str] = set()
        self._ids: set[str] = set()
        self.largest_overrun = 0.0

    def assemble(self, draft: Draft | Moment, row: Row) -> Moment:
        """The moment of ``draft``.

        Raises:
            AnnotationError: the annotation brings an id that stands already.
        """
        beyond = self._runs_over(draft)
        if isinstance(draft, Moment):  # stored by this package: it keeps its id and flags
            return replace(draft, id=self._given_id(draft.id, row), video=self._path(draft.video))
        flags = set(draft.flags)
        if beyond:
            flags.add("span_beyond_duration")
        if any(span.start == span.end for span in draft.spans):
            flags.add("zero_length_span")
        if draft.iou is not None and _iou_differs(draft.iou, draft.predictions, draft.spans):
            flags.add("iou_mismatch")
        content = _content(draft)
        if content in self._contents:
            flags.add("duplicate")
        self._contents.add(content)
        return Moment(
            id=self._given_id(draft.id, row) if draft.id is not None else self._new_id(draft.video_id, content),
            video=self._path(draft.video),
            video_id=draft.video_id,
            query=draft.query,
            spans=draft.spans,
            duration=draft.duration,
            source=self._source or draft.source or self._default_source,
            video_start=draft.video_start,
            video_end=draft.video_end,
            iou=draft.iou,
            predictions=draft.predictions,
            flags=frozenset(flags),
        )

    def _runs_over(self, draft: Draft | Moment) -> bool:
        if draft.duration is None:
            return False
        overrun = max(span.end for span in draft.spans) - draft.duration
        if overrun <= TIME_TOLERANCE:
            return False
        self.largest_overrun = max(self.largest_overrun, overrun)
        return True

    def _path(self, video: str) -> str:
        return os.path.join(self._root, video) if self._root is not None else video

    def _given_id(self, name: str, row: Row) -> str:
        if name in self._ids:
            raise row.fault("id", f"{name!r} stands twice", "keep one of the rows, or give them different ids")
        self._ids.add(name)
        return name

    def _new_id(self, video_id: str, content: str) -> str:
        digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
        name, times = f"{video_id}:{digest}", 1
        while name in self._ids:
            times += 1
            name = f"{video_id}:{digest}-{times}"
        self._ids.add(name)
        return name


def _content(draft: Draft) -> str:
    """What makes an annotation itself, as text that tells different ones apart: query, video, spans, window."""
    times = [*(part for span in draft.spans for part in span), draft.video_start, draft.video_end]
    return "\n".join([draft.query, draft.video_id, *map(repr, times)])


def _iou_differs(iou: float, predictions: Sequence[Prediction], spans: Sequence[Span]) -> bool:
    """Whether a recorded IoU is not that of the one prediction and the one span beside it."""
    if len(predictions) != 1 or len(predictions[0].spans) != 1 or len(spans) != 1:
        return False
    return abs(temporal_iou(predictions[0].spans[0], spans[0]) - iou) > 1e-6
