"""The vocabulary of the synthetic world and how it is drawn: named colours, named shapes, moving noise.

Everything is given in fractions of the frame's side, so that one scene can be drawn at any resolution.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLORS", "SHAPES", "coverage", "drifting_noise"]

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 190, 40),
    "blue": (40, 60, 230),
    "yellow": (235, 220, 30),
    "purple": (170, 40, 200),
    "white": (250, 250, 250),
}
"""RGB in 0..255, far from each other and from the grey of the background."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")

_SUBSAMPLES = 4  # per pixel and axis: edges are smooth, as those of a larger picture scaled down
_REACH = 1.1  # of the widest shapes, in radii
_TEXTURE_CELLS = 24  # noise cells along one period of the background
_TEXTURE_PERIOD = 1.5  # in frame sides


def coverage(
    shape: str, center: tuple[float, float], radius: float, size: int
) -> tuple[slice, slice, NDArray[np.float32]]:
    """How much of each pixel a shape covers.

    Args:
        shape: one of :data:`SHAPES`.
        center: ``(x, y)`` in fractions of the frame, from the top left.
        radius: in fractions of the frame; all shapes of one radius cover a similar area.
        size: side of the square frame in pixels.

    Returns:
        The rows and columns of the frame that the shape touches, and the covered shares in 0..1 of these pixels. All
        are empty for a shape outside the frame.

    Raises:
        ValueError: unknown shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    columns, rows = (_touched(middle, _REACH * radius, size) for middle in center)
    x, y = (
        (np.arange(part.start * _SUBSAMPLES, part.stop * _SUBSAMPLES, dtype=np.float32) + 0.5) / (size * _SUBSAMPLES)
        for part in (columns, rows)
    )
    x, y = (x - center[0])[None, :] / radius, (y - center[1])[:, None] / radius
    if shape == "circle":
        inside = x * x + y * y <= 1
    elif shape == "square":
        inside = (abs(x) <= 0.88) & (abs(y) <= 0.88)
    elif shape == "triangle":  # upright: apex at the top, base at the bottom
        height = (y + 1) / 2
        inside = (height >= 0) & (height <= 1) & (abs(x) <= _REACH * height)
    else:  # a plus sign
        inside = ((abs(x) <= 0.36) & (abs(y) <= _REACH)) | ((abs(y) <= 0.36) & (abs(x) <= _REACH))
    parts = inside.reshape(rows.stop - rows.start, _SUBSAMPLES, columns.stop - columns.start, _SUBSAMPLES)
    share: NDArray[np.float32] = parts.mean(axis=(1, 3), dtype=np.float32)
    return rows, columns, share


def _touched(middle: float, reach: float, size: int) -> slice:
    low, high = math.floor((middle - reach) * size), math.ceil((middle + reach) * size)
    low, high = min(max(low, 0), size), min(max(high, 0), size)
    return slice(low, high)


def drifting_noise(
    rng: np.random.Generator, times: NDArray[np.float64], size: int, amplitude: float
) -> NDArray[np.float32]:
    """A grey background of soft colour noise that drifts in one direction.

    Args:
        rng: draws base colour, texture, direction and speed; always the same number of draws.
        times: of the frames, in seconds, shape ``(n,)``.
        size: side of the square frame in pixels.
        amplitude: standard deviation of the noise before smoothing, in grey levels of 255.

    Returns:
        RGB of shape ``(n, size, size, 3)``; values may leave 0..255 slightly.
    """
    base = rng.uniform(105, 145, size=3)
    cells = rng.standard_normal((_TEXTURE_CELLS, _TEXTURE_CELLS, 3))
    angle, speed = rng.uniform(0, 2 * math.pi), rng.uniform(0.05, 0.15)  # frame sides per second
    period = round(size * _TEXTURE_PERIOD)
    texture = (base + amplitude * _stretch(_stretch(cells, period, 0), period, 1)).astype(np.float32)
    shift = np.outer(times, [math.sin(angle), math.cos(angle)]) * speed * size
    pixels = np.arange(size)
    rows, columns = ((pixels[None, :] + np.round(shift[:, axis, None]).astype(int)) % period for axis in (0, 1))
    return texture[rows[:, :, None], columns[:, None, :]]


def _stretch(values: NDArray[np.float64], length: int, axis: int) -> NDArray[np.float64]:
    """Linear, periodic interpolation along one axis to ``length`` samples."""
    count = values.shape[axis]
    position = np.arange(length) * count / length
    low = position.astype(int)
    weight = (position - low).reshape([-1 if a == axis else 1 for a in range(values.ndim)])
    below, above = np.take(values, low % count, axis), np.take(values, (low + 1) % count, axis)
    return below * (1 - weight) + above * weight
