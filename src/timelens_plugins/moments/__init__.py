"""Annotations in every format of the field, as one record: :class:`Moment`. No torch, no video is opened.

    moments = load_moments("val_2.json", video_root="videos")
    print(moments.report.summary())

Structural faults (NaN, an end before its start, a missing or wrong-typed field, an empty query, broken JSON, a span
after the end of the clip, a video that stands twice) raise :class:`AnnotationError` with file, row and field, or are
listed in the report. What can be used as it stands is loaded unchanged, flagged and counted:

- ``span_beyond_duration``: a span ends after the stated duration (by more than a microsecond)
- ``zero_length_span``: a span that covers no time
- ``duplicate``: the same video, window, query and spans as a moment before it
- ``invalid_prediction``: a model's answer held an interval that is no span, which was left out of ``predictions``
- ``absent``: no span, as the event is not in the video; only with ``allow_absent=True``, else a fault
- ``needs_sound``: marked as a query that is not about what is seen alone (VUE-TR's ``query_modality``)
- ``annotators_disagree``: no two of several annotators marked the same span, of which one was taken (DiDeMo)
- ``system_turn``: the chat row's system turn, which is not part of the moment, was left out
- ``iou_mismatch``: the recorded IoU is not that of the one prediction and the one span beside it
"""

from __future__ import annotations

from timelens_plugins.moments.faults import AnnotationError, Fault
from timelens_plugins.moments.filters import FilterReport, filter_moments, split_by_video
from timelens_plugins.moments.formats import FORMATS, register_format
from timelens_plugins.moments.loading import OnError, load_moments, moments_from_rows, save_moments
from timelens_plugins.moments.moment import Moment, Prediction, group_by_video, is_audio_query
from timelens_plugins.moments.report import LoadedMoments, LoadReport
from timelens_plugins.moments.videos import find_video, read_address, without_video_suffix

__all__ = [
    "FORMATS",
    "AnnotationError",
    "Fault",
    "FilterReport",
    "LoadReport",
    "LoadedMoments",
    "Moment",
    "OnError",
    "Prediction",
    "filter_moments",
    "find_video",
    "group_by_video",
    "is_audio_query",
    "load_moments",
    "moments_from_rows",
    "read_address",
    "register_format",
    "save_moments",
    "split_by_video",
    "without_video_suffix",
]
