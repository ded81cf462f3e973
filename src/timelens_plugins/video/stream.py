"""What a video file holds: the stream a player would show, and its frames, from the container's packets alone.

Demuxing reads every packet and decodes none. The result is the one list of frames that all backends number alike,
whatever a header claims or leaves out: frames that precede the first keyframe, that an edit list cuts away, or that a
codec decodes but never shows do not count.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import VideoError
from timelens_plugins.video.mpeg_times import NO_STAMP, SPARSE, own_stamps
from timelens_plugins.video.source import UNREADABLE, faults_named, open_video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream as AvStream

__all__ = ["UNKNOWN_CODEC", "VideoStream", "probe"]

UNKNOWN_CODEC = "unknown"
UNTIMED = "avi"  # stores no presentation times: FFmpeg's guesses are wrong wherever frames are reordered
VP8_SHOWN = 0x10  # in the first byte of a VP8 frame; hidden frames only serve as references
PICTURE_CODECS = ("gif", "apng", "png", "mjpeg", "jpeg2000", "jpegls", "bmp", "tiff", "webp")  # of still ones, too
MAX_REORDERING = 32  # packets between a frame's place in the file and on the screen: 16 frames, each in two fields
DURATION_SLACK = 1.0  # seconds by which a Matroska header may overstate the length of an intact file


@dataclass(frozen=True, eq=False)
class VideoStream:
    """The best video stream of a file and the frames a player shows of it, in presentation order.

    Attributes:
        path: the file.
        index: the stream's number in the container.
        codec: FFmpeg's name of the codec, such as ``h264``.
        container: FFmpeg's names of the container format, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        rate: average frames a second, as the container states it; measured where it states none.
        pts: presentation time stamps of the frames in units of ``time_base``, ascending, shape ``(N,)``.
        positions: position of each frame's packet among the stream's packets (decoding order), shape ``(N,)``.
        keyframes: positions of the keyframe packets, ascending, shape ``(K,)``.
        keyframe_pts: the presentation time stamps of those packets, shape ``(K,)``.
        packets: number of packets in the stream.
        unshown: number of those that decode to a frame no player shows: cut away by an edit list, or hidden.
        time_base: seconds in one unit of ``pts``.
        start: where the file starts on the same clock, in seconds: what a player shows as zero.
        last_duration: seconds for which the last frame is shown.
        stamps: what to put in the place of FFmpeg's ``pts`` of each packet before it is decoded, shape ``(packets,)``;
            None where FFmpeg's are the file's own.
    """

    path: str
    index: int
    codec: str
    container: str
    rate: float
    pts: NDArray[np.int64]
    positions: NDArray[np.int64]
    keyframes: NDArray[np.int64]
    keyframe_pts: NDArray[np.int64]
    packets: int
    unshown: int
    time_base: float
    start: float
    last_duration: float
    stamps: NDArray[np.int64] | None = None

    @property
    def total_frames(self) -> int:
        """Number of frames a player shows."""
        return len(self.pts)

    @cached_property
    def times(self) -> NDArray[np.float64]:
        """Presentation times in seconds on the player's clock, shape ``(N,)``."""
        return np.asarray(self.pts * self.time_base - self.start, dtype=np.float64)

    @property
    def duration(self) -> float:
        """Seconds on the player's clock at which the last frame ends."""
        return float(self.times[-1]) + self.last_duration

    @property
    def timed(self) -> bool:
        """Whether packets carry real presentation times. If not, frames are told apart only by counting them."""
        return self.container != UNTIMED

    @cached_property
    def index_error(self) -> float:
        """Largest distance in seconds between a frame's presentation time and its index / ``rate``."""
        return float(np.abs(np.arange(self.total_frames) / self.rate - self.times).max())

    @cached_property
    def steady_rate(self) -> float:
        """``rate`` where frames come evenly at it, to within half a frame; else the rate measured over the clip."""
        shown = self.times - self.times[0]
        if np.abs(np.arange(self.total_frames) / self.rate - shown).max() <= 0.5 / self.rate:
            return self.rate
        return self.total_frames / (float(shown[-1]) + self.last_duration)


def probe(path: str) -> VideoStream:
    """List the frames of a file's best video stream.

    Raises:
        VideoError: as :func:`open_video`, and for a file that is cut off, has no decodable frame or no time stamps.
    """
    container, source = open_video(path)
    try:
        packets, end = _demux(path, container, source)
        return _listed(path, container, source, packets, end)
    finally:
        container.close()


@dataclass(slots=True)
class _Packets:
    """What the packets of a stream say, in decoding order."""

    pts: array[int]  # NO_STAMP where a packet has none, as in dts
    dts: array[int]
    durations: array[int]
    keyframe: bytearray
    shown: bytearray


