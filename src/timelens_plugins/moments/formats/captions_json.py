"""Charades-STA (JSON) and ActivityNet Captions, which share a schema.

``{video: {"duration": s, "timestamps": [[s, e], …], "sentences": [text, …]}}``. Ids such as ``v_uqiMw7tQ1Cc`` say
ActivityNet; nothing in the content says Charades, so other files are read as ``captions_json`` unless
``format="charades_sta"`` or ``source=`` names them. Videos are ``<video>.mp4`` in ``video_root``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import (
    AnnotationFormat,
    annotation_of_video,
    annotations_of_video,
    has_keys,
)

ACTIVITYNET_ID = re.compile(r"v_[\w-]{11}")  # the prefix and a YouTube id


def _is_activitynet(key: str | None, value: Any) -> bool:
    return has_keys(value, "timestamps", "sentences", "duration") and ACTIVITYNET_ID.fullmatch(str(key)) is not None


def _is_other(key: str | None, value: Any) -> bool:
    counts_frames = has_keys(value, "num_frames", "fps")  # TACoS
    return has_keys(value, "timestamps", "sentences") and not counts_frames and not _is_activitynet(key, value)


CAPTIONS_JSON, CHARADES_STA, ACTIVITYNET_CAPTIONS = (
    AnnotationFormat(
        name=name,
        layout=Layout.BY_VIDEO,
        shape='{"<video>": {"duration": 30.96, "timestamps": [[24.3, 30.4]], "sentences": ["…"]}}',
        recognises=recognises,
        split=partial(annotations_of_video, spans="timestamps", queries="sentences"),
        read=partial(annotation_of_video, spans="timestamps", queries="sentences"),
    )
    for name, recognises in (
        ("captions_json", _is_other),
        ("charades_sta", lambda key, value: False),
        ("activitynet_captions", _is_activitynet),
    )
)
