"""A picture to judge a found moment by: frames of the whole video, a line of time, frames around the moment."""

from __future__ import annotations

from contextlib import suppress

from PIL import Image, ImageDraw, ImageFont

from timelens_plugins.grounding.find import FoundMoment
from timelens_plugins.inspection.contact_sheet import BACKGROUND, CELL_WIDTH, FAINT, GAP, INK, LABEL_HEIGHT
from timelens_plugins.spans import Span
from timelens_plugins.video import FrameSampling, VideoClip, sample_frames

__all__ = ["moment_sheet", "title"]

COLUMNS, OVERVIEW_ROWS, DETAIL_ROWS = 6, 2, 2
MARGIN = 0.25  # of the moment's length, shown before and after it
MARK, MARK_FAINT = (255, 176, 32), (150, 112, 48)
FRAME = 3  # pixels of the mark around a frame
LINE = 6  # pixels of a bar on the line of time
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Arial Unicode.ttf")
NO_LETTER = "\uffff"  # which is none in Unicode, so that a font draws its box for it

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

TOKENS = 64  # of a frame pair: frames of about 256 x 256 pixels


def moment_sheet(found: FoundMoment) -> Image.Image:
    """Frames inside the moment are framed; on the line of time it is the thick bar, each answer a thin one below.

    Without a moment only the whole video is shown.

    Raises:
        VideoError: the video cannot be read.
    """
    whole = _frames(found.video, COLUMNS * OVERVIEW_ROWS)
    parts = [whole]
    if found.spans:
        first, last = found.spans[0].start, found.spans[-1].end
        margin = max(MARGIN * (last - first), 1 / whole.fps)
        parts.append(_frames(found.video, COLUMNS * DETAIL_ROWS, max(0.0, first - margin), last + margin))
    height, width = whole.frames.shape[-2:]
    cell = max(1, round(CELL_WIDTH * height / width)) + LABEL_HEIGHT + GAP
    line = 2 * LABEL_HEIGHT + (LINE + 2) * (2 + len(found.readings)) + GAP
    rows = sum(-(-len(part.times) // COLUMNS) for part in parts)
    sheet = Image.new(
        "RGB", (COLUMNS * (CELL_WIDTH + GAP) + GAP, 2 * LABEL_HEIGHT + line + rows * cell + GAP), BACKGROUND
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=LABEL_HEIGHT - 3)
    title_font, text = title(found, sheet.width - 2 * GAP)
    draw.text((GAP, GAP), text, fill=INK, font=title_font)
    top = _paste(sheet, whole, found.spans, LABEL_HEIGHT + 2 * GAP)
    _draw_line(draw, font, found, whole.duration, top, sheet.width)
    if len(parts) > 1:
        _paste(sheet, parts[1], found.spans, top + line)
    return sheet


def _frames(video: str, count: int, start: float | None = None, end: float | None = None) -> VideoClip:
    """``count`` frames evenly over the video or a part of it, fewer where it has fewer."""
    sampling = FrameSampling(
        fps=1000, min_frames=2, max_frames=count, min_tokens=TOKENS, total_tokens=TOKENS * count // 2, times="stream"
    )
    return sample_frames(video, sampling, video_start=start, video_end=end)


def title(found: FoundMoment, width: int) -> tuple[Font, str]:
    """The query and what was found, in ``width`` pixels: a query that is too long is cut, what was found never is."""
    font, query = _readable(found.query, LABEL_HEIGHT - 3)
    result = f":   {_result(found)}"
    room = width - font.getlength(result)
    if font.getlength(query) > room:
        while query and font.getlength(f"{query}...") > room:
            query = query[:-1]
        query += "..."
    return font, query + result


def _readable(text: str, size: int) -> tuple[Font, str]:
    """A font that has every letter of a text, and the text.

    Pillow's own font has those of English alone. Where no font of :data:`FONTS` on this machine has all others, they
    are written as escapes, such as ``\\u95e8``, and not as empty boxes.
    """
    fonts: list[Font] = [ImageFont.load_default(size=size)]
    for name in FONTS:
        with suppress(OSError):
            fonts.append(ImageFont.truetype(name, size))
    lacking = [{letter for letter in set(text) if _glyph(font, letter) == _glyph(font, NO_LETTER)} for font in fonts]
    best = min(range(len(fonts)), key=lambda i: len(lacking[i]))
    return fonts[best], "".join(ascii(c)[1:-1] if c in lacking[best] else c for c in text)


def _glyph(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _result(found: FoundMoment) -> str:
    if found.spans:
        where = ", ".join(f"{span.start:.2f} - {span.end:.2f} s" for span in found.spans)
    else:
        where = "not in this video" if found.status == "denied" else f"no readable answer ({found.status})"
    sure = "" if found.agreement is None else f"   agreement {found.agreement:.2f}"
    sure += "" if found.confidence is None else f"   confidence {found.confidence:.2f}"
    return where + sure


def _paste(sheet: Image.Image, clip: VideoClip, spans: tuple[Span, ...], top: int) -> int:
    """Draw a clip's frames with their times from ``top`` down; returns where they end."""
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=LABEL_HEIGHT - 4)
    height = max(1, round(CELL_WIDTH * clip.frames.shape[-2] / clip.frames.shape[-1]))
    times = (clip.times + clip.video_start).tolist()
    for position, (frame, time) in enumerate(zip(clip.frames, times, strict=True)):
        left = GAP + position % COLUMNS * (CELL_WIDTH + GAP)
        upper = top + position // COLUMNS * (height + LABEL_HEIGHT + GAP)
        picture = Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).resize((CELL_WIDTH, height))
        sheet.paste(picture, (left, upper))
        inside = any(span.start <= time < span.end for span in spans)
        if inside:
            draw.rectangle((left, upper, left + CELL_WIDTH - 1, upper + height - 1), outline=MARK, width=FRAME)
        draw.text((left, upper + height + 1), f"{time:.2f} s", fill=MARK if inside else FAINT, font=font)
    return top + -(-len(times) // COLUMNS) * (height + LABEL_HEIGHT + GAP)


def _draw_line(
    draw: ImageDraw.ImageDraw,
    font: Font,
    found: FoundMoment,
    duration: float,
    top: int,
    width: int,
) -> None:
    def x(seconds: float) -> float:
        return GAP + min(seconds, duration) / duration * (width - 2 * GAP - 1)

    def bar(spans: tuple[Span, ...], upper: int, thickness: int, colour: tuple[int, int, int]) -> None:
        for span in spans:
            draw.rectangle((x(span.start), upper, max(x(span.end), x(span.start) + 1), upper + thickness), fill=colour)

    draw.line((x(0), top, x(duration), top), fill=FAINT)
    for tenth in range(11):
        at = x(duration * tenth / 10)
        draw.line((at, top, at, top + 4), fill=FAINT)
        text = f"{duration * tenth / 10:.1f}"
        draw.text((at, top + 5), text, fill=FAINT, font=font, anchor=("la", "ma", "ra")[(tenth > 0) + (tenth == 10)])
    upper = top + 5 + LABEL_HEIGHT
    bar(found.spans, upper, 2 * LINE, MARK)
    upper += 2 * LINE + 4
    for spans in found.readings:
        bar(spans, upper, LINE - 3, MARK_FAINT)
        upper += LINE + 1
