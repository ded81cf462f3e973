"""TACoS: ``{"s13-d21.avi": {"timestamps": [[s, e], …], "sentences": [text, …], "num_frames": n, "fps": 29.4}}``.

Times are numbers of frames, one span a sentence; seconds are frames / fps, and the clip lasts num_frames / fps.
"""

from __future__ import annotations

from collections.abc import Iterable

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, annotations_of_video, by_keys
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix


def _split(row: Row) -> Iterable[Row]:
    fps = row.seconds("fps")
    duration = row.seconds("num_frames") / fps
    clip = Row({**row.value, "duration": duration}, row.file, row.label, row.key)
    for annotation in annotations_of_video(clip, "timestamps", "sentences"):
        yield Row({**annotation.value, "fps": fps}, row.file, annotation.label, row.key)


def _read(row: Row) -> Draft:
    fps, duration = row.number("fps"), row.number("duration")
    frames = row.array("timestamps")
    if len(frames) != 2:
        raise row.fault("timestamps", f"a span is a pair of frame numbers, got {frames!r:.80}")
    times = [row.as_number(frame, "timestamps") / fps for frame in frames]
    return Draft(
        video=str(row.key),
        video_id=without_video_suffix(str(row.key)),
        query=row.query("sentences"),
        spans=(row.as_span(times, "timestamps", duration),),
        duration=duration,
    )


TACOS = AnnotationFormat(
    name="tacos",
    layout=Layout.BY_VIDEO,
    shape='{"<video>.avi": {"timestamps": [[252, 452]], "sentences": ["…"], "num_frames": 1402, "fps": 29.4}}',
    recognises=by_keys("timestamps", "sentences", "num_frames", "fps"),
    split=_split,
    read=_read,
)
