"""How a model behind an endpoint is shown a clip and asked: ``gpt``, ``gemini``, or a preset of one's own in a file.

``gpt`` and ``gemini`` are the rules by which the TimeLens paper ran these models (arXiv 2512.14698). What the paper
does not say was decided here, see ``docs/engines.md``: size and quality of images, and what happens where even grids
are more than ``max_images``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

__all__ = ["PRESETS", "Preset", "read_preset"]

_MMSS_PROMPT = (
    "Find the visual event that the sentence '{query}' describes, and determine when it starts and ends. Give times as "
    "MM:SS. The format should be: 'The event happens in MM:SS - MM:SS'."
)
_TIME_FORMATS = ("seconds", "mm:ss")
_PRICES = ("input_price", "output_price")


@dataclass(frozen=True)
class Preset:
    """Frames, images, texts and fields of a request.

    Attributes:
        fps: frames a second, from the start of the clip.
        max_images: in a request; None for any number. A clip that has more frames is given evenly spread ones instead.
        grid_above: seconds; longer clips whose frames are more than ``max_images`` are shown several frames to an
            image. None for never.
        grid: rows and columns of such an image.
        label: the text before an image, with ``{times}``.
        grid_label: the same for an image of several frames.
        time_format: ``seconds`` (``2.5s``) or ``mm:ss`` (``00:02``).
        max_side: pixels of a frame's longer side; larger frames are made smaller, before they go into a grid.
        jpeg_quality: 1 to 100.
        detail: of the images, a field that OpenAI's models know; None to leave it out.
        prompt: with ``{query}``, instead of the task's words; None for the task's.
        length_field: how the endpoint calls the greatest number of new tokens.
        send_temperature: whether the request says the temperature. Models that think refuse any but their own.
        extra: further fields of the request, such as ``{"reasoning_effort": "low"}``.
        input_price, output_price: of a million tokens, in any currency; None where no cost is to be counted.

    Raises:
        ValueError: a value out of range, by the name of the field.
    """

    fps: float = 1.0
    max_images: int | None = None
    grid_above: float | None = None
    grid: tuple[int, int] = (2, 2)
    label: str = "Frame at {times}:"
    grid_label: str = "Stacked frames at {times}:"
    time_format: str = "seconds"
    max_side: int = 512
    jpeg_quality: int = 90
    detail: str | None = None
    prompt: str | None = None
    length_field: str = "max_completion_tokens"
    send_temperature: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    input_price: float | None = None
    output_price: float | None = None

    def __post_init__(self) -> None:
        for name, kinds, least in (
            ("fps", (int, float), 0.0),
            ("max_images", (int, None), 1),
            ("grid_above", (int, float, None), 0.0),
            ("max_side", (int,), 1),
            ("jpeg_quality", (int,), 1),
            ("input_price", (int, float, None), 0.0),
            ("output_price", (int, float, None), 0.0),
        ):
            value = getattr(self, name)
            if value is None and None in kinds:
                continue
            known = tuple(kind for kind in kinds if kind is not None)
            if isinstance(value, bool) or not isinstance(value, known) or not math.isfinite(value) or value < least:
                raise ValueError(f"preset: {name} must be a number of at least {least}, got {value!r}")
        if self.fps <= 0 or self.jpeg_quality > 100:
            raise ValueError(
                f"preset: fps must be above 0 and jpeg_quality at most 100, got {self.fps} and {self.jpeg_quality}"
            )
        object.__setattr__(self, "grid", _grid(self.grid))
        if self.time_format not in _TIME_FORMATS:
            raise ValueError(f"preset: time_format must be {' or '.join(_TIME_FORMATS)}, got {self.time_format!r}")
        for name, placeholder in (("label", "{times}"), ("grid_label", "{times}"), ("prompt", "{query}")):
            text = getattr(self, name)
            if not (text is None and name == "prompt") and (not isinstance(text, str) or placeholder not in text):
                raise ValueError(f"preset: {name} must be a text with {placeholder}, got {text!r}")
        for name, kind, what in (
            ("length_field", str, "the name of a field"),
            ("send_temperature", bool, "true or false"),
            ("extra", Mapping, "fields of a request"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"preset: {name} must be {what}, got {getattr(self, name)!r}")
        if clash := sorted({"model", "messages", "n", "stream"} & set(self.extra)):
            raise ValueError(f"preset: extra may not set {', '.join(clash)}")

    def frames_of(self, seconds: float) -> tuple[int, int, bool]:
        """How a clip of a length is shown: frames, frames to an image, and whether these are all at ``fps``."""
        wanted = max(1, math.ceil(seconds * self.fps - 1e-6))
        if self.max_images is None or wanted <= self.max_images:
            return wanted, 1, True
        if self.grid_above is None or seconds <= self.grid_above:
            return self.max_images, 1, False
        cells = self.grid[0] * self.grid[1]
        most = self.max_images * cells
        return min(wanted, most), cells, wanted <= most

    def times_text(self, times: list[float]) -> str:
        """Seconds as the labels write them."""
        if self.time_format == "seconds":
            return ", ".join(f"{t:.1f}s" for t in times)
        return ", ".join(f"{round(t) // 60:02d}:{round(t) % 60:02d}" for t in times)

    def settings(self) -> dict[str, Any]:
        """What answers depend on, as JSON types; prices are not among it."""
        return {name: value for name, value in asdict(self).items() if name not in _PRICES}


def _grid(value: Any) -> tuple[int, int]:
    if (
        isinstance(value, str)
        or not hasattr(value, "__len__")
        or len(value) != 2
        or not all(type(n) is int and n > 0 for n in value)
    ):
        raise ValueError(f"preset: grid must be a number of rows and one of columns, got {value!r}")
    return value[0], value[1]


PRESETS: dict[str, Preset] = {
    "gpt": Preset(max_images=50, grid_above=80.0),
    "gemini": Preset(label="{times}", time_format="mm:ss", prompt=_MMSS_PROMPT),
}
"""By name."""


def read_preset(setting: str) -> Preset:
    """A preset by its name, or from the YAML or JSON file that holds it.

    A file has names and values of :class:`Preset`; ``base: gpt`` starts from a ready one.

    Raises:
        ValueError: no such preset, a file that cannot be read, an unknown field, a value out of range.
    """
    if setting in PRESETS:
        return PRESETS[setting]
    path = Path(setting).expanduser()
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ValueError(f"preset must be {', '.join(PRESETS)}, or a file that ends in .yaml or .json, got {setting!r}")
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"preset: {path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"preset: {path} must hold names and values")
    base = content.pop("base", None)
    if base is not None and base not in PRESETS:
        raise ValueError(f"preset: {path}: base must be one of {', '.join(PRESETS)}, got {base!r}")
    known = [f.name for f in fields(Preset)]
    if unknown := sorted(map(str, content.keys() - set(known))):
        raise ValueError(f"preset: {path}: unknown {', '.join(unknown)}; known are base, {', '.join(known)}")
    try:
        return replace(PRESETS[base] if base else Preset(), **content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
