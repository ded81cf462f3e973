"""The stretch of a video in which a moment lies, as a file of its own, exact to the frame and so encoded again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.atomic import replacing
from timelens_plugins.spans import SpanLike, merge_spans
from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.pyav_backend import PyAVBackend
from timelens_plugins.video.source import local_path
from timelens_plugins.video.stream import VideoStream, probe

__all__ = ["cut_clip"]

_TICKS = 90_000  # a second; the times of any usual frame rate, to within a hundred thousandth of a second
_ENCODER = {"preset": "medium", "crf": "18", "bf": "0"}
_BT709, _LIMITED_RANGE = 1, 1


def cut_clip(video: str | os.PathLike[str], spans: Sequence[SpanLike], output: str | os.PathLike[str]) -> int:
    """Write the frames a player shows during ``spans`` to an mp4 file (H.264, without sound), one span after the other.

    Every frame keeps how long it is shown; the first and last of a span are whole. Sides of an odd number of pixels
    lose one. Frames are decoded and encoded one by one: memory does not grow with the length.

    Args:
        video: the file.
        spans: seconds on the player's clock; overlapping ones are written once.
        output: ends in ``.mp4``; an existing file is replaced once the new one is whole.

    Returns:
        The number of frames written.

    Raises:
        VideoError: the video cannot be read, or shows no frame during the spans.
        ValueError: no spans, or an output of another kind.
    """
    import av

    output = Path(output)
    if output.suffix.lower() != ".mp4":
        raise ValueError(f"{output}: a clip is written as .mp4")
    if not spans:
        raise ValueError("no span to cut")
    stream = probe(local_path(video))
    indices, starts, ends = _frames(stream, spans)
    if not len(indices):
        raise VideoError(
            stream.path, f"shows no frame during {[list(s) for s in spans]}; it ends at {stream.duration} s"
        )
    with replacing(output) as part, av.open(str(part), "w", format="mp4") as container:
        target = container.add_stream("libx264", rate=Fraction(stream.rate).limit_denominator(1001), options=_ENCODER)
        target.time_base = target.codec_context.time_base = Fraction(1, _TICKS)
        target.pix_fmt = "yuv420p"
        for number, picture in enumerate(PyAVBackend().read(stream, indices)):
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if number == 0:
                target.height, target.width = picture.shape[:2]
                target.codec_context.colorspace, target.codec_context.color_range = _BT709, _LIMITED_RANGE
            elif picture.shape[:2] != (target.height, target.width):
                raise VideoError(stream.path, "changes its frame size midway; re-encode it: ffmpeg -i IN OUT.mp4")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            frame.colorspace, frame.color_range = _BT709, _LIMITED_RANGE
            frame.pts, frame.time_base = round(starts[number] * _TICKS), Fraction(1, _TICKS)
            frame.duration = round((ends[number] - starts[number]) * _TICKS)
            container.mux(target.encode(frame))
        container.mux(target.encode())
    return len(indices)


def _frames(
    stream: VideoStream, spans: Sequence[SpanLike]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The frames shown during spans, and when each is shown in the clip: start and end in seconds."""
    shown = stream.times
    until = np.append(shown[1:], stream.duration)
    indices: list[NDArray[np.int64]] = []
    starts: list[NDArray[np.float64]] = []
    ends: list[NDArray[np.float64]] = []
    length = 0.0
    for span in merge_spans(spans):
        # A microsecond of slack: a frame that is over as the span begins is not in it, whatever the last digit.
        inside = np.flatnonzero((until > span.start + 1e-6) & (shown < span.end - 1e-6))
        inside = inside[~np.isin(inside, np.concatenate(indices))] if indices else inside
        if len(inside):
            indices.append(inside.astype(np.int64))
            starts.append(shown[inside] - shown[inside[0]] + length)
            ends.append(until[inside] - shown[inside[0]] + length)
            length = float(ends[-1][-1])
    if not indices:
        return np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
    return np.concatenate(indices), np.concatenate(starts), np.concatenate(ends)
