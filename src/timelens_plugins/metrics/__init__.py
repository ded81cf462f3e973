"""Scores of video temporal grounding: two readings of the protocol, recall and mIoU with intervals clustered by video.

- ``samples``: one annotation and what a model answered; duplicates; joining answers with annotations
- ``readings``: the IoU of a prediction under the ``official`` and the ``exact`` reading
- ``intervals``: confidence intervals of a mean over samples that share videos
- ``scores``: recall, mIoU and counts of a set of samples; the average over subsets; paired differences of two runs
- ``results``: files that TimeLens and lmms-eval write, read back into samples
- ``chance``: what answers that never look at the video score
"""

from timelens_plugins.metrics.chance import ChanceLevel, chance_levels
from timelens_plugins.metrics.intervals import Interval, average_interval, clustered_interval
from timelens_plugins.metrics.readings import READINGS, Reading, reading_iou, reading_ious
from timelens_plugins.metrics.results import Disagreement, ResultFile, load_results
from timelens_plugins.metrics.samples import Joined, Sample, Status, drop_duplicates, join_annotations, video_name
from timelens_plugins.metrics.scores import THRESHOLDS, Difference, Scores, average, evaluate, paired_difference

__all__ = [
    "READINGS",
    "THRESHOLDS",
    "ChanceLevel",
    "Difference",
    "Disagreement",
    "Interval",
    "Joined",
    "Reading",
    "ResultFile",
    "Sample",
    "Scores",
    "Status",
    "average",
    "average_interval",
    "chance_levels",
    "clustered_interval",
    "drop_duplicates",
    "evaluate",
    "join_annotations",
    "load_results",
    "paired_difference",
    "reading_iou",
    "reading_ious",
    "video_name",
]
