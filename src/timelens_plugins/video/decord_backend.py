"""Frames by decord, in files where it returns the frames it is asked for.

decord 0.6 numbers keyframes in decoding order and seeks by time stamp, so that its ``get_batch`` returns other frames
than asked for where groups of pictures are open (HEVC by default), in MPEG-TS and where an edit list cuts the start. It
also hides damage: bits flipped inside a frame change the picture without an error. Some damaged headers make it abort
the interpreter, which no ``try`` can catch, and a process of its own for each file would cost more than decoding it:
``auto`` never uses decord, and naming it is for files that are known to be whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import BackendError
from timelens_plugins.video.pyav_backend import is_mirrored
from timelens_plugins.video.stream import VideoStream

__all__ = ["DecordBackend"]

BATCH_BYTES = 64 * 2**20  # of decoded frames held at a time
INDEXED_CONTAINERS = ("mov", "matroska", "avi", "flv")


class DecordBackend:
    """Reads with the FFmpeg 4 inside decord: no AV1, no damage reports."""

    name = "decord"

    def read(self, stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """As :meth:`PyAVBackend.read`, but damage inside a frame goes unnoticed.

        Raises:
            BackendError: decord cannot open the file, fails to decode a frame, or would return other frames.
            VideoError: the file is to be shown at an odd angle.
        """
        import decord

        if not stream.container.startswith(INDEXED_CONTAINERS):
            raise BackendError(f"decord does not find frames reliably in {stream.container} files")
        if stream.unshown:
            raise BackendError("decord counts frames that are never shown (an edit list or hidden frames)")
        if is_mirrored(stream):
            raise BackendError("decord does not mirror frames")
        try:
            # a tolerance just above none: by default decord puts the nearest frame in place of one that fails
            reader = decord.VideoReader(os.path.abspath(stream.path), fault_tol=1e-9)
        except Exception as error:  # decord's kinds of error are not listed anywhere
            raise BackendError(f"decord cannot open the file: {_summary(error)}") from error
        if len(reader) != stream.packets:
            raise BackendError(f"decord finds {len(reader)} frames where the file has {stream.packets}")
        frames = _seeking(reader, indices) if _seeks_exactly(stream) else _counting(reader, indices)
        while True:
            try:
                frame = next(frames, None)
            except BackendError:
                raise
            except Exception as error:  # as above: named, and raised again with the file
                raise BackendError(f"decord cannot decode the file: {_summary(error)}") from error
            if frame is None:
                return
            yield frame


def _seeks_exactly(stream: VideoStream) -> bool:
    """Whether all frames decode, and every keyframe has one number in decoding order and in presentation order."""
    if not stream.timed or stream.total_frames != stream.packets:
        return False
    return np.array_equal(stream.positions[stream.keyframes], stream.keyframes)


def _seeking(reader: Any, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    size, start = 1, 0
    while start < len(indices):
        batch = reader.get_batch(indices[start : start + size].tolist()).asnumpy()
        start += size
        size = max(1, BATCH_BYTES // batch[0].nbytes)
        yield from batch


def _counting(reader: Any, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    wanted = {int(i) for i in indices}
    for index in range(int(indices[-1]) + 1):
        try:
            frame = reader.next()
        except StopIteration as error:
            raise BackendError(f"decord stops at frame {index}") from error
        if index in wanted:
            yield frame.asnumpy()


def _summary(error: BaseException) -> str:
    """The first line of decord's message, without the place in its source and the stack behind it."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first.rsplit(".cc:", 1)[-1][:160]
