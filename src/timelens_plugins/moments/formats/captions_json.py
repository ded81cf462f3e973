"""Charades-STA (JSON) and ActivityNet Captions, which share a schema.

``{video: {"duration": s, "timestamps": [[s, e], …], "sentences": [text, …]}}``. Ids such as ``v_uqiMw7tQ1Cc`` say
ActivityNet; nothing in the content says Charades, so other files are read as ``captions_json`` unless
``format="charades_sta"`` or ``source=`` names them. Videos are ``<video>.mp4`` in ``video_root``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from timelens_plugins.moments.assembly import Draft
from timelens_plugins.moments.files import Layout
from timelens_plugins.moments.formats.base import AnnotationFormat, annotations_of_video, has_keys
from timelens_plugins.moments.rows import Row

ACTIVITYNET_ID = re.compile(r"v_[\w-]{11}")  # the prefix and a YouTube id


def _is_activitynet(key: str | None, value: Any) -> bool:
    return has_keys(value, "timestamps", "sentences") and ACTIVITYNET_ID.fullmatch(str(key)) is not None


def _is_other(key: str | None, value: Any) -> bool:
    return has_keys(value, "timestamps", "sentences") and not _is_activitynet(key, value)


def _only_by_name(key: str | None, value: Any) -> bool:
    return False


def _split(row: Row) -> Iterable[Row]:
    return annotations_of_video(row, "timestamps", "sentences")


def _read(row: Row) -> Draft:
    video_id, duration = str(row.key), row.number("duration")
    return Draft(
        video=f"{video_id}.mp4",
        video_id=video_id,
        query=row.query("sentences"),
        spans=(row.span("timestamps", duration),),
        duration=duration,
    )


CAPTIONS_JSON, CHARADES_STA, ACTIVITYNET_CAPTIONS = (
    AnnotationFormat(
        name=name,
        layout=Layout.BY_VIDEO,
        shape='{"<video>": {"duration": 30.96, "timestamps": [[24.3, 30.4]], "sentences": ["…"]}}',
        recognises=recognises,
        split=_split,
        read=_read,
    )
    for name, recognises in (
        ("captions_json", _is_other),
        ("charades_sta", _only_by_name),
        ("activitynet_captions", _is_activitynet),
    )
)
