"""Clips the tests make. Every frame shows its own number, so that a wrong frame cannot pass for the right one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 10
CELL = 16
WIDTH, HEIGHT = BITS * CELL, 96


def picture(number: int) -> NDArray[np.uint8]:
    """Frame ``number``: its binary digits as white and black cells along the top, moving grey below, a red corner."""
    image = np.full((HEIGHT, WIDTH, 3), 60, dtype=np.uint8)
    for bit in range(BITS):
        image[:32, bit * CELL : (bit + 1) * CELL] = 255 if number >> bit & 1 else 0
    image[40:56, (number * 3) % WIDTH :][:, :20] = 160
    image[64:, :48] = (220, 20, 20)
    return image


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that a decoded frame ``(H, W, 3)`` of any size shows."""
    height, width = image.shape[:2]
    row = image[height * 16 // HEIGHT].mean(axis=-1)
    centres = ((np.arange(BITS) + 0.5) * width / BITS).astype(int)
    return sum(1 << bit for bit, centre in enumerate(centres) if row[centre] > 128)


def write_clip(
    path: Path,
    frames: int = 60,
    rate: int = 30,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    ticks: Iterable[int] | None = None,
    time_base: Fraction | None = None,
) -> Path:
    """Encode ``frames`` numbered pictures; ``ticks`` gives their presentation times in units of ``time_base``."""
    time_base = time_base or Fraction(1, rate)
    times = list(range(frames)) if ticks is None else list(ticks)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, options={"g": "16", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = stream.codec_context.time_base = time_base
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = times[number], time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def copy_packets(source: Path, target: Path, keep: Callable[[int, av.Packet], bool], **options: str) -> Path:
    """Remux the video packets for which ``keep(position, packet)`` holds."""
    with av.open(str(source)) as reading, av.open(str(target), "w", options=options) as output:
        stream = reading.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for position, packet in enumerate(p for p in reading.demux(stream) if p.size):
            if keep(position, packet):
                packet.stream = copy
                output.mux(packet)
    return target


def write_audio(path: Path) -> Path:
    """One second of silence and no picture."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def set_display_matrix(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copy an mp4 file with the upper left 2x2 part of its track's display matrix replaced."""
    data = bytearray(source.read_bytes())
    entries = data.index(b"tkhd") + 4 + 40  # of a version 0 box: 40 bytes from its type to the matrix
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, entries, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def set_edit(source: Path, target: Path, skip: int, milliseconds: int) -> Path:
    """Copy an mp4 file whose edit list then shows ``milliseconds`` from ``skip`` media ticks later than before."""
    data = bytearray(source.read_bytes())
    entry = data.index(b"elst") + 12
    duration, start = struct.unpack_from(">Ii", data, entry)
    assert duration > milliseconds
    struct.pack_into(">Ii", data, entry, milliseconds, start + skip)
    target.write_bytes(data)
    return target


def flip_bytes(source: Path, target: Path, packet: int, after: float = 0.3) -> Path:
    """Copy a file with up to 400 bytes of one video packet changed, from the share ``after`` of it."""
    with av.open(str(source)) as reading:
        damaged = [p for p in reading.demux(reading.streams.best("video")) if p.size][packet]
        position, size = damaged.pos, damaged.size
    data = bytearray(source.read_bytes())
    first = position + int(size * after)
    for offset in range(first, min(first + 400, position + size)):
        data[offset] ^= 0x5A
    target.write_bytes(data)
    return target
