"""The one record of the package, a :class:`Moment`; a model's :class:`Prediction` for it; questions about moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from timelens_plugins.moments.rows import TIME_TOLERANCE, Row
from timelens_plugins.spans import Span

__all__ = ["Moment", "Prediction", "group_by_video", "is_audio_query", "with_span_flags"]

# A stated duration this much off its window's length, in seconds, belongs to another stretch of video than the spans.
WINDOW_TOLERANCE = 1.0

AUDIO_WORDS = frozenset({"hear", "heard", "hears", "hearing", "sound", "sounded", "sounds", "sounding", "audio"})


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer of a model to a moment's query.

    Attributes:
        spans: what the answer says, in seconds; empty where it says no span that can be.
        iou: against the moment's spans, 0..1; None where it was not recorded.
        answer: the text, where it was recorded.
    """

    spans: tuple[Span, ...]
    iou: float | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """A query about a video and the spans in which it is true.

    Attributes:
        id: unique within one load, and the same whenever the same annotation is loaded, whatever the order of the file,
            its format or the place of the videos: the video's id and a digest of query, spans and window. Exact
            repetitions end in ``-2``, ``-3`` …
        video: path of the video file, below ``video_root`` where one was given.
        video_id: what the annotation calls the video: the cluster of its moments, and the key of result files.
        query: normalised as by the benchmark's loader (:func:`timelens_plugins.answers.normalize_query`).
        spans: in seconds from ``video_start``, or from the start of the file where there is no window. At least one,
            but where the event is not in the video and the load allowed that.
        duration: seconds of the video, or of the window where there is one; None where the format does not say.
        source: the data set or subset.
        video_start, video_end: the window of a longer video, in seconds of the file; both or neither.
        iou: difficulty: IoU of a model's prediction, 0..1, the mean over ``predictions`` where there are several.
        predictions: what a model answered, in difficulty files.
        flags: what is odd about the annotation though it can be used as it stands; see :mod:`timelens_plugins.moments`.
        question: the data's own words that ask for the moment, in chat rows, which stand in place of the benchmark's
            prompt; None where the prompt is made from ``query``.
        answer: the data's own words that answer, in chat rows; None where the answer to learn is made from ``spans``.
    """

    id: str
    video: str
    video_id: str
    query: str
    spans: tuple[Span, ...]
    duration: float | None
    source: str
    video_start: float | None = None
    video_end: float | None = None
    iou: float | None = None
    predictions: tuple[Prediction, ...] = ()
    flags: frozenset[str] = frozenset()
    question: str | None = None
    answer: str | None = None

    def to_row(self) -> dict[str, Any]:
        """The moment as JSON types; :meth:`from_row` gives it back. Absent optional fields are left out."""
        row: dict[str, Any] = {
            "id": self.id,
            "video": self.video,
            "video_id": self.video_id,
            "query": self.query,
            "spans": [list(span) for span in self.spans],
            "duration": self.duration,
            "source": self.source,
        }
        if self.video_start is not None:
            row["video_start"], row["video_end"] = self.video_start, self.video_end
        if self.iou is not None:
            row["iou"] = self.iou
        if self.predictions:
            row["predictions"] = [
                {"spans": [list(span) for span in p.spans], "iou": p.iou, "answer": p.answer} for p in self.predictions
            ]
        if self.flags:
            row["flags"] = sorted(self.flags)
        row |= {name: text for name in ("question", "answer") if (text := getattr(self, name)) is not None}
        return row

    def relabelled(self, query: str, spans: tuple[Span, ...]) -> Moment:
        """The moment with a corrected label, and without what was said about the one before.

        A question in the data's own words becomes the corrected query; the answer to learn is made from the corrected
        spans; predictions, and the IoU with the former spans, go.
        """
        if (query, spans) == (self.query, self.spans):
            return self
        question = self.question if self.question is None or query == self.query else query
        flags = with_span_flags(self.flags - {"duplicate", "iou_mismatch"}, spans, self.duration)
        return replace(
            self, query=query, spans=spans, question=question, answer=None, iou=None, predictions=(), flags=flags
        )

    @classmethod
    def from_row(cls, row: Mapping[str, Any] | Row) -> Moment:
        """The moment of a :meth:`to_row`.

        Raises:
            AnnotationError: a field is missing, or is not what it must be.
        """
        if not isinstance(row, Row):
            row = Row(row, "moment", f"row {row.get('id')!r}" if isinstance(row, Mapping) else "row")
        duration = row.seconds("duration") if row.has("duration") else None
        duration, start, end = window_of(row, duration)
        return cls(
            id=row.text("id"),
            video=row.text("video"),
            video_id=row.text("video_id"),
            query=row.text("query"),
            spans=row.spans("spans", duration),
            duration=duration,
            source=row.text("source"),
            video_start=start,
            video_end=end,
            iou=iou_of(row, "iou") if row.has("iou") else None,
            predictions=_predictions_of(row) if row.has("predictions") else (),
            flags=frozenset(map(str, row.array("flags"))) if row.has("flags") else frozenset(),
            question=row.text("question") if row.has("question") else None,
            answer=row.text("answer") if row.has("answer") else None,
        )


