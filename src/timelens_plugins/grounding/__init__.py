"""Queries about a video in, moments out: sampled answers, what they agree on, the cut clip, a sheet to look at."""

from timelens_plugins.grounding.calibration import Calibration, read_calibration
from timelens_plugins.grounding.consensus import Consensus, consensus
from timelens_plugins.grounding.cut import cut_clip
from timelens_plugins.grounding.find import FoundMoment, find_moments
from timelens_plugins.grounding.sheet import moment_sheet

__all__ = [
    "Calibration",
    "Consensus",
    "FoundMoment",
    "consensus",
    "cut_clip",
    "find_moments",
    "moment_sheet",
    "read_calibration",
]
