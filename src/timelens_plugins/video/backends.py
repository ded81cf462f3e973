"""The decoding backends by name: which work on this machine, and in which order they are tried.

``auto`` starts with PyAV. It is exact in every container and codec tried, gives pixel for pixel what decord gives, and
is the only one that reports damage; torchcodec can only take over where PyAV has no decoder. decord is used where it is
named and nowhere else: it aborts the interpreter on some damaged files.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import logging
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.video.errors import BackendError, VideoError
from timelens_plugins.video.stream import VideoStream, probe

if TYPE_CHECKING:
    from av.video.stream import VideoStream as AvStream

__all__ = ["AUTO", "BACKENDS", "Backend", "BackendReport", "backend_problem", "preference", "working_backends"]

logger = logging.getLogger(__name__)

_TRYING = threading.Lock()


class Backend(Protocol):
    """Something that decodes frames."""

    name: str

    def read(self, stream: VideoStream, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The frames at ``indices`` (ascending, distinct), one by one: uint8 ``(H, W, C)``, RGB, upright."""
        ...


BACKENDS = {
    "pyav": ("timelens_plugins.video.pyav_backend", "PyAVBackend", "av"),
    "decord": ("timelens_plugins.video.decord_backend", "DecordBackend", "decord"),
    "torchcodec": ("timelens_plugins.video.torchcodec_backend", "TorchCodecBackend", "torchcodec"),
}
AUTO = ("pyav", "torchcodec")
REMEDIES = {
    "pyav": "pip install av",
    "decord": "pip install decord",
    "torchcodec": "pip install torchcodec, and FFmpeg's shared libraries from the system: apt-get install ffmpeg",
}
# codec: PyAV encoder, container and encoder options (speed, no chatter) of the clip it is tried on
TRIED_CODECS: dict[str, tuple[str, str, dict[str, str]]] = {
    "mpeg4": ("mpeg4", "mp4", {}),
    "h264": ("libx264", "mp4", {}),
    "hevc": ("libx265", "mp4", {"x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", "webm", {"cpu-used": "8"}),
    "av1": ("libaom-av1", "mkv", {"cpu-used": "8"}),
}


@dataclass(frozen=True)
class BackendReport:
    """What a backend can do on this machine.

    Attributes:
        name: the backend.
        version: of its package; None where it is not installed.
        problem: why it does not work at all, with the remedy; None where it works.
        codecs: for each codec tried, None where a clip of it was decoded, else why not.
    """

    name: str
    version: str | None
    problem: str | None
    codecs: dict[str, str | None]


def preference(backend: str) -> tuple[str, ...]:
    """The backends to try, in order: of ``auto``, of one name, or of several joined by commas.

    Raises:
        ValueError: an unknown name.
    """
    names = AUTO if backend == "auto" else tuple(part.strip() for part in backend.split(","))
    if unknown := [name for name in names if name not in BACKENDS]:
        raise ValueError(
            f"unknown video backend {unknown[0]!r}; choose auto, one of {', '.join(BACKENDS)}, "
            "or several joined by commas in the order to try"
        )
    return names


def load_backend(name: str) -> Backend:
    """The backend of that name, not checked for working."""
    module, attribute, _ = BACKENDS[name]
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def backend_problem(name: str) -> str | None:
    """Why a backend does not work on this machine, with the remedy; None where it decodes a small clip.

    Tried once a process; a problem is logged then and not again.
    """
    with _TRYING:  # a cache alone would let threads that start together all try, and all log
        return _tried(name)


@functools.cache
def _tried(name: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        problem = _problem_with(name, _make_clip("mpeg4", Path(folder)))
    if problem is not None:
        problem = f"{name} does not work here: {problem}; remedy: {REMEDIES[name]}"
        logger.warning("%s", problem)
    return problem


def working_backends() -> list[BackendReport]:
    """Try every backend on a small clip of each common codec. Takes seconds: it imports and runs all of them."""
    reports = []
    with tempfile.TemporaryDirectory() as folder:
        clips = {codec: _make_clip(codec, Path(folder)) for codec in TRIED_CODECS}
        for name, (_, _, package) in BACKENDS.items():
            codecs = {codec: _problem_with(name, clip) for codec, clip in clips.items()}
            reports.append(BackendReport(name, _version(package), backend_problem(name), codecs))
    return reports


def _problem_with(name: str, clip: Path | None) -> str | None:
    if clip is None:
        return "not tried: PyAV has no encoder for this codec"
    try:
        stream = probe(str(clip))
        frames = list(load_backend(name).read(stream, np.arange(stream.total_frames)))
    except VideoError as error:
        return error.fault
    except (BackendError, ImportError, OSError, RuntimeError) as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None if len(frames) == stream.total_frames else f"{len(frames)} of {stream.total_frames} frames decoded"


def _make_clip(codec: str, folder: Path) -> Path | None:
    """Three grey frames of a codec; None where PyAV cannot encode it."""
    import av

    encoder, container, options = TRIED_CODECS[codec]
    if encoder not in av.codecs_available:
        return None
    path = folder / f"{codec}.{container}"
    with av.open(str(path), "w") as output:
        stream = cast("AvStream", output.add_stream(encoder, rate=10, options=options))
        stream.width, stream.height, stream.pix_fmt = 128, 128, "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((128, 128, 3), 128, np.uint8), format="rgb24")))
        output.mux(stream.encode())
    return path


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