def _demux(path: str, container: InputContainer, stream: AvStream) -> tuple[_Packets, float]:
    """The stream's packets in decoding order, and the second at which the last packet of any stream read ends."""
    # Matroska headers state the length of the longest stream only, so that all of them must be seen to check it.
    streams = list(container.streams) if _is_matroska(container) else [stream]
    hides_frames = _codec(stream) == "vp8"
    found = _Packets(array("q"), array("q"), array("q"), bytearray(), bytearray())
    end, most = 0.0, os.stat(path).st_size
    with faults_named(path, UNREADABLE):
        for count, packet in enumerate(container.demux(streams)):
            if count > most:  # a short index may repeat one packet for ever
                raise VideoError(path, f"lists more packets than its {most} bytes can hold: damaged; copy it again")
            if len(streams) > 1 and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or not packet.size:
                continue
            shown = not packet.is_discard and not (hides_frames and not memoryview(packet)[0] & VP8_SHOWN)
            found.pts.append(NO_STAMP if packet.pts is None else packet.pts)
            found.dts.append(NO_STAMP if packet.dts is None else packet.dts)
            found.durations.append(packet.duration or 0)
            found.keyframe.append(packet.is_keyframe)
            found.shown.append(shown)
    return found, end


def _listed(path: str, container: InputContainer, source: AvStream, packets: _Packets, end: float) -> VideoStream:
    """The stream that a file's packets describe; ``end``: the second at which the last of any stream ends."""
    import av

    time_base = float(source.time_base or 0)
    if not packets.pts:
        raise VideoError(path, "has no video frames")
    untimed = container.format.name == UNTIMED
    stamps = own_stamps(path, source, len(packets.pts)) if container.format.name in SPARSE else None
    pts = stamps if stamps is not None else np.asarray(packets.dts if untimed else packets.pts, dtype=np.int64)
    if (stamps is None and NO_STAMP in packets.pts) or not time_base > 0:
        raise VideoError(path, "has frames without time stamps; remux it: ffmpeg -r RATE -i IN -c copy OUT.mp4")

    shown = np.asarray(packets.shown, dtype=bool)
    keyframes = np.flatnonzero(packets.keyframe)
    order = np.argsort(pts, kind="stable")
    # of packets with one time stamp, the last is the frame that is shown
    visible = shown[order] & np.append(np.diff(pts[order]) > 0, True)
    keep = visible.copy()
    if len(keyframes) and not untimed:
        # what precedes the first keyframe, in the file or on the screen, refers to pictures that are not there
        keep &= (order >= keyframes[0]) & (pts[order] >= pts[keyframes[0]])
    positions = order[keep]
    if not len(keyframes) or not len(positions):
        raise VideoError(path, f"has no decodable frame among its {len(pts)} packets; copy it again")
    if len(pts) == 1 and _codec(source) in PICTURE_CODECS:
        raise VideoError(path, f"holds a single {_codec(source).upper()} picture, not a video")
    if len(jumps := np.flatnonzero(np.abs(order - np.arange(len(order))) > MAX_REORDERING)):
        seconds = float(pts[order[jumps[0]]] - pts[order[0]]) * time_base
        raise VideoError(
            path, f"has time stamps that run back near {seconds:.2f} s, as after a careless join; re-encode each part"
        )

    shown_pts = pts[positions]
    last_duration = packets.durations[positions[-1]] * time_base
    _check_complete(path, container, source, len(pts), end, float(shown_pts[-1]) * time_base + last_duration)
    length = float(shown_pts[-1] - shown_pts[0]) * time_base
    rate = float(source.average_rate or 0) or (len(shown_pts) / (length + last_duration) if length else 1.0)
    if untimed or container.start_time is None:
        start = float(shown_pts[0]) * time_base
    else:
        start = container.start_time / av.time_base
    return VideoStream(
        path=path,
        index=source.index,
        codec=_codec(source),
        container=container.format.name,
        rate=rate,
        pts=shown_pts,
        positions=positions,
        keyframes=keyframes,
        keyframe_pts=pts[keyframes],
        packets=len(pts),
        unshown=len(pts) - int(np.count_nonzero(visible)),
        time_base=time_base,
        start=start,
        last_duration=last_duration or 1 / rate,
        stamps=stamps,
    )


def _check_complete(
    path: str, container: InputContainer, stream: AvStream, packets: int, end: float, video_end: float
) -> None:
    """Raise :class:`VideoError` where the header promises more than the file holds."""
    import av

    if stream.frames > packets and stream.duration and stream.time_base and stream.average_rate:
        promised = float((stream.start_time or 0) + stream.duration) * float(stream.time_base)
        # an edit list may leave out frames the header counts, but then shortens the stated duration too
        if promised - video_end > 0.5 / float(stream.average_rate):
            raise VideoError(
                path,
                f"is cut off: its header lists {stream.frames} frames in {promised:.2f} s, "
                f"it holds {packets} in {video_end:.2f} s; copy it again",
            )
    if _is_matroska(container) and container.duration:
        promised = container.duration / av.time_base
        if promised - max(end, video_end) > DURATION_SLACK:
            raise VideoError(
                path,
                f"is cut off: its header states {promised:.2f} s, it ends at {max(end, video_end):.2f} s; "
                "copy it again (or, if only the header is wrong, remux it: ffmpeg -i IN -c copy OUT.mkv)",
            )


def _codec(stream: AvStream) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else UNKNOWN_CODEC


def _is_matroska(container: InputContainer) -> bool:
    return "matroska" in container.format.name
