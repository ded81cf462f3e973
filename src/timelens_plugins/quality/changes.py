"""Signs in the pictures: an event begins and ends with a change at one place, and looks unlike the rest in between.

A clip is read at low resolution. Every place of the picture gets a curve of how much it changes, in units of how much
it changes anyway, and of how far it is from what it usually looks like. A span is held against the others near it:
where another one begins and ends with a far plainer change of one place, the annotated one is probably not where the
event is. That holds for events that come and go; what goes on all the time, or happens before a moving camera, has no
such changes and is told little by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.moments import Moment
from timelens_plugins.quality.findings import Evidence
from timelens_plugins.video import FrameSampling, sample_frames

__all__ = ["ChangeCurves", "boundary_evidence", "change_curves"]

_FPS = 4.0
_SAMPLING = FrameSampling(fps=_FPS, min_frames=4, max_frames=768, min_tokens=4, total_tokens=768 * 9)
_PLACES = 8  # of the picture, on each side
_REACH = 0.5  # seconds between a boundary and its change
_PLAIN = 8.0  # units of a place's own unrest from which something changes
_PRESENT = 0.4  # share of a span in which its place looks unlike the rest of the clip
_POOR = 0.45  # of the plainest change near it, below which a span fits poorly
_STEP = 0.5  # seconds between the spans compared


@dataclass(frozen=True)
class ChangeCurves:
    """How much each place of a clip changes, and how unlike its usual look it is.

    Attributes:
        times: seconds of the frames, shape ``(T,)``.
        change: to the next frame, in units of each place's usual change, shape ``(T - 1, places)``.
        unlike: distance to what a place looks like most of the time, in the same units, shape ``(T, places)``.
        duration: seconds.
    """

    times: NDArray[np.float64]
    change: NDArray[np.float32]
    unlike: NDArray[np.float32]
    duration: float

    def near(self, time: float) -> NDArray[np.float32]:
        """The plainest change of each place close to ``time``, shape ``(places,)``."""
        at = np.abs((self.times[1:] + self.times[:-1]) / 2 - time) <= _REACH
        if not at.any():
            return np.zeros(self.change.shape[1], np.float32)
        return np.asarray(self.change[at].max(axis=0), np.float32)

    def fit(self, start: float, end: float) -> float:
        """How plainly one place changes at both ends of a span in which it looks unlike the rest of the clip.

        An end at the clip's own end needs no change. A span from end to end has none, and 0.
        """
        ends = [self.near(t) for t in (start, end) if _REACH < t < self.duration - _REACH]
        if not ends:
            return 0.0
        plain = np.min(ends, axis=0)
        inside = (self.times >= start) & (self.times < end)
        if not inside.any():
            return 0.0
        present = (self.unlike[inside] >= plain / 2).mean(axis=0) >= _PRESENT
        return float((plain * present).max())


def change_curves(video: str, start: float | None = None, end: float | None = None) -> ChangeCurves:
    """Curves of a video, or of its window.

    Raises:
        VideoError: it cannot be read.
    """
    clip = sample_frames(video, _SAMPLING, video_start=start, video_end=end)
    frames = clip.frames.numpy().astype(np.float32)  # (T, 3, H, W)
    height, width = (side // _PLACES for side in frames.shape[-2:])
    places = frames[:, :, : height * _PLACES, : width * _PLACES]
    places = places.reshape(len(frames), 3, _PLACES, height, _PLACES, width).mean(axis=(3, 5))
    places = places.reshape(len(frames), 3, -1)
    change = np.abs(np.diff(places, axis=0)).max(axis=1)
    unrest = np.median(change, axis=0) + 0.5  # grey levels
    unlike = np.abs(places - np.median(places, axis=0)).max(axis=1)
    return ChangeCurves(clip.times, change / unrest, unlike / unrest, clip.duration)


def boundary_evidence(moments: Sequence[Moment], curves: ChangeCurves) -> list[Evidence]:
    """Evidence for the moments of one clip."""
    found = []
    for moment in moments:
        if len(moment.spans) != 1:
            continue
        [span] = moment.spans
        own = curves.fit(span.start, span.end)
        best, where = _best_nearby(curves, span.start, span.end)
        if best < _PLAIN or own >= _POOR * best:
            continue
        reason = (
            f"no place changes plainly at both ends ({own:.1f} times its usual change); one does at "
            f"{where[0]:g} - {where[1]:g} s ({best:.0f} times)"
        )
        found.append(Evidence(moment.id, "inaccurate", "no change at its ends", 1 - own / best, reason, (), (where,)))
    return found


def _best_nearby(curves: ChangeCurves, start: float, end: float) -> tuple[float, tuple[float, float]]:
    """The span that fits best among those that overlap the annotated one, or follow or precede it closely."""
    best, where = 0.0, (start, end)
    grid = np.arange(0, curves.duration + _STEP / 2, _STEP)
    reach = max(2.0, end - start)
    plain = {float(t): float(curves.near(float(t)).max()) for t in grid}
    for a in map(float, grid[(grid >= start - reach) & (grid <= end)]):
        for b in map(float, grid[(grid > a) & (grid >= start) & (grid <= end + reach)]):
            inner = [plain[t] for t in (a, b) if _REACH < t < curves.duration - _REACH]
            if inner and min(inner) > best and (fit := curves.fit(a, b)) > best:
                best, where = fit, (a, b)
    return best, where
