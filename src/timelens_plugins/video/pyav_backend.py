"""Frames by PyAV: decodes only the stretches that hold a wanted frame, and notices every frame that does not decode.

The file is read forward once. Nothing is sought: seeking lands on other frames in some containers (MPEG-TS) and codecs,
whereas skipping packets costs next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import BackendError, VideoError
from timelens_plugins.video.source import OPTIONS, faults_named, open_video
from timelens_plugins.video.stream import UNKNOWN_CODEC, VideoStream

if TYPE_CHECKING:
    import av
    from av.video.codeccontext import VideoCodecContext
    from av.video.reformatter import VideoReformatter

__all__ = ["PyAVBackend", "is_mirrored"]

DAMAGED = "does not decode ({}): the file is damaged; copy or download it again"
MAX_THREADS = 8  # more add memory (each thread holds frames), hardly speed
THREADED_PIXELS = 2**26  # of the frames that threads decode at a time: eight of 4K, two of 8K
NONREFERENCE_SKIPPING = ("h264",)  # codecs in which a frame marked as no reference is one to no other frame at all

# Values of FFmpeg's AVColorSpace with a conversion table of their own; libswscale uses BT.601 for all others.
COLOR_MATRICES = {1, 4, 5, 6, 7, 9, 10}
BT601, BT709 = 5, 1
FULL_RANGE, LIMITED_RANGE = 2, 1

# Signs of the display matrix's upper left 2x2 part, by rows: quarter turns counterclockwise, then mirrored or not.
ORIENTATIONS = {
    (1, 0, 0, 1): (0, False),
    (0, -1, 1, 0): (1, False),
    (-1, 0, 0, -1): (2, False),
    (0, 1, -1, 0): (3, False),
    (-1, 0, 0, 1): (0, True),
    (0, 1, 1, 0): (3, True),
    (1, 0, 0, -1): (2, True),
    (0, -1, -1, 0): (1, True),
}


@dataclass
class _Stretch:
    """Packets ``first..last`` (decoding order) that decode on their own, and the wanted frames' time stamps in them."""

    first: int
    first_pts: int
    last: int
    wanted: set[int] = field(default_factory=set)
    wanted_positions: set[int] = field(default_factory=set)


