"""From what a caller names as a video to an open container: the one place where files are opened.

A video is a regular file in one of :data:`CONTAINERS`. FFmpeg is given the file's descriptor and may open nothing
else, so that playlists, scripts and references inside a file lead nowhere, and no name is taken for a protocol.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from timelens_plugins.moments import read_address
from timelens_plugins.video.errors import BackendError, VideoError
from timelens_plugins.video.sample_tables import claimed_samples

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream as AvStream

__all__ = [
    "CONTAINERS",
    "MAX_PIXELS",
    "OPTIONS",
    "UNREADABLE",
    "Header",
    "faults_named",
    "local_path",
    "open_video",
    "read_header",
    "reason",
]

CONTAINERS = (
    *("mov", "matroska", "avi", "flv", "mpeg", "mpegts", "asf", "ogg", "rm", "mxf", "gxf"),
    *("nut", "ivf", "wtv", "dv", "yuv4mpegpipe", "gif", "apng"),
)
"""FFmpeg's demuxers of formats that hold moving pictures with times: no playlists, scripts, texts or still pictures,
and no raw streams, whose times would be guessed. Animated GIF and APNG are videos; FFmpeg reads no animated WebP."""

MAX_PIXELS = 2**26
"""Of a decoded picture: 8192 x 8192, twice what 8K video has. A header of a few bytes may declare 16 times as many,
and FFmpeg allocates what is declared, once for each frame in flight."""

OPTIONS = {"max_pixels": str(MAX_PIXELS)}
"""For a decoder, which then refuses larger pictures that come midway."""

UNREADABLE = "cannot be read to its end ({}); copy it again"

# With options for streams, PyAV writes beyond an array where a demuxer finds streams after the header; these do not.
STREAMS_IN_HEADER = ("mov", "matroska")
SAMPLES_PER_BYTE = 8  # of a file, at most: old QuickTime sound has six, all else less than one
STILL_BRANDS = ("heic", "heix", "heim", "heis", "mif1", "avif")  # HEIF and AVIF pictures are files of the mov family
PICTURES = {
    b"\x89PNG\r\n": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"II*\x00": "a TIFF picture",
    b"MM\x00*": "a TIFF picture",
}
HEAD = 512  # bytes looked at to say what a file is instead


def local_path(video: Any) -> str:
    """The path of a video given as a path or as a ``file://`` address, percent-encoded or not.

    Raises:
        TypeError: neither text nor a path, such as a list of frame files.
        VideoError: an address of another kind.
    """
    if isinstance(video, bytes) or not isinstance(video, str | os.PathLike):
        raise TypeError(
            f"a video is the path of a file, or file:// with an absolute path, not a {type(video).__name__}; "
            "frames that lie in files of their own have no times: make a video of them (ffmpeg -framerate FPS "
            "-i FRAMES OUT.mp4), or pass them decoded, with their times, to the processor"
        )
    path, fault = read_address(os.fsdecode(video))
    if fault is not None:
        raise VideoError(path, fault)
    return path


def open_video(path: str, flags: str | None = None) -> tuple[InputContainer, AvStream]:
    """Open a file and choose the video stream that FFmpeg calls the best: the one every backend here reads.

    Args:
        path: of the file, as :func:`local_path` gives it.
        flags: FFmpeg's ``fflags``, to read the file in a special way.

    Raises:
        VideoError: missing, no regular file, empty, not a video, without a video stream, or with pictures beyond
            :data:`MAX_PIXELS`.
    """
    # Looked at before any decoder runs, as FFmpeg does to learn more about the streams
    look = _open(path, {"codec_whitelist": "none"}, {})
    with look:
        _check_pictures(path, look)
        decoding = OPTIONS if look.format.name.startswith(STREAMS_IN_HEADER) else {}
    container = _open(path, {"fflags": flags} if flags else {}, decoding)
    try:
        return container, _best_stream(path, container)
    except VideoError:
        container.close()
        raise


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a file says of its best video stream; 0 where it says nothing. It need not be true."""

    seconds: float
    rate: float
    width: int
    height: int


def read_header(path: str) -> Header:
    """Look at a file without listing its packets or decoding any: a few milliseconds.

    Raises:
        VideoError: as :func:`open_video`.
    """
    import av

    with _open(path, {"codec_whitelist": "none"}, {}) as container, faults_named(path, UNREADABLE):
        stream = _best_stream(path, container)
        seconds = float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / av.time_base
        rate, width, height = float(stream.average_rate or 0), stream.width or 0, stream.height or 0
    return Header(max(seconds, 0.0), rate, width, height)


@contextmanager
def faults_named(path: str, what: str) -> Iterator[None]:
    """Make whatever goes wrong in PyAV the file's fault: ``what``, with the reason in the place of ``{}``.

    On damaged files PyAV raises more than FFmpeg's errors, an IndexError for a stream that turns up late, for one.

    Raises:
        VideoError: in the place of any other error.
    """
    import av

    try:
        yield
    except (VideoError, BackendError):
        raise
    except Exception as error:  # PyAV raises many kinds on damaged files; all are raised again with the file's name
        if isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError):
            raise  # FFmpeg's is about what a file claims
        raise VideoError(path, what.format(reason(error))) from error


