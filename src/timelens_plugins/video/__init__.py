"""Videos in, frames and times out: decoding backends, frame sampling, pixel budget."""

from timelens_plugins.video.backends import BackendReport, working_backends
from timelens_plugins.video.clip import VideoClip, sample_frames
from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.estimate import expected_tokens
from timelens_plugins.video.frame_cache import FrameCache, open_cache
from timelens_plugins.video.sampling import FRAMES_PER_PATCH, FrameSampling, TimeConvention

__all__ = [
    "FRAMES_PER_PATCH",
    "BackendReport",
    "FrameCache",
    "FrameSampling",
    "TimeConvention",
    "VideoClip",
    "VideoError",
    "expected_tokens",
    "open_cache",
    "sample_frames",
    "working_backends",
]
