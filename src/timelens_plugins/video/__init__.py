"""Videos in, frames and times out: decoding backends, frame sampling, pixel budget."""

from timelens_plugins.video.backends import BackendReport, working_backends
from timelens_plugins.video.clip import VideoClip, sample_frames
from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.sampling import FrameSampling, TimeConvention

__all__ = [
    "BackendReport",
    "FrameSampling",
    "TimeConvention",
    "VideoClip",
    "VideoError",
    "sample_frames",
    "working_backends",
]
