"""Times of pictures in MPEG program and transport streams, where only some pictures carry a time stamp.

FFmpeg guesses the others from the order of packets, and where a picture starts at the edge of a packet of the
container it gives that packet's stamp to the picture before: frames then share a time, and one of the two gets lost.
Here the stream itself says in which order its pictures are shown and for how long (ISO/IEC 13818-2, sections 6.3.9
and 6.3.10), the stamps that the file does hold say when, and a stamp that fits neither picture is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.source import UNREADABLE, faults_named, open_video

if TYPE_CHECKING:
    from av.video.stream import VideoStream as AvStream

__all__ = ["NO_STAMP", "SPARSE", "own_stamps"]

SPARSE = ("mpeg", "mpegts")
"""FFmpeg's names of the containers in which a picture need not have a time stamp."""
NO_STAMP = -(2**63)

MPEG_VIDEO = ("mpeg1video", "mpeg2video")
PICTURE, EXTENSION = b"\0\0\1\0", b"\0\0\1\xb5"
SEQUENCE_EXTENSION, PICTURE_EXTENSION = 1, 8
B_PICTURE = 3


@dataclass(frozen=True)
class _Picture:
    stamp: int | None
    bidirectional: bool  # shown at once; all others wait until the next of them is decoded
    fields: int  # for how long it is shown: two fields are a frame


def own_stamps(path: str, source: AvStream, packets: int) -> NDArray[np.int64] | None:
    """A time stamp for each packet of the stream, in its unit and in decoding order; None where all have their own.

    Args:
        path: of the file.
        source: its stream, as opened.
        packets: how many the stream has.

    Raises:
        VideoError: the stamps that there are do not fit the stream's frame rate, or say too little.
    """
    pictures = _pictures(path, source)
    if len(pictures) != packets:
        raise VideoError(path, "changed while it was read")
    known = [i for i, picture in enumerate(pictures) if picture.stamp is not None]
    if len(known) == packets:
        return None
    rate = source.codec_context.framerate or source.average_rate
    reorders = bool(source.codec_context.has_b_frames) and _codec(source) not in MPEG_VIDEO
    if not known or not rate or not source.time_base or reorders:
        raise VideoError(
            path,
            f"has {packets - len(known)} of {packets} pictures without time stamps; re-encode it: ffmpeg -i IN OUT.mp4",
        )
    field = float(1 / (2 * rate * source.time_base))
    shown = _times(pictures) * field
    stamps = np.asarray([pictures[i].stamp for i in known], dtype=np.float64)
    # a picture's stamp, or that of the next in the file: see above
    following = [min(i + 1, packets - 1) for i in known]
    start = float(np.median(stamps - shown[known]))
    errors = np.minimum(np.abs(stamps - shown[known] - start), np.abs(stamps - shown[following] - start))
    if len(wrong := np.flatnonzero(errors > field)):
        seconds = (stamps[wrong[0]] - stamps[0]) * float(source.time_base)
        raise VideoError(
            path,
            f"has time stamps that do not fit its {float(rate):.3f} fps near {seconds:.2f} s, and pictures without; "
            "re-encode it: ffmpeg -i IN OUT.mp4",
        )
    return np.rint(shown + start).astype(np.int64)


def _pictures(path: str, source: AvStream) -> list[_Picture]:
    """The pictures of a stream in decoding order, with the stamps that the file holds."""
    container, stream = open_video(path, flags="nofillin")
    parsed = _codec(source) in MPEG_VIDEO
    found: list[_Picture] = []
    progressive = False
    with container, faults_named(path, UNREADABLE):
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if not parsed:
                found.append(_Picture(packet.pts, False, 2))
                continue
            data = bytes(packet)
            for extension in _extensions(data, SEQUENCE_EXTENSION):
                progressive = bool(extension[1] >> 3 & 1)
            found.append(_picture(packet.pts, data, progressive))
    return found


def _picture(stamp: int | None, data: bytes, progressive: bool) -> _Picture:
    begin = data.find(PICTURE)
    kind = data[begin + 5] >> 3 & 7 if 0 <= begin < len(data) - 5 else 0
    fields = 2
    for extension in _extensions(data, PICTURE_EXTENSION):
        top_first, repeated = extension[3] >> 7, extension[3] >> 1 & 1
        if repeated:
            fields = (6 if top_first else 4) if progressive else 3
        break  # a frame in two fields has an extension in each
    return _Picture(stamp, kind == B_PICTURE, fields)


def _extensions(data: bytes, kind: int) -> list[bytes]:
    """The first bytes of the extensions of a kind."""
    found, place = [], data.find(EXTENSION)
    while place >= 0:
        extension = data[place + 4 : place + 8]
        if len(extension) == 4 and extension[0] >> 4 == kind:
            found.append(extension)
        place = data.find(EXTENSION, place + 4)
    return found


def _times(pictures: list[_Picture]) -> NDArray[np.float64]:
    """When each picture begins to be shown, in fields after the first one shown."""
    order: list[int] = []
    waiting: int | None = None
    for i, picture in enumerate(pictures):
        if picture.bidirectional:
            order.append(i)
            continue
        if waiting is not None:
            order.append(waiting)
        waiting = i
    if waiting is not None:
        order.append(waiting)
    lengths = np.asarray([pictures[i].fields for i in order])
    times = np.zeros(len(pictures))
    times[order] = np.cumsum(lengths) - lengths
    return times


def _codec(stream: AvStream) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else ""
