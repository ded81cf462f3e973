"""The ways to tell a language model when each frame is, each one object, by name.

Section 4 of TimeLens (arXiv 2512.14698) compares them. Here each encoding is the only *text or drawing* that carries
time: all but ``native`` leave out the markers that a family writes by itself (Qwen3-VL's ``<1.5 seconds>``), as an
ablation needs. Qwen2.5-VL's rotary positions carry time wherever frames go in as one video, which is every encoding
but ``interleaved_*``.

What asks an encoding: the processor (``mixin``), and whoever writes the text after the video (``messages``, the
evaluation's engine). A new one is made known by :func:`register_encoding`, and then works in all of them.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from timelens_plugins.answers import GROUNDING_PROMPT, grounding_prompt

__all__ = [
    "ENCODINGS",
    "TIMESTAMP_FORMAT",
    "Encoding",
    "check_timestamp_format",
    "find_encoding",
    "register_encoding",
    "text_prefix_instruction",
]

TIMESTAMP_FORMAT = "{t:.1f}s: "
"""Text before each frame of ``interleaved_timestamp``; ``t`` is the frame's time in seconds.

One decimal is what the paper states. The letters after the number are not published: this is the form of one
re-implementation of TimeLens-7B, so the processors keep it as a setting that is saved with them.
"""


@dataclass(frozen=True)
class Encoding:
    """One way to tell a model when each frame is. Times are seconds from the start of the clip.

    Attributes:
        name: as in settings, saved processors and results.
        preamble: sentence between the video and the question.
        before_video: (times of all frames, length of the clip) -> text before the video.
        before_image: (time, number counted from 1, the processor's ``timestamp_format``) -> text before each image. An
            encoding that has it shows each frame pair as an image, its first frame; the others show a video.
        on_frame: (time, number counted from 1) -> text drawn on each frame.
        family_markers: times come by the model family's own markers, which other encodings leave out.
        tells_seconds: False where a model is told numbers of frames instead.
    """

    name: str
    preamble: str = ""
    before_video: Callable[[Sequence[float], float], str] | None = None
    before_image: Callable[[float, int, str], str] | None = None
    on_frame: Callable[[float, int], str] | None = None
    family_markers: bool = False
    tells_seconds: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("an encoding needs a name")
        if self.family_markers and self.as_images:
            raise ValueError(f"encoding {self.name!r}: images have none of the family's time markers")

    @property
    def as_images(self) -> bool:
        """Whether frame pairs are shown as images instead of one video."""
        return self.before_image is not None

    @property
    def takes_timestamp_format(self) -> bool:
        """Whether the text before an image is written by the processor's ``timestamp_format``."""
        return self.before_image is not None and self.before_image(1.5, 1, "{t}") != self.before_image(1.5, 1, "at {t}")

    def question(self, query: str, prompt: str = GROUNDING_PROMPT) -> str:
        """The text that asks for ``query`` by a prompt's template, to stand after the video.

        Raises:
            ValueError: a query without words.
        """
        return self.preamble + grounding_prompt(query, prompt)

    def image_texts(self, times: Sequence[float], timestamp_format: str) -> list[str]:
        """The text before each image; ``times`` are the images', in seconds."""
        assert self.before_image is not None
        return [self.before_image(t, i, timestamp_format) for i, t in enumerate(times, start=1)]

    def drawn_texts(self, times: Sequence[float]) -> list[str] | None:
        """What is drawn on each frame, None for nothing; ``times`` are all the frames', in seconds."""
        return None if self.on_frame is None else [self.on_frame(t, i) for i, t in enumerate(times, start=1)]

    def told_times(
        self, times: Sequence[float], frames_per_pair: int, *, marks_first_frame: bool = False
    ) -> list[float]:
        """The times a model is told of, in seconds, before rounding; ``times`` are all the frames'.

        The first frame's of each pair for images, and for family markers that are so (``marks_first_frame``); the mean
        of each pair's for other family markers; every frame's else.
        """
        starts = range(0, len(times), frames_per_pair)
        if self.as_images or (self.family_markers and marks_first_frame):
            return [times[i] for i in starts]
        if self.family_markers:
            return [(pair[0] + pair[-1]) / 2 for pair in (times[i : i + frames_per_pair] for i in starts)]
        return list(times)


ENCODINGS: dict[str, Encoding] = {}
"""Name -> encoding, of all that are known."""


def register_encoding(encoding: Encoding) -> Encoding:
    """Make an encoding known by its name to processors, prompts of evaluation and training, and commands.

    >>> register_encoding(
    ...     Encoding("clock", before_image=lambda t, i, form: f"[{t // 60:02.0f}:{t % 60:02.0f}] ")
    ... ).question("a dog barks")[:40]
    'Please find the visual event described b'
    >>> del ENCODINGS["clock"]

    Raises:
        ValueError: the name is taken.
    """
    if encoding.name in ENCODINGS:
        raise ValueError(f"there is an encoding {encoding.name!r} already")
    ENCODINGS[encoding.name] = encoding
    return encoding


def find_encoding(name: str) -> Encoding:
    """The encoding of a name; ``ValueError`` listing the known ones for an unknown one."""
    if name not in ENCODINGS:
        raise ValueError(f"unknown encoding {name!r}; known: {', '.join(ENCODINGS)}")
    return ENCODINGS[name]


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


# Only two preambles are confirmed: `interleaved_timestamp` is what TimeLens-7B was trained with, and `native` (nothing)
# is what Qwen3-VL and TimeLens-8B read. The paper does not print the wording of the others: those sentences are this
# project's own. So is the absence of a rule that turns frame numbers into seconds: prompts of the `*_index` encodings
# leave that to the model.
register_encoding(
    Encoding(
        "interleaved_timestamp",
        preamble="You are given a video with multiple frames. "
        "The numbers before each video frame indicate its sampling timestamp (in seconds). ",
        before_image=lambda time, _, timestamp_format: timestamp_format.format(t=time),
    )
)
register_encoding(
    Encoding(
        "interleaved_index",
        preamble="You are given a video with multiple frames. "
        "The number before each video frame is its position in the video, counted from 1. ",
        before_image=lambda _, number, __: f"{number}: ",
        tells_seconds=False,
    )
)
register_encoding(
    Encoding(
        "overlay_timestamp",
        preamble="You are given a video with multiple frames. "
        "The red number in the bottom left corner of each video frame is its sampling timestamp (in seconds). ",
        on_frame=lambda time, _: f"{time:.1f}s",
    )
)
register_encoding(
    Encoding(
        "overlay_index",
        preamble="You are given a video with multiple frames. The red number in the bottom left corner of each video "
        "frame is its position in the video, counted from 1. ",
        on_frame=lambda _, number: str(number),
        tells_seconds=False,
    )
)
register_encoding(Encoding("text_prefix", before_video=text_prefix_instruction))
# Qwen3-VL's `<1.5 seconds>` markers, Qwen2.5-VL's rotary positions.
register_encoding(Encoding("native", family_markers=True))