def with_span_flags(flags: frozenset[str], spans: Iterable[Span], duration: float | None) -> frozenset[str]:
    """``flags`` with those that spans and duration decide as these have it: ``span_beyond_duration``,
    ``zero_length_span`` and ``absent``."""
    spans = tuple(spans)
    found = {
        "absent": not spans,
        "span_beyond_duration": duration is not None and any(s.end - duration > TIME_TOLERANCE for s in spans),
        "zero_length_span": any(s.start == s.end for s in spans),
    }
    return frozenset((flags - found.keys()) | {name for name, is_so in found.items() if is_so})


def window_of(row: Row, duration: float | None) -> tuple[float | None, float | None, float | None]:
    """Duration, ``video_start`` and ``video_end`` of a row: the last two both or neither, in order, and as far apart as
    ``duration`` says. Where that is None, a window states it by its length, so that spans are checked against it."""
    if not (row.has("video_start") or row.has("video_end")):
        return duration, None, None
    start, end = row.number("video_start"), row.number("video_end")
    if not 0 <= start < end:
        raise row.fault("video_start", f"a window must start at 0 s or later and before its end, got [{start}, {end}]")
    if duration is not None and abs(end - start - duration) > WINDOW_TOLERANCE:
        raise row.fault(
            "duration", f"{duration} s is not the length of the window [{start}, {end}], from whose start spans count"
        )
    return (end - start if duration is None else duration), start, end


def iou_of(row: Row, field: str, scale: float = 1.0) -> float:
    """A number between 0 and ``scale``, as a share of ``scale``."""
    value = row.number(field)
    if not 0 <= value <= scale:
        raise row.fault(field, f"must lie between 0 and {scale:g}, got {value}")
    return value / scale


def _predictions_of(row: Row) -> tuple[Prediction, ...]:
    predictions: list[Prediction] = []
    for value in row.array("predictions"):
        item = Row(value, row.file, f"{row.label}, prediction {len(predictions) + 1}")
        predictions.append(
            Prediction(
                spans=item.spans("spans", None) if item.array("spans") else (),
                iou=iou_of(item, "iou") if item.has("iou") else None,
                answer=item.string("answer") if item.has("answer") else None,
            )
        )
    return tuple(predictions)


def group_by_video(moments: Iterable[Moment]) -> dict[str, list[Moment]]:
    """Moments by ``video_id``, both in order of appearance. Moments of different windows of a video stand together."""
    groups: dict[str, list[Moment]] = {}
    for moment in moments:
        groups.setdefault(moment.video_id, []).append(moment)
    return groups


def is_audio_query(query: str) -> bool:
    """Whether a query asks for something heard, which frames cannot show: TimeLens does not train on these.

    True where a word of the lower-cased query, question marks aside, is one of ``AUDIO_WORDS``.

    >>> is_audio_query("When can a dog be heard?"), is_audio_query("a soundless room")
    (True, False)
    """
    return not AUDIO_WORDS.isdisjoint(query.lower().replace("?", "").split())
