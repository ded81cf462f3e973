"""Texts drawn on frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["draw_overlays"]

FONT_SIZE = 40
COLOR = (255, 0, 0)
MARGIN = 4  # pixels to the left and bottom edges


def draw_overlays(frames: Tensor, texts: Sequence[str]) -> Tensor:
    """Copies of the frames with a red text at the bottom left, 40 pt in the font that ships with Pillow.

    Drawn at the size the model sees, after resizing. Where the longest text would not fit into the frame at 40 pt, all
    texts of the clip are drawn at the largest size that fits.

    Args:
        frames: shape ``(T, 3, H, W)``, uint8, or floats of 0..255 (which are rounded).
        texts: one per frame.

    Returns:
        uint8 frames of the same shape.
    """
    if len(texts) != len(frames):
        raise ValueError(f"{len(frames)} frames but {len(texts)} texts to draw on them")
    pictures = frames.round().clamp(0, 255).to(torch.uint8) if frames.is_floating_point() else frames
    height, width = pictures.shape[-2:]
    font = _fitting_font(max(texts, key=len, default=""), width - 2 * MARGIN, height - 2 * MARGIN)
    drawn = []
    for frame, text in zip(pictures, texts, strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).contiguous().cpu().numpy())
        left, _, _, bottom = font.getbbox(text, anchor="ls")
        ImageDraw.Draw(image).text((MARGIN - left, height - MARGIN - bottom), text, fill=COLOR, font=font, anchor="ls")
        drawn.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(drawn).to(frames.device)


def _fitting_font(text: str, width: float, height: float) -> ImageFont.FreeTypeFont:
    for size in range(FONT_SIZE, 0, -1):
        font = ImageFont.load_default(size=size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise ImportError("overlay encodings need Pillow with FreeType; reinstall pillow from a wheel")
        left, top, right, bottom = font.getbbox(text, anchor="ls")
        if right - left <= width and bottom - top <= height:
            return font
    raise ValueError(f"no font size fits {text!r} into {width:.0f}x{height:.0f} pixels")
