"""Texts that go to a model: the prompt of each time encoding, and the answer it should write."""

from __future__ import annotations

import math
from collections.abc import Sequence

from timelens_plugins.spans import Span, SpanLike, as_span

__all__ = [
    "GROUNDING_PROMPT",
    "PREAMBLES",
    "format_answer",
    "grounding_prompt",
    "normalize_query",
    "text_prefix_instruction",
]

GROUNDING_PROMPT = (
    "Please find the visual event described by the sentence '{query}', determining its starting and ending times. "
    "The format should be: 'The event happens in <start time> - <end time> seconds'."
)
"""The benchmark's prompt for Qwen models and TimeLens-8B, word for word; it follows the video, with no system turn."""

PREAMBLES = {
    "interleaved_timestamp": (
        "You are given a video with multiple frames. "
        "The numbers before each video frame indicate its sampling timestamp (in seconds). "
    ),
    "interleaved_index": (
        "You are given a video with multiple frames. "
        "The number before each video frame is its position in the video, counted from 1. "
    ),
    "overlay_timestamp": (
        "You are given a video with multiple frames. "
        "The red number in the bottom left corner of each video frame is its sampling timestamp (in seconds). "
    ),
    "overlay_index": (
        "You are given a video with multiple frames. "
        "The red number in the bottom left corner of each video frame is its position in the video, counted from 1. "
    ),
    "text_prefix": "",
    "native": "",
}
"""What each time encoding puts in front of :data:`GROUNDING_PROMPT`, after the video.

Only two are confirmed: ``interleaved_timestamp`` is what TimeLens-7B was trained with, and ``native`` (nothing) is what
Qwen3-VL and TimeLens-8B read. The paper does not print the wording of the others (``interleaved_index``, ``overlay_*``,
and :func:`text_prefix_instruction`, which stands before the video): those sentences are this project's own. So is the
absence of a rule that turns frame numbers into seconds: prompts of the ``*_index`` encodings leave that to the model.
"""


def normalize_query(query: str) -> str:
    """A query as the benchmark's loader passes it on: white space collapsed and stripped, then full stops stripped.

    >>> normalize_query("  person turn  a light on. ")
    'person turn a light on'
    """
    if not isinstance(query, str):
        raise TypeError(f"a query is text, got {type(query).__name__}")
    return " ".join(query.split()).strip(".").strip()


def grounding_prompt(query: str, encoding: str = "native") -> str:
    """The text that asks for ``query``, to stand after the video.

    Args:
        query: the sentence that describes the event; normalised here, which changes nothing where it already is.
        encoding: a key of :data:`PREAMBLES`; how the frames' times reach the model.

    Raises:
        ValueError: unknown encoding, or nothing left of the query.
    """
    if encoding not in PREAMBLES:
        raise ValueError(f"unknown time encoding {encoding!r}: choose one of {', '.join(PREAMBLES)}")
    sentence = normalize_query(query)
    if not sentence:
        raise ValueError(f"the query {query!r} has no words")
    return PREAMBLES[encoding] + GROUNDING_PROMPT.format(query=sentence)


def text_prefix_instruction(times: Sequence[float], duration: float) -> str:
    """The instruction that stands before the video for the ``text_prefix`` encoding: all sampling times at once.

    What it says is published, its wording is not: this sentence is the project's own.

    Args:
        times: when each frame was sampled, in seconds, in order.
        duration: length of the video in seconds.

    >>> text_prefix_instruction([0.0, 0.5, 1.0], 1.5)
    'From a video of 1.5 seconds, 3 frames were sampled at 0.0, 0.5, 1.0 seconds. '
    """
    if len(times) == 0:
        raise ValueError("no sampling times: a video needs at least one frame")
    if not all(math.isfinite(t) and t >= 0 for t in times):
        raise ValueError(f"sampling times must be finite and at least 0 s, got {list(times)}")
    if not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be a positive number of seconds, got {duration}")
    noun = "frame was" if len(times) == 1 else "frames were"
    listed = ", ".join(f"{t:.1f}" for t in times)
    return f"From a video of {duration:.1f} seconds, {len(times)} {noun} sampled at {listed} seconds. "


def format_answer(spans: Sequence[SpanLike]) -> str:
    """The training target, one decimal: ``The event happens in 3.5 - 12.0 seconds.``

    Several spans are listed in the order given. More decimals are written only where one would print both ends alike,
    as an answer of no length cannot be read back.

    >>> format_answer([(3.5, 12), (15, 20.25)])
    'The event happens in 3.5 - 12.0, 15.0 - 20.2 seconds.'

    Raises:
        ValueError: no span, or one without length: there is no such answer.
    """
    pairs = [as_span(span) for span in spans]
    if not pairs:
        raise ValueError("no span to write: an answer needs at least one")
    return f"The event happens in {', '.join(map(_format_span, pairs))} seconds."


def _format_span(span: Span) -> str:
    for decimals in range(1, 10):
        start, end = f"{span.start:.{decimals}f}", f"{span.end:.{decimals}f}"
        if start != end:
            return f"{start} - {end}"
    raise ValueError(f"a span without length cannot be written as an answer, got [{span.start}, {span.end}]")
