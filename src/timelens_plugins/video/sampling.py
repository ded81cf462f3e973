"""Which frames of a video the model sees, and at what size: the one place that decides frame rate and pixel budget.

The rules are those of qwen-vl-utils 0.0.14 (``smart_nframes``, ``calculate_video_frame_range``, ``fetch_video``,
``smart_resize``), which the official TimeLens evaluation uses. Its budget is stated in *tokens*: one token is a square
of side ``patch_size * merge_size`` in a pair of frames; both sizes come from the model's video processor.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from timelens_plugins.video.source import MAX_PIXELS

__all__ = ["FRAMES_PER_PATCH", "FrameSampling", "TimeConvention"]

TimeConvention = Literal["index", "stream"]

FRAMES_PER_PATCH = 2  # upstream samples whole pairs; processors of models with another temporal patch are refused
MAX_FRAME_TOKENS = 768  # upstream's cap for one frame, whatever the total budget leaves
MAX_ASPECT_RATIO = 200


@dataclass(frozen=True)
class FrameSampling:
    """Frame rate and pixel budget. The defaults are the official evaluation's.

    Attributes:
        fps: frames a second to sample.
        min_frames, max_frames: bounds on the number of sampled frames (training uses at most 448). Rounded to whole
            pairs, the lower bound up and the upper one down. A clip of fewer frames than ``min_frames`` gives as many
            pairs as it has.
        min_tokens: vision tokens of one frame pair, at least.
        total_tokens: vision tokens of all frame pairs together, at most, and not less than ``min_tokens``, which wins
            where there are too many pairs for both.
        max_pixels: pixels of a resized frame, at most; None bounds a frame by 768 tokens and ``total_tokens`` alone.
        patch_size: pixels along the side of a vision patch.
        merge_size: patches merged into one token along each side.
        times: what a frame's time is. ``"index"``: frame index / average frame rate, as qwen-vl-utils and the official
            protocol have it, wrong where the frame rate is uneven. ``"stream"``: the presentation time in the file.

    Raises:
        ValueError: a value out of range; the message names the field.
    """

    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    min_tokens: int = 64
    total_tokens: int = 14336
    patch_size: int = 16
    merge_size: int = 2
    times: TimeConvention = "index"
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "times":
                if value not in get_args(TimeConvention):
                    raise ValueError(f"times must be one of {', '.join(get_args(TimeConvention))}, got {value!r}")
            elif field.name == "fps":
                if not _is_number(value) or not math.isfinite(value) or value <= 0:
                    raise ValueError(f"fps must be a positive number of frames a second, got {value!r}")
            elif field.name == "max_pixels" and value is None:
                continue
            elif not _is_number(value) or value != int(value) or value < 1:
                raise ValueError(f"{field.name} must be a positive whole number, got {value!r}")
            else:
                object.__setattr__(self, field.name, int(value))
        if self.max_pixels is not None and self.max_pixels < (least := self.min_tokens * self.pixel_factor**2):
            raise ValueError(
                f"max_pixels={self.max_pixels} is less than min_tokens={self.min_tokens} tokens are, {least} pixels: "
                "raise it, or lower min_tokens"
            )
        if self.max_frames < FRAMES_PER_PATCH:
            raise ValueError(f"max_frames must be at least {FRAMES_PER_PATCH}, one frame pair, got {self.max_frames}")
        if _ceil(self.min_frames, FRAMES_PER_PATCH) > _floor(self.max_frames, FRAMES_PER_PATCH):
            raise ValueError(
                f"min_frames must not exceed max_frames (in whole pairs), got {self.min_frames} and {self.max_frames}"
            )
        if self.min_tokens > self.total_tokens:
            raise ValueError(
                f"min_tokens, of one frame pair, must not exceed total_tokens, of all of them, got {self.min_tokens} "
                f"and {self.total_tokens}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types, without a bound that is None: what was stored before there was one reads alike."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def pixel_factor(self) -> int:
        """Pixels along the side of one token; both sides of a resized frame are multiples of it."""
        return self.patch_size * self.merge_size

    def frame_count(self, total_frames: int, rate: float) -> int:
        """How many frames to take from ``total_frames`` at ``rate`` frames a second; even, and at least 2.

        A clip of one frame gives 2: that frame twice, which fills the temporal patch as the processors do.
        """
        if total_frames < FRAMES_PER_PATCH:
            return FRAMES_PER_PATCH
        wanted = max(total_frames / rate * self.fps, _ceil(self.min_frames, FRAMES_PER_PATCH))
        return _floor(min(wanted, _floor(self.max_frames, FRAMES_PER_PATCH), total_frames), FRAMES_PER_PATCH)

    def frame_indices(self, first: int, last: int, rate: float) -> NDArray[np.int64]:
        """Indices of the sampled frames, evenly spread over ``first..last`` (both included), shape ``(T,)``."""
        count = self.frame_count(last - first + 1, rate)
        # torch's float32 linspace, not numpy's: upstream rounds its values, and the last bit decides at .5
        indices: NDArray[np.int64] = torch.linspace(first, last, count).round().long().numpy()
        return indices

    def frame_size(self, height: int, width: int, frames: int) -> tuple[int, int]:
        """Height and width in pixels to which each of ``frames`` frames is resized.

        Raises:
            ValueError: one side is more than 200 times the other, or the budget too small for the shape, or larger than
                a picture may be.
        """
        factor = self.pixel_factor
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise ValueError(
                f"frames of {width}x{height} pixels: one side is more than {MAX_ASPECT_RATIO} times the other; "
                "crop or pad the video"
            )
        token = factor * factor
        lower = self.min_tokens * token
        share = self.total_tokens * token / frames * FRAMES_PER_PATCH
        upper = max(min(MAX_FRAME_TOKENS * token, share), int(lower * 1.05))
        upper = upper if self.max_pixels is None else min(upper, self.max_pixels)
        rows, columns = max(factor, _nearest(height, factor)), max(factor, _nearest(width, factor))
        if rows * columns > upper:
            shrink = math.sqrt(height * width / upper)
            rows, columns = _floor(height / shrink, factor), _floor(width / shrink, factor)
        elif rows * columns < lower:
            grow = math.sqrt(lower / (height * width))
            rows, columns = _ceil(height * grow, factor), _ceil(width * grow, factor)
        if not rows or not columns:
            raise ValueError(
                f"frames of {width}x{height} pixels are too long and narrow for a share of {upper / token:.0f} tokens "
                "each; raise total_tokens, max_pixels or min_tokens, or take fewer frames"
            )
        if rows * columns > MAX_PIXELS:
            raise ValueError(
                f"min_tokens={self.min_tokens} asks for frames of {columns}x{rows}, more than {MAX_PIXELS:,} pixels: "
                "lower it"
            )
        return rows, columns


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nearest(value: float, factor: int) -> int:
    return round(value / factor) * factor


def _ceil(value: float, factor: int) -> int:
    return math.ceil(value / factor) * factor


def _floor(value: float, factor: int) -> int:
    return math.floor(value / factor) * factor
