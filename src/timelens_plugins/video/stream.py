"""What a video file holds: the stream a player would show, and its frames, from the container's packets alone.

Demuxing reads every packet and decodes none. The result is the one list of frames that all backends number alike,
whatever a header claims or leaves out: frames that precede the first keyframe, that an edit list cuts away, or that a
codec decodes but never shows do not count.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream as AvStream

__all__ = ["UNKNOWN_CODEC", "VideoStream", "open_video", "probe", "reason"]

UNKNOWN_CODEC = "unknown"
UNTIMED = "avi"  # stores no presentation times: FFmpeg's guesses are wrong wherever frames are reordered
VP8_SHOWN = 0x10  # in the first byte of a VP8 frame; hidden frames only serve as references
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


def open_video(path: str) -> tuple[InputContainer, AvStream]:
    """Open a file and choose the video stream that FFmpeg calls the best: the one every backend here reads.

    Raises:
        VideoError: missing, a directory, empty, not a media file, or without a video stream.
    """
    import av

    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoError(path, f"cannot be opened ({error.strerror}); check the path and the video folder") from error
    if stat.S_ISDIR(status.st_mode):
        raise VideoError(path, "is a directory, not a video file")
    if status.st_size == 0:
        raise VideoError(path, "is empty (0 bytes); copy or download it again")
    try:
        container = av.open(os.path.abspath(path))  # absolute, or FFmpeg takes "a:b.mp4" for a protocol
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            path, f"cannot be opened as a video ({reason(error)}): damaged, cut off, or not a video; copy it again"
        ) from error
    stream = container.streams.best("video")
    if stream is None:
        kinds = sorted({s.type for s in container.streams})
        container.close()
        raise VideoError(path, f"has no video stream, only {' and '.join(kinds) or 'nothing'}")
    return container, stream  # type: ignore[return-value]  # best("video") gives a video stream


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


@dataclass(frozen=True, slots=True)
class _Packet:
    pts: int | None
    dts: int | None
    duration: int
    keyframe: bool
    shown: bool


def _demux(path: str, container: InputContainer, stream: AvStream) -> tuple[Sequence[_Packet], float]:
    """The stream's packets in decoding order, and the second at which the last packet of any stream read ends."""
    import av

    # Matroska headers state the length of the longest stream only, so that all of them must be seen to check it.
    streams = list(container.streams) if _is_matroska(container) else [stream]
    hides_frames = _codec(stream) == "vp8"
    found: list[_Packet] = []
    end = 0.0
    try:
        for packet in container.demux(streams):
            if len(streams) > 1 and packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream_index != stream.index or not packet.size:
                continue
            shown = not packet.is_discard and not (hides_frames and not memoryview(packet)[0] & VP8_SHOWN)
            found.append(_Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, shown))
    except av.FFmpegError as error:
        raise VideoError(path, f"cannot be read to its end ({reason(error)}); copy it again") from error
    return found, end


def _listed(
    path: str, container: InputContainer, source: AvStream, packets: Sequence[_Packet], end: float
) -> VideoStream:
    """The stream that a file's packets describe; ``end``: the second at which the last of any stream ends."""
    import av

    time_base = float(source.time_base or 0)
    if not packets:
        raise VideoError(path, "has no video frames")
    if any(p.pts is None for p in packets) or not time_base > 0:
        raise VideoError(path, "has frames without time stamps; remux it: ffmpeg -r RATE -i IN -c copy OUT.mp4")

    untimed = container.format.name == UNTIMED
    pts = np.asarray([p.dts if untimed else p.pts for p in packets], dtype=np.int64)
    shown = np.asarray([p.shown for p in packets])
    keyframes = np.flatnonzero([p.keyframe for p in packets])
    order = np.argsort(pts, kind="stable")
    # of packets with one time stamp, the last is the frame that is shown
    visible = shown[order] & np.append(np.diff(pts[order]) > 0, True)
    keep = visible.copy()
    if len(keyframes) and not untimed:
        # what precedes the first keyframe, in the file or on the screen, refers to pictures that are not there
        keep &= (order >= keyframes[0]) & (pts[order] >= pts[keyframes[0]])
    positions = order[keep]
    if not len(keyframes) or not len(positions):
        raise VideoError(path, f"has no decodable frame among its {len(packets)} packets; copy it again")

    shown_pts = pts[positions]
    last_duration = packets[positions[-1]].duration * time_base
    _check_complete(path, container, source, len(packets), end, float(shown_pts[-1]) * time_base + last_duration)
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
        packets=len(packets),
        unshown=len(packets) - int(np.count_nonzero(visible)),
        time_base=time_base,
        start=start,
        last_duration=last_duration or 1 / rate,
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


def reason(error: Exception) -> str:
    """FFmpeg's or the system's words for an error, without the path."""
    return str(getattr(error, "strerror", None) or error)
