"""Scores of video temporal grounding: two readings of the protocol, recall and mIoU with intervals clustered by video.

- ``samples``: one annotation and what a model answered; duplicates; joining answers with annotations
- ``readings``: the IoU of a prediction under the ``official`` and the ``exact`` reading
- ``intervals``: confidence intervals of a mean over samples that share videos
- ``scores``: recall, mIoU and counts of a set of samples; the average over subsets; paired differences of two runs
- ``rejections``: answers that say that the event is not in the video
- ``span_sets``: answers that are sets of spans: IoU, precision, recall, success curve
- ``chance``: what answers that never look at the video score
"""

from timelens_plugins.metrics.chance import ChanceLevel, chance_levels
from timelens_plugins.metrics.intervals import Interval, average_interval, clustered_interval
from timelens_plugins.metrics.readings import READINGS, Reading, reading_iou, reading_ious
from timelens_plugins.metrics.rejections import Rejections, count_rejections
from timelens_plugins.metrics.samples import (
    Joined,
    Sample,
    Status,
    Window,
    differing_duplicates,
    drop_duplicates,
    join_annotations,
    video_name,
)
from timelens_plugins.metrics.scores import (
    THRESHOLDS,
    Difference,
    Scores,
    average,
    count_failures,
    evaluate,
    paired_difference,
)
from timelens_plugins.metrics.span_sets import SUCCESS_THRESHOLDS, SetScore, score_span_set, success_area, success_curve

__all__ = [
    "READINGS",
    "SUCCESS_THRESHOLDS",
    "THRESHOLDS",
    "ChanceLevel",
    "Difference",
    "Interval",
    "Joined",
    "Reading",
    "Rejections",
    "Sample",
    "Scores",
    "SetScore",
    "Status",
    "Window",
    "average",
    "average_interval",
    "chance_levels",
    "clustered_interval",
    "count_failures",
    "count_rejections",
    "differing_duplicates",
    "drop_duplicates",
    "evaluate",
    "join_annotations",
    "paired_difference",
    "reading_iou",
    "reading_ious",
    "score_span_set",
    "success_area",
    "success_curve",
    "video_name",
]
