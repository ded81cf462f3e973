"""Frames by PyAV: decodes only the groups of pictures that hold a wanted frame, and within them only what is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.stream import VideoStream, open_video

if TYPE_CHECKING:
    import av

__all__ = ["read_frames"]


def read_frames(stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[torch.Tensor]:
    """The frames at ``indices`` (ascending, distinct), one by one: uint8 ``(C, H, W)``, RGB, upright.

    Raises:
        VideoError: a needed part of the stream does not decode.
    """
    import av

    container, source = open_video(stream.path)
    with container:
        context = source.codec_context
        context.thread_type = "AUTO"
        wanted = {int(stream.pts[i]) for i in indices}
        for frame in container.decode(source):
            if frame.pts in wanted:
                wanted.discard(frame.pts)
                yield _to_rgb(frame)
                if not wanted:
                    return
    raise VideoError(stream.path, f"{len(wanted)} frames do not decode")


def _to_rgb(frame: av.VideoFrame) -> torch.Tensor:
    array = frame.to_ndarray(
        format="rgb24", src_colorspace="DEFAULT" if frame.colorspace == 2 else frame.colorspace, dst_colorspace="ITU601"
    )
    return torch.from_numpy(np.ascontiguousarray(np.rot90(array, frame.rotation // 90))).permute(2, 0, 1)
