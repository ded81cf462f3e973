"""How many samples the tables of an MP4 or MOV file claim, which FFmpeg believes: it makes an entry for each at once.

A table that gives all samples one size is as short for 170 million of them, and costs gigabytes. An honest file cannot
claim many more samples than it has bytes (ISO/IEC 14496-12, sections 8.7.3 and 8.8.8).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["claimed_samples"]

PARENTS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"edts", b"udta", b"mvex", b"meta"))
COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Boxes with a number of samples, and where in them it stands, in bytes behind the box's header."""
MOST_BOXES = 10_000_000  # half a minute, and 80 MB at least


def claimed_samples(descriptor: int) -> int:
    """The number of samples that all tables of a file claim together; 0 where it has none, or is of another format.

    Args:
        descriptor: of the file, whose position is then its start.
    """
    size = os.fstat(descriptor).st_size
    claimed = 0
    for _, (kind, start, _) in zip(range(MOST_BOXES), _boxes(descriptor, 0, size), strict=False):
        if kind in COUNTS:
            claimed += int.from_bytes(_read(descriptor, start + COUNTS[kind], 4), "big")
    os.lseek(descriptor, 0, os.SEEK_SET)
    return claimed


def _boxes(descriptor: int, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte behind the header and end of each box, parents before what is in them."""
    waiting = [(start, end)]
    while waiting:
        place, end = waiting.pop()
        while place + 8 <= end:
            header = _read(descriptor, place, 16)
            length, kind, behind = int.from_bytes(header[:4], "big"), header[4:8], place + 8
            if length == 1:  # a length of eight bytes follows
                length, behind = int.from_bytes(header[8:], "big"), place + 16
            elif length == 0:  # to the end
                length = end - place
            if length < behind - place:
                break
            last = min(place + length, end)
            yield kind, behind, last
            if kind in PARENTS:
                waiting.append((behind + 4 if kind == b"meta" else behind, last))
            place += length


def _read(descriptor: int, place: int, count: int) -> bytes:
    os.lseek(descriptor, place, os.SEEK_SET)
    return os.read(descriptor, count)