class PyAVBackend:
    """Reads every codec of the FFmpeg that PyAV ships, and reports damage."""

    name = "pyav"

    def read(self, stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The frames at ``indices`` (ascending, distinct), one by one: uint8 ``(H, W, C)``, RGB, upright.

        Raises:
            BackendError: no decoder for the stream's codec.
            VideoError: a frame that is needed does not decode.
        """
        from av.video.reformatter import VideoReformatter

        if stream.codec == UNKNOWN_CODEC:
            raise BackendError("PyAV's FFmpeg has no decoder for the video stream")
        converter = VideoReformatter()
        decoded = _decode_stretches(stream, indices) if stream.timed else _decode_counting(stream, indices)
        with faults_named(stream.path, DAMAGED):
            for frame in decoded:
                yield _to_rgb(frame, converter, stream.path)


def _stretches(stream: VideoStream, indices: NDArray[np.int64]) -> list[_Stretch]:
    """What to decode for the wanted frames, in order."""
    found: list[_Stretch] = []
    for index in indices:
        pts, position = int(stream.pts[index]), int(stream.positions[index])
        # A frame shown before its keyframe but stored behind it may need the group before (open GOP).
        usable = (stream.keyframes <= position) & (stream.keyframe_pts <= pts)
        key = int(np.flatnonzero(usable)[-1])
        first, first_pts = int(stream.keyframes[key]), int(stream.keyframe_pts[key])
        if not found or first > found[-1].last:
            found.append(_Stretch(first, first_pts, position))
        found[-1].last = max(found[-1].last, position)
        found[-1].wanted.add(pts)
        found[-1].wanted_positions.add(position)
    return found


def _decode_stretches(stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[av.VideoFrame]:
    container, source = open_video(stream.path)
    stretches = iter(_stretches(stream, indices))
    stretch = next(stretches)
    with container:
        context = source.codec_context
        _prepare(context)
        skips = stream.codec in NONREFERENCE_SKIPPING
        packets = (p for p in container.demux(source) if p.size)
        for position, packet in enumerate(packets):
            if position < stretch.first:
                continue
            if stream.stamps is not None:
                packet.pts = int(stream.stamps[position])
            if skips:
                context.skip_frame = "DEFAULT" if position in stretch.wanted_positions else "NONREF"
            yield from _wanted(context.decode(packet), stretch, stream)
            if position < stretch.last:
                continue
            yield from _wanted(context.decode(None), stretch, stream)
            if stretch.wanted:
                raise _undecodable(stream, min(stretch.wanted))
            context.flush_buffers()
            following = next(stretches, None)
            if following is None:
                return
            stretch = following
    raise VideoError(stream.path, "changed while it was read")


def _wanted(frames: list[av.VideoFrame], stretch: _Stretch, stream: VideoStream) -> Iterator[av.VideoFrame]:
    for frame in frames:
        if frame.pts is None or frame.pts < stretch.first_pts:
            continue  # shown before the keyframe it is stored behind: another stretch's business
        if frame.is_corrupt:
            raise _undecodable(stream, frame.pts)
        if frame.pts in stretch.wanted:
            # Frames leave a decoder in presentation order; one that comes late would be told the wrong time.
            if frame.pts != min(stretch.wanted):
                raise _undecodable(stream, min(stretch.wanted))
            stretch.wanted.discard(frame.pts)
            yield frame


def _decode_counting(stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[av.VideoFrame]:
    container, source = open_video(stream.path)
    with container:
        _prepare(source.codec_context)
        wanted = iter(int(i) for i in indices)
        following = next(wanted)
        for count, frame in enumerate(container.decode(source)):
            if frame.is_corrupt:
                raise _undecodable(stream, int(stream.pts[min(count, stream.total_frames - 1)]))
            if count == following:
                yield frame
                following = next(wanted, -1)
                if following < 0:
                    return
    raise _undecodable(stream, int(stream.pts[following]))


def _prepare(context: VideoCodecContext) -> None:
    context.options = dict(OPTIONS)
    context.thread_type = "AUTO"
    pixels = max(1, context.width * context.height)
    context.thread_count = max(1, min(MAX_THREADS, os.cpu_count() or 1, THREADED_PIXELS // pixels))


def _undecodable(stream: VideoStream, pts: int) -> VideoError:
    seconds = pts * stream.time_base - stream.start
    return VideoError(
        stream.path, f"the frame at {seconds:.2f} s does not decode: the file is damaged; copy or download it again"
    )


def _to_rgb(frame: av.VideoFrame, converter: VideoReformatter, path: str) -> NDArray[np.uint8]:
    matrix = frame.colorspace if frame.colorspace in COLOR_MATRICES else BT601
    full = frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")
    rgb = converter.reformat(
        frame,
        format="rgb24",
        interpolation="BILINEAR",
        src_colorspace=matrix,
        # RGB has no matrix, but PyAV applies the source's only where the two differ
        dst_colorspace=BT601 if matrix == BT709 else BT709,
        src_color_range=FULL_RANGE if full else LIMITED_RANGE,
        dst_color_range=FULL_RANGE,
    )
    turns, mirrored = _display_turns(frame, path)
    array = np.rot90(rgb.to_ndarray(), turns)
    return np.ascontiguousarray(array[:, ::-1] if mirrored else array)


def is_mirrored(stream: VideoStream) -> bool:
    """Whether a player shows the video mirrored, which decord and torchcodec do not; costs decoding one frame.

    Raises:
        VideoError: the file is to be shown at an odd angle, or its first frame does not decode.
    """
    if stream.codec == UNKNOWN_CODEC or not stream.timed:
        return False
    with faults_named(stream.path, DAMAGED):
        frame = next(_decode_stretches(stream, np.zeros(1, dtype=np.int64)))
    return _display_turns(frame, stream.path)[1]


def _display_turns(frame: av.VideoFrame, path: str) -> tuple[int, bool]:
    """How a player shows a frame: quarter turns counterclockwise, then whether it is mirrored left to right.

    Raises:
        VideoError: the file asks for another angle.
    """
    side_data: Any = frame.side_data  # PyAV's stubs have it as a mapping of strings
    data = next((d for d in side_data if d.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return 0, False
    # Rows of the 3x3 fixed-point matrix map stored (x, y) to shown (x, y), y pointing down.
    a, b, _, c, d = np.sign(np.frombuffer(bytes(data), dtype=np.int32)[:5]).tolist()
    try:
        return ORIENTATIONS[a, b, c, d]
    except KeyError:
        raise VideoError(
            path, "is to be shown at an angle that is no quarter turn; re-encode it upright: ffmpeg -i IN OUT.mp4"
        ) from None
