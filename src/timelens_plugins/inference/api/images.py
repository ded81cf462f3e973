"""A clip as an endpoint takes it: each image behind the text that says when it is."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from timelens_plugins.inference.api.presets import PRESETS, Preset
from timelens_plugins.video import FrameSampling, VideoClip

__all__ = ["PresetSampling", "clip_parts"]


@dataclass(frozen=True)
class PresetSampling(FrameSampling):
    """The frames and their size that a preset asks for, in the place of a token budget."""

    preset: Preset = PRESETS["gpt"]

    def __post_init__(self) -> None:
        """The preset has checked itself; the fields of a token budget are not used."""

    def frame_indices(self, first: int, last: int, rate: float) -> NDArray[np.int64]:
        """At every ``1 / fps`` seconds from the first frame, or spread evenly; each frame once, shape ``(T,)``."""
        frames, _, steady = self.preset.frames_of((last - first + 1) / rate)
        step = rate / self.preset.fps
        wanted = first + np.arange(frames) * step if steady else np.linspace(first, last, frames)
        return np.unique(np.minimum(np.rint(wanted).astype(np.int64), last))

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """As in the file, or smaller: the longer side at most ``max_side`` pixels."""
        scale = min(1.0, self.preset.max_side / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))


def clip_parts(clip: VideoClip, preset: Preset) -> list[dict[str, Any]]:
    """Text and image parts of a user turn, in the order of time."""
    _, cells, _ = preset.frames_of(clip.total_frames / clip.fps)
    frames = clip.frames.permute(0, 2, 3, 1).numpy()
    label = preset.label if cells == 1 else preset.grid_label
    parts: list[dict[str, Any]] = []
    for start in range(0, len(frames), cells):
        times = [float(t) for t in clip.times[start : start + cells]]
        image = frames[start] if cells == 1 else _stacked(frames[start : start + cells], preset.grid)
        url = {"url": _jpeg(image, preset.jpeg_quality)}
        detail = {} if preset.detail is None else {"detail": preset.detail}
        parts += [
            {"type": "text", "text": label.replace("{times}", preset.times_text(times))},
            {"type": "image_url", "image_url": url | detail},
        ]
    return parts


def _stacked(frames: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """Frames ``(n, H, W, 3)`` row by row as one picture; cells that are left over stay black, rows are left out."""
    rows, columns = math.ceil(len(frames) / grid[1]), grid[1]
    _, height, width, channels = frames.shape
    cells = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    cells[: len(frames)] = frames
    ordered = cells.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return ordered.reshape(rows * height, columns * width, channels)


def _jpeg(picture: NDArray[np.uint8], quality: int) -> str:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(out, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
