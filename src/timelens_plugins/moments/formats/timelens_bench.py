"""TimeLens-Bench: ``{video: {"duration": s, "spans": [[s, e], …], "queries": [text, …]}}``, one span a query.

The content does not say which of the three subsets it is: name it with ``source=`` where it matters. Videos are
``<video>.mp4`` in ``video_root``, which is the subset's folder.
"""

from __future__ import annotations

from functools import partial

from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import (
    AnnotationFormat,
    annotation_of_video,
    annotations_of_video,
    by_keys,
)

TIMELENS_BENCH = AnnotationFormat(
    name="timelens_bench",
    layout=Layout.BY_VIDEO,
    shape='{"<video>": {"duration": 31.0, "spans": [[25, 30]], "queries": ["…"]}}',
    recognises=by_keys("spans", "queries"),
    split=partial(annotations_of_video, spans="spans", queries="queries"),
    read=partial(annotation_of_video, spans="spans", queries="queries"),
)
