"""Videos in, frames and times out: decoding backends, frame sampling, pixel budget."""

from timelens_plugins.video.clip import VideoClip, sample_frames
from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.sampling import FrameSampling

__all__ = ["FrameSampling", "VideoClip", "VideoError", "sample_frames"]
