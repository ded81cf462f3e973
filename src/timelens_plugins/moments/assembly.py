"""From what a format's reader found to a :class:`Moment`: its path, flags and id. The same for every format."""

from __future__ import annotations

import hashlib
import operator
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timelens_plugins.moments.moment import Moment, Prediction, with_span_flags
from timelens_plugins.moments.rows import TIME_TOLERANCE, Row
from timelens_plugins.moments.videos import read_address
from timelens_plugins.spans import Span, temporal_iou

__all__ = ["Assembler", "Draft"]

NO_FLAGS: frozenset[str] = frozenset()  # one for all: most moments have none
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


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
    question: str | None = None
    answer: str | None = None


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
        self._contents: set[bytes] = set()
        self._ids: set[str] = set()
        self.largest_overrun = 0.0

    def assemble(self, draft: Draft | Moment, row: Row) -> Moment:
        """The moment of ``draft``.

        Raises:
            AnnotationError: the annotation brings an id that stands already, or text that no file can hold.
        """
        _check_texts(draft, row)
        beyond = self._runs_over(draft)
        if isinstance(
            draft, Moment
        ):  # stored by this package: it keeps its id, and the flags that nothing here decides
            flags_now = with_span_flags(draft.flags, draft.spans, draft.duration)
            return replace(draft, id=self._given_id(draft.id, row), video=self._path(draft.video), flags=flags_now)
        flags = set(draft.flags)
        if not draft.spans:
            flags.add("absent")
        if beyond:
            flags.add("span_beyond_duration")
        if any(span.start == span.end for span in draft.spans):
            flags.add("zero_length_span")
        if draft.iou is not None and _iou_differs(draft.iou, draft.predictions, draft.spans):
            flags.add("iou_mismatch")
        content = _content(draft)
        known = hashlib.blake2b(content, digest_size=16).digest()
        if known in self._contents:
            flags.add("duplicate")
        self._contents.add(known)
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
            flags=frozenset(flags) if flags else NO_FLAGS,
            question=draft.question,
            answer=draft.answer,
        )

    def _runs_over(self, draft: Draft | Moment) -> bool:
        if draft.duration is None or not draft.spans:
            return False
        overrun = max(span.end for span in draft.spans) - draft.duration
        if overrun <= TIME_TOLERANCE:
            return False
        self.largest_overrun = max(self.largest_overrun, overrun)
        return True

    def _path(self, video: str) -> str:
        path, fault = read_address(video)
        return os.path.join(self._root, path) if self._root is not None and fault is None else path

    def _given_id(self, name: str, row: Row) -> str:
        if name in self._ids:
            raise row.fault("id", f"{name!r} stands twice", "keep one of the rows, or give them different ids")
        self._ids.add(name)
        return name

    def _new_id(self, video_id: str, content: bytes) -> str:
        digest = hashlib.blake2b(content, digest_size=5).hexdigest()
        name, times = f"{video_id}:{digest}", 1
        while name in self._ids:
            times += 1
            name = f"{video_id}:{digest}-{times}"
        self._ids.add(name)
        return name


TEXTS = ("video", "video_id", "query", "id", "source", "question", "answer")
_texts = operator.attrgetter(*TEXTS)


def _check_texts(draft: Draft | Moment, row: Row) -> None:
    """Refuse what no path may hold and no table of the training data can store."""
    texts = _texts(draft)
    if not _UNSTORABLE.search("".join(filter(None, texts))):
        return
    for field, text in zip(TEXTS, texts, strict=True):
        if text is not None and (found := _UNSTORABLE.search(text)) is not None:
            code = ord(found[0])
            half = f"half of a character (U+{code:04X}), as of a name that is not UTF-8"
            reason = f"holds {half if code else 'a NUL character'}"
            raise row.fault(field, reason, "write it anew, and rename the file where it is a file's name")


def _content(draft: Draft) -> bytes:
    """What makes an annotation itself, as text that tells different ones apart: query, video, spans, window."""
    times = [*(part for span in draft.spans for part in span), draft.video_start, draft.video_end]
    return "\n".join([draft.query, draft.video_id, *map(repr, times)]).encode("utf-8")


def _iou_differs(iou: float, predictions: Sequence[Prediction], spans: Sequence[Span]) -> bool:
    """Whether a recorded IoU is not that of the one prediction and the one span beside it."""
    if len(predictions) != 1 or len(predictions[0].spans) != 1 or len(spans) != 1:
        return False
    return abs(temporal_iou(predictions[0].spans[0], spans[0]) - iou) > 1e-6
