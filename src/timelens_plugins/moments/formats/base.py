"""What an annotation format is: how to know it, how to take an entry apart, how to read one annotation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.moment import Moment
from timelens_plugins.moments.rows import Row

__all__ = ["AnnotationFormat", "annotation_of_video", "annotations_of_video", "by_keys", "has_keys", "whole"]


def whole(row: Row) -> Iterable[Row]:
    """``split`` of formats with one annotation an entry."""
    return (row,)


@dataclass(frozen=True)
class AnnotationFormat:
    """A format that :func:`~timelens_plugins.moments.load_moments` reads.

    Attributes:
        name: what ``format=`` takes; also the moments' source where the annotations name none.
        layout: the outer form of its files.
        shape: one entry, abbreviated, for messages.
        recognises: whether an entry is of this format, by its key (None outside ``Layout.BY_VIDEO``) and its content.
            At most one format may recognise an entry.
        read: the one annotation of a row. Raises AnnotationError.
        split: the rows of an entry, one an annotation. Raises AnnotationError.
        fields: every field that is read, where the report should name the others; None where that goes without saying.
        check_columns: refuses a table by its file and its columns. Raises AnnotationError.
    """

    name: str
    layout: Layout
    shape: str
    recognises: Callable[[str | None, Any], bool]
    read: Callable[[Row], Draft | Moment]
    split: Callable[[Row], Iterable[Row]] = whole
    fields: frozenset[str] | None = None
    check_columns: Callable[[str, Sequence[str]], None] | None = None


def has_keys(value: Any, *keys: str) -> bool:
    """Whether ``value`` is an object with all of ``keys``."""
    return isinstance(value, dict) and all(key in value for key in keys)


def by_keys(*keys: str) -> Callable[[str | None, Any], bool]:
    """``recognises`` of formats whose entries are the objects with all of ``keys``."""
    return lambda _, value: has_keys(value, *keys)


def annotations_of_video(row: Row, spans: str, queries: str) -> Sequence[Row]:
    """The annotations of a video that keeps spans and queries in two lists of equal length, one span a query."""
    if not row.key or row.key.isspace():
        raise row.fault(None, "the name of the video is empty")
    starts_and_ends, texts = row.array(spans), row.array(queries)
    if len(starts_and_ends) != len(texts):
        raise row.fault(spans, f"{len(starts_and_ends)} spans for {len(texts)} {queries}")
    duration = row.seconds("duration")
    return [
        Row({"duration": duration, spans: span, queries: text}, row.file, f"{row.label}, annotation {i}", row.key)
        for i, (span, text) in enumerate(zip(starts_and_ends, texts, strict=True), 1)
    ]


def annotation_of_video(row: Row, spans: str, queries: str) -> Draft:
    """One of :func:`annotations_of_video`. The file of the video is ``<video>.mp4``."""
    video_id, duration = str(row.key), row.number("duration")
    return Draft(
        video=f"{video_id}.mp4",
        video_id=video_id,
        query=row.query(queries),
        spans=(row.span(spans, duration),),
        duration=duration,
    )
