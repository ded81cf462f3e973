"""The ways to tell a language model when each frame is, by name, and the texts they write.

Section 4 of TimeLens (arXiv 2512.14698) compares them. Here each encoding is the only *text or drawing* that carries
time: ``overlay_*`` and ``text_prefix`` leave out the ``<1.5 seconds>`` markers that Qwen3-VL writes by itself, as an
ablation needs. Qwen2.5-VL's rotary positions carry time wherever frames go in as one video, which is every encoding
but ``interleaved_*``.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Literal, get_args

__all__ = ["ENCODINGS", "TIMESTAMP_FORMAT", "Encoding", "check_encoding", "check_timestamp_format", "format_timestamp"]

Encoding = Literal[
    "interleaved_timestamp",
    "interleaved_index",
    "overlay_timestamp",
    "overlay_index",
    "text_prefix",
    "native",
]
"""
- ``interleaved_timestamp``: each frame pair becomes an image, its first frame, after the text of that frame's time.
- ``interleaved_index``: the same after the image's number 1, 2, 3…
- ``overlay_timestamp``, ``overlay_index``: time or number 1, 2, 3… drawn on every frame.
- ``text_prefix``: all sampling times in one instruction before the video.
- ``native``: the family's own: Qwen3-VL's ``<1.5 seconds>`` markers, Qwen2.5-VL's rotary positions.
"""

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

TIMESTAMP_FORMAT = "{t:.1f}s: "
"""Text before each frame of ``interleaved_timestamp``; ``t`` is the frame's time in seconds.

One decimal is what the paper states. The letters after the number are not published: this is the form of one
re-implementation of TimeLens-7B, so the processors keep it as a setting that is saved with them.
"""

INDEX_FORMAT = "{i}: "
OVERLAY_TIMESTAMP_FORMAT = "{t:.1f}s"
OVERLAY_INDEX_FORMAT = "{i}"


def check_encoding(name: str) -> Encoding:
    """The name itself; ``ValueError`` listing the known ones for any other."""
    for encoding in ENCODINGS:
        if name == encoding:
            return encoding
    raise ValueError(f"unknown encoding {name!r}; known: {', '.join(ENCODINGS)}")


def check_timestamp_format(text: str) -> str:
    """The format itself, if it is plain text around one number field ``{t:…}``, as in ``"{t:.1f}s: "``.

    Raises:
        ValueError: it has no field, another field, or one that cannot print a number. Formats come from saved files, so
            attribute and item look-ups are not allowed.
    """
    remedy = f"timestamp_format must hold the time in seconds once, as {TIMESTAMP_FORMAT!r} does; got {text!r}"
    try:
        parts = [
            (name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(text) if name is not None
        ]
        if len(parts) != 1 or parts[0][0] != "t" or "{" in (parts[0][1] or "") or parts[0][2] is not None:
            raise ValueError(remedy)
        text.format(t=1.5)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(remedy) from error
    return text


def format_timestamp(text: str, time: float) -> str:
    """``text``, a checked timestamp format, for a time in seconds."""
    return text.format(t=time)


def block_times(times: Sequence[float], frames_per_block: int) -> list[float]:
    """Times in seconds of the first frame of each temporal patch: ``times[::2]`` for the Qwen families."""
    return list(times[::frames_per_block])


def interleaved_texts(encoding: Encoding, times: Sequence[float], timestamp_format: str) -> list[str]:
    """The text before each image of an ``interleaved_*`` prompt; ``times`` are the images' times in seconds."""
    if encoding == "interleaved_timestamp":
        return [format_timestamp(timestamp_format, t) for t in times]
    return [INDEX_FORMAT.format(i=i) for i in range(1, len(times) + 1)]


def overlay_texts(encoding: Encoding, times: Sequence[float]) -> list[str]:
    """What an ``overlay_*`` encoding draws on each frame; ``times`` are all the frames' times in seconds."""
    if encoding == "overlay_timestamp":
        return [OVERLAY_TIMESTAMP_FORMAT.format(t=t) for t in times]
    return [OVERLAY_INDEX_FORMAT.format(i=i) for i in range(1, len(times) + 1)]
