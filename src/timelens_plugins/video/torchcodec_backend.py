"""Frames by torchcodec, where the system has an FFmpeg it can load."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import BackendError
from timelens_plugins.video.pyav_backend import is_mirrored
from timelens_plugins.video.stream import VideoStream

__all__ = ["TorchCodecBackend"]

BATCH_BYTES = 64 * 2**20  # of decoded frames held at a time


class TorchCodecBackend:
    """Reads with the FFmpeg libraries of the system. It does not report damage inside a frame."""

    name = "torchcodec"

    def read(self, stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """As :meth:`PyAVBackend.read`, but damage inside a frame goes unnoticed.

        Raises:
            BackendError: torchcodec cannot open the file, fails to decode a frame, or returns other frames.
            VideoError: the file is to be shown at an odd angle.
        """
        from torchcodec.decoders import VideoDecoder

        if not stream.timed or stream.stamps is not None:
            raise BackendError(f"torchcodec orders frames wrongly in {stream.container} files")
        if is_mirrored(stream):
            raise BackendError("torchcodec does not mirror frames")
        try:
            decoder = VideoDecoder(os.path.abspath(stream.path), stream_index=stream.index, dimension_order="NHWC")
        except Exception as error:  # torchcodec's kinds of error are not listed anywhere
            raise BackendError(f"torchcodec cannot open the file: {_summary(error)}") from error
        undecodable = stream.packets - stream.unshown - stream.total_frames  # torchcodec counts those before the first
        size, start = 1, 0
        while start < len(indices):
            chosen = indices[start : start + size]
            try:
                batch = decoder.get_frames_at((chosen + undecodable).tolist())
            except Exception as error:  # as above: named, and raised again with the file
                raise BackendError(f"torchcodec cannot decode the file: {_summary(error)}") from error
            shown = batch.pts_seconds.numpy()
            if np.abs(shown - stream.pts[chosen] * stream.time_base).max() > 0.5 * stream.time_base:
                raise BackendError("torchcodec returned other frames than asked for")
            yield from batch.data.numpy()
            start += size
            size = max(1, BATCH_BYTES // batch.data[0].numel())


def _summary(error: BaseException) -> str:
    """The first line of torchcodec's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
