"""What a video file holds: the stream a player would show, and the frames in it, from the container's packets alone.

Demuxing reads every packet without decoding any. The result is the one list of frames all backends number alike, whatever
a header claims or leaves out.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import VideoError

if TYPE_CHECKING:
    import av.container
    import av.video.stream

__all__ = ["VideoStream", "open_video", "probe"]


@dataclass(frozen=True, eq=False)
class VideoStream:
    """The best video stream of a file and its decodable frames, in presentation order.

    Attributes:
        path: the file.
        stream_index: the stream's number in the container.
        codec: FFmpeg's name of the codec, such as ``h264``.
        container: FFmpeg's name of the container format.
        width, height: pixels of a stored frame, before any rotation.
        rate: average frames a second, as the container states it.
        pts: presentation time stamps of the frames in units of ``time_base``, ascending, shape ``(N,)``.
        decode_order: position of each frame's packet among the stream's packets, shape ``(N,)``.
        keyframes: positions of the keyframe packets among the stream's packets, ascending.
        keyframe_pts: the presentation time stamps of those packets.
        time_base: seconds of one unit of ``pts``.
        start: the file's start on the same clock, in seconds: a player shows this moment as zero.
        last_duration: seconds for which the last frame is shown.
    """

    path: str
    stream_index: int
    codec: str
    container: str
    width: int
    height: int
    rate: float
    pts: NDArray[np.int64]
    decode_order: NDArray[np.int64]
    keyframes: NDArray[np.int64]
    keyframe_pts: NDArray[np.int64]
    packets: int
    time_base: float
    start: float
    last_duration: float

    @property
    def total_frames(self) -> int:
        """Number of frames a player shows."""
        return len(self.pts)

    @property
    def times(self) -> NDArray[np.float64]:
        """Presentation times in seconds on the player's clock, shape ``(N,)``."""
        return self.pts * self.time_base - self.start

    @property
    def duration(self) -> float:
        """Seconds on the player's clock at which the last frame ends."""
        return float(self.times[-1]) + self.last_duration


def open_video(path: str) -> tuple[av.container.InputContainer, av.video.stream.VideoStream]:
    """Open a file and choose the video stream FFmpeg calls the best: the one every backend here reads.

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
        container = av.open(path)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(path, f"cannot be opened as a video ({_reason(error)}); copy or download it again") from error
    stream = container.streams.best("video")
    if stream is None:
        kinds = sorted({s.type for s in container.streams})
        container.close()
        raise VideoError(path, f"has no video stream (only {', '.join(kinds) or 'no stream at all'})")
    return container, stream


def probe(path: str) -> VideoStream:
    """Read the list of frames of a file's best video stream.

    Raises:
        VideoError: as :func:`open_video`, and for a file that is cut off or has no decodable frame.
    """
    import av

    container, stream = open_video(path)
    with container:
        pts: list[int] = []
        keyframes: list[int] = []
        shown: list[bool] = []
        last_duration = 0
        try:
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.is_keyframe:
                    keyframes.append(len(pts))
                if packet.pts is None:
                    raise VideoError(path, "has frames without a time stamp; remux it: ffmpeg -i IN -c copy OUT.mp4")
                pts.append(packet.pts)
                shown.append(not packet.is_discard)
                last_duration = packet.duration or 0
        except av.FFmpegError as error:
            raise VideoError(path, f"cannot be read to its end ({_reason(error)}) after {len(pts)} frames") from error
        if stream.frames > len(pts):
            raise VideoError(
                path, f"is cut off: its header lists {stream.frames} frames, {len(pts)} are there; copy it again"
            )
        context = stream.codec_context
        all_pts, key = np.asarray(pts, dtype=np.int64), np.asarray(keyframes, dtype=np.int64)
        decodable = np.asarray(shown, dtype=bool)
        if len(key):
            # what precedes the first keyframe, in the file or on the screen, refers to pictures that are not there
            decodable[: key[0]] = False
            decodable &= all_pts >= all_pts[key[0]]
        if not len(key) or not decodable.any():
            raise VideoError(path, f"has no decodable frame among its {len(pts)} video packets")
        positions = np.flatnonzero(decodable)
        order = positions[np.argsort(all_pts[positions], kind="stable")]
        time_base = float(stream.time_base or 0)
        rate = float(stream.average_rate or 0)
        if not rate > 0 or not time_base > 0:
            raise VideoError(path, "states no frame rate; remux it: ffmpeg -i IN -c copy OUT.mp4")
        start = container.start_time / av.time_base if container.start_time is not None else pts[0] * time_base
        return VideoStream(
            path=path,
            stream_index=stream.index,
            codec=context.codec.canonical_name,
            container=container.format.name,
            width=context.width,
            height=context.height,
            rate=rate,
            pts=all_pts[order],
            decode_order=order,
            keyframes=key,
            keyframe_pts=all_pts[key],
            packets=len(pts),
            time_base=time_base,
            start=start,
            last_duration=last_duration * time_base or 1 / rate,
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