def reason(error: Exception) -> str:
    """FFmpeg's or the system's words for an error, without the path."""
    return str(getattr(error, "strerror", None) or error)


def _open(path: str, settings: dict[str, str], decoding: dict[str, str]) -> InputContainer:
    import av

    descriptor = _descriptor(path)
    try:
        size = os.fstat(descriptor).st_size
        if claimed_samples(descriptor) > SAMPLES_PER_BYTE * size:
            raise VideoError(path, f"lists more samples than its {size} bytes can hold: damaged; copy it again")
        if os.name == "nt":  # where two C libraries need not agree on descriptors
            source, only = f"file:{os.path.abspath(path)}", {"protocol_whitelist": "file"}
        else:
            source, only = "fd:", {"protocol_whitelist": "fd", "fd": str(descriptor)}
        settings = only | {"format_whitelist": ",".join(CONTAINERS)} | settings
        # titles and comments in other encodings than UTF-8 are none of our business
        return av.open(source, container_options=settings, options=decoding, metadata_errors="replace")
    except VideoError:
        raise
    except Exception as error:  # see faults_named
        if (instead := _what_else(descriptor)) is not None:
            raise VideoError(path, f"is {instead}, not a video") from error
        if getattr(error, "errno", None) == errno.EINVAL:  # FFmpeg's word for a format that is not among the containers
            raise VideoError(
                path,
                "is in a format that holds no video with times (MP4, MOV, Matroska, WebM, AVI and others do); if it is "
                "a raw stream, remux it: ffmpeg -r RATE -i IN -c copy OUT.mp4",
            ) from error
        raise VideoError(
            path, f"cannot be opened as a video ({reason(error)}): damaged, cut off, or not a video; copy it again"
        ) from error
    finally:
        os.close(descriptor)


def _descriptor(path: str) -> int:
    """The file, open for reading; never waits, as opening a pipe would."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise VideoError(path, "cannot be the name of a file: it holds a zero byte or half a character") from error
    except OSError as error:
        if os.path.isdir(path):
            raise VideoError(path, "is a directory, not a video file") from error
        raise VideoError(path, f"cannot be opened ({error.strerror}); check the path and the video folder") from error
    status = os.fstat(descriptor)
    fault = None
    if stat.S_ISDIR(status.st_mode):
        fault = "is a directory, not a video file"
    elif not stat.S_ISREG(status.st_mode):
        fault = "is a pipe or a device, not a video file; write it to a file first"
    elif status.st_size == 0:
        fault = "is empty (0 bytes); copy or download it again"
    if fault is not None:
        os.close(descriptor)
        raise VideoError(path, fault)
    return descriptor


def _check_pictures(path: str, container: InputContainer) -> None:
    for stream in container.streams.video:
        decoder: Any = stream.codec_context
        if decoder is None:  # and no picture either
            continue
        width, height = stream.width or 0, stream.height or 0
        if width * height > MAX_PIXELS:
            raise VideoError(
                path,
                f"declares pictures of {width}x{height}, more than {MAX_PIXELS:,} pixels; if it is meant, make it "
                "smaller: ffmpeg -i IN -vf scale=1920:-2 OUT.mp4",
            )


def _best_stream(path: str, container: InputContainer) -> AvStream:
    from av.stream import Disposition

    streams = container.streams
    try:
        stream: AvStream | None = streams.best("video")  # type: ignore[assignment]
    except IndexError as error:  # a stream that was found too late for PyAV
        raise VideoError(path, "has streams that its beginning does not announce: damaged; copy it again") from error
    # PyAV cannot say the type of a stream of unknown type
    kinds = [k for k in ("audio", "video", "subtitles", "data", "attachments") if getattr(streams, k)]
    if stream is not None and stream.disposition & Disposition.attached_pic:
        others = " and ".join(k for k in kinds if k != "video") or "nothing"
        raise VideoError(path, f"has no video stream, only {others} with a cover picture")
    if stream is None:
        raise VideoError(path, f"has no video stream, only {' and '.join(kinds) or 'nothing'}")
    if container.format.name.startswith("mov") and container.metadata.get("major_brand") in STILL_BRANDS:
        raise VideoError(path, "is a HEIF or AVIF picture, not a video")
    return stream


def _what_else(descriptor: int) -> str | None:
    """What a file that is no video is, where its first bytes say so."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    head = os.read(descriptor, HEAD)
    for beginning, kind in PICTURES.items():
        if head.startswith(beginning):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture"
    text = head.decode("utf-8-sig", "replace")
    text = text[:-4] if len(head) == HEAD else text  # a character may be cut
    if all(c.isprintable() or c in "\t\r\n\x1b" for c in text) and "\ufffd" not in text:
        return f"text, a script or a playlist (it begins with {text[:20]!r})"
    return None
