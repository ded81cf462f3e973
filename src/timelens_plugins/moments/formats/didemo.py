"""DiDeMo: ``{"annotation_id", "description", "video", "times": [[3, 3], …], "num_segments", …}``, a row a description.

``times`` holds what four annotators marked, as first and last chunk of 5 seconds: [1, 4] is 5 to 25 s. They marked one
moment, so that one span is taken: the most frequent, and of equally frequent ones the first; moments on which no two
annotators agree are flagged ``annotators_disagree``. The last chunk of a video may be shorter than 5 seconds, which
the rows do not say. Annotators saw the first 30 seconds only.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, by_keys
from timelens_plugins.moments.rows import Row
from timelens_plugins.moments.videos import without_video_suffix

CHUNK = 5.0  # seconds


def _read(row: Row) -> Draft:
    video = row.text("video")
    marked = Counter(_chunks(row, value) for value in row.array("times"))
    if not marked:
        raise row.fault("times", "no span in it")
    [((first, last), votes)] = marked.most_common(1)
    return Draft(
        video=video,
        video_id=without_video_suffix(video),
        query=row.query("description"),
        spans=(row.as_span([first * CHUNK, (last + 1) * CHUNK], "times", None),),
        flags=("annotators_disagree",) if votes == 1 and len(marked) > 1 else (),
    )


def _chunks(row: Row, value: Any) -> tuple[int, int]:
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(type(n) is int for n in value) or not 0 <= value[0] <= value[1]:
        raise row.fault(
            "times", f"an annotation is a pair of chunks, the first no later than the last, got {value!r:.80}"
        )
    return value[0], value[1]


DIDEMO = AnnotationFormat(
    name="didemo",
    layout=Layout.ROWS,
    shape='{"annotation_id": 7, "description": "…", "video": "….mp4", "times": [[1, 1], [1, 2]], "num_segments": 6}',
    recognises=by_keys("annotation_id", "description", "video", "times"),
    read=_read,
)
