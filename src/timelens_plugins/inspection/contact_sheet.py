"""All sampled frames of a clip on one picture, with their times."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from timelens_plugins.inspection.prompt_view import PromptView

__all__ = ["contact_sheet"]

CELL_WIDTH = 200  # pixels of a frame on the sheet
GAP = 6
LABEL_HEIGHT = 16
ASPECT = 1.6  # width to height of the whole sheet, about a screen's
BACKGROUND, INK, FAINT = (24, 24, 24), (240, 240, 240), (130, 130, 130)


def contact_sheet(view: PromptView) -> Image.Image:
    """A grid of the frames in order, each over its number and time in seconds, as the model sees them.

    Texts of the ``overlay_*`` encodings are on the frames. Frames that an encoding does not show to the model are
    dimmed.
    """
    clip = view.clip
    times = clip.times.tolist()
    frames = view.processor.drawn_frames(clip.frames, times)
    seen = [shown for row in view.pairs for shown in row.seen]
    height, width = frames.shape[-2:]
    cell_height = max(1, round(CELL_WIDTH * height / width))
    outer_width, outer_height = CELL_WIDTH + GAP, cell_height + LABEL_HEIGHT + GAP
    columns = max(1, min(len(times), round(math.sqrt(len(times) * ASPECT * outer_height / outer_width))))
    rows = -(-len(times) // columns)
    sheet = Image.new("RGB", (columns * outer_width + GAP, rows * outer_height + GAP), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=LABEL_HEIGHT - 4)
    for position, (frame, time, shown) in enumerate(zip(frames, times, seen, strict=True)):
        left = GAP + position % columns * outer_width
        top = GAP + position // columns * outer_height
        picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).resize((CELL_WIDTH, cell_height))
        if not shown:
            picture = Image.blend(picture, Image.new("RGB", picture.size, BACKGROUND), 0.7)
        sheet.paste(picture, (left, top))
        label = f"{position + 1}   {time:.2f} s" + ("" if shown else "   not shown")
        draw.text((left, top + cell_height + 1), label, fill=INK if shown else FAINT, font=font)
    return sheet
