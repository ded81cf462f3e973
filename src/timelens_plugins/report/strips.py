"""Film strips: a few frames of a clip side by side in one small JPEG, evenly spread over its time."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from timelens_plugins.locations import how_to_install
from timelens_plugins.results import Window

__all__ = ["StripBudget", "Strips", "check_decoders", "make_strips"]

WIDTH, HEIGHT = 1200, 76  # pixels of a strip: sharp on a wide page, some 25 kB
OVERSAMPLING = 3  # frames decoded for each one shown, of which the nearest to the middle of its cell is taken


@dataclass(frozen=True, slots=True)
class StripBudget:
    """How much of a page frames may take.

    Attributes:
        clips: strips at most; 0 for none.
        frames: in a strip; None for as many as fit side by side in their own shape.
        megabytes: of all strips together, as embedded.
        quality: of the JPEG, 1 to 95.
    """

    clips: int = 150
    frames: int | None = None
    megabytes: float = 8.0
    quality: int = 62

    def __post_init__(self) -> None:
        for name, value in (("strips", self.clips), ("frame budget", self.megabytes)):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}: cannot be negative or endless, got {value}")
        if self.frames is not None and not 2 <= self.frames <= 60:
            raise ValueError(f"frames: a strip has 2 to 60 frames, got {self.frames}")
        if not 1 <= self.quality <= 95:
            raise ValueError(f"JPEG quality lies between 1 and 95, got {self.quality}")


@dataclass(frozen=True, slots=True)
class Strips:
    """Strips by clip and window.

    Attributes:
        images: address (``data:``) and the number of frames, for each clip that got one.
        skipped: clips that were left out because the budget was spent.
        faults: clips that could not be read, with the reason.
    """

    images: dict[tuple[Path, Window | None], dict[str, Any]]
    skipped: int
    faults: tuple[str, ...]


def check_decoders() -> None:
    """Refuse, before any work, what a base install cannot do: it decodes no video.

    Raises:
        ValueError: a package that film strips need is not installed.
    """
    try:
        for name in ("PIL.Image", "tqdm.auto", "timelens_plugins.video"):
            import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"film strips need {error.name}: {how_to_install('video')}; or leave them out (--no-frames; clips are "
            "found and played all the same)"
        ) from None


def make_strips(wanted: Iterable[tuple[Path, Window | None]], budget: StripBudget, *, progress: bool = True) -> Strips:
    """Strips of the wanted clips, in their order, until the budget is spent."""
    from tqdm.auto import tqdm

    clips = list(dict.fromkeys(wanted))
    images: dict[tuple[Path, Window | None], dict[str, Any]] = {}
    faults: list[str] = []
    left = budget.megabytes * 1e6
    chosen = clips[: budget.clips]
    skipped = len(clips) - len(chosen)
    for i, clip in enumerate(tqdm(chosen, desc="film strips", unit="clip", disable=not progress or not chosen)):
        try:
            path, window = clip
            image = film_strip(path, window, budget.frames, budget.quality)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        left -= len(image["src"])
        if left < 0:
            skipped += len(chosen) - i
            break
        images[clip] = image
    return Strips(images, skipped, tuple(faults))


def film_strip(path: Path, window: Window | None, frames: int | None, quality: int) -> dict[str, Any]:
    """One strip: cell i shows the clip at about ``(i + 1/2) / n`` of its time.

    Raises:
        VideoError: the clip cannot be read.
    """
    from PIL import Image

    from timelens_plugins.video import FrameSampling, sample_frames

    start, end = window or (None, None)
    most = 2 * ((OVERSAMPLING * (frames or WIDTH // 50)) // 2)
    sampling = FrameSampling(fps=1000.0, max_frames=most, min_tokens=32, total_tokens=32, times="stream")
    clip = sample_frames(path, sampling, video_start=start, video_end=end)
    height, width = clip.frames.shape[-2:]
    count = frames or int(np.clip(round(WIDTH / (HEIGHT * width / height)), 4, WIDTH // 50))
    middles = (np.arange(count) + 0.5) / count * clip.duration
    nearest = np.abs(clip.times[None, :] - middles[:, None]).argmin(axis=1)
    edges = np.round(np.linspace(0, WIDTH, count + 1)).astype(int)
    strip = Image.new("RGB", (WIDTH, HEIGHT))
    for i, frame in enumerate(nearest):
        picture = Image.fromarray(clip.frames[frame].permute(1, 2, 0).contiguous().numpy())
        strip.paste(_filling(picture, int(edges[i + 1] - edges[i]), HEIGHT), (int(edges[i]), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=quality, optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"src": f"data:image/jpeg;base64,{encoded}", "frames": count, "duration": round(clip.duration, 3)}


def _filling(picture: Any, width: int, height: int) -> Any:
    """The middle of a picture, scaled so that it fills ``width`` by ``height`` pixels."""
    from PIL import ImageOps

    return ImageOps.fit(picture, (width, height))
