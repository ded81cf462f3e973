"""Synthetic scenes whose events are known: what happens in them, the queries about it, and their frames.

A :class:`Scene` is a plain description: coloured shapes that are visible for a known time on drifting noise, some of
which also *do* something for a known part of it. :func:`make_scene` draws one from a seed, :func:`render` turns it into
frames at any resolution and frame rate. Both are pure: equal arguments give equal bits on every run.

Splits never share what a model could memorise. The *cast* of a scene (which shapes in which colours stand in which
corner) and its *timeline* (duration and all spans) are each hashed into one of the splits, and a scene of a split is
drawn until both belong to it. So no cast and no timeline of ``heldout`` occurs in ``train`` or ``pretrain``, whatever
the seeds and however many scenes; positions within the corner, sizes and backgrounds are drawn afresh for every scene.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from timelens_plugins.spans import Span
from timelens_plugins.synthetic.shapes import COLORS, SHAPES, coverage, drifting_noise

__all__ = [
    "ACTIONS",
    "Actor",
    "Event",
    "Scene",
    "Split",
    "WorldConfig",
    "make_scene",
    "place_actor",
    "render",
    "split_of",
]

Split = Literal["heldout", "train", "pretrain"]

ACTIONS: tuple[str, ...] = ("blinks", "grows", "jumps")
"""What a visible shape can do, each plain in any two frames half a second apart: on for the first half of every second
and off for the second; larger by :data:`GROWTH`; left for half a second, then right."""

GROWTH = 1.6
_HOP = 0.09  # half the width of a jump, in frame sides
_SPLIT_OF_BUCKET: tuple[Split, ...] = (
    "heldout",
    "heldout",
    "train",
    "train",
    "train",
    "pretrain",
    "pretrain",
    "pretrain",
)
_CELLS = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
_MAX_DRAWS = 10_000


@dataclass(frozen=True)
class WorldConfig:
    """What scenes look like. All times are whole seconds, so that frames at 2 fps show every boundary exactly.

    Args:
        durations: shortest and longest clip, in seconds.
        actors: fewest and most shapes in a clip, at most 4 (one a corner).
        visible: shortest and longest time a shape without an action is visible, in seconds.
        acting: shortest and longest time of an action, in seconds; the shape is visible 1 or 2 s more on both sides.
        actions: which of :data:`ACTIONS` occur.
        action_share: chance that a shape acts.
        look_alike_share: chance that a shape shares its colour or its form with the first one.
        margin: seconds at both ends of the clip in which nothing is visible.
        noise: strength of the background, in grey levels.
    """

    durations: tuple[int, int] = (12, 20)
    actors: tuple[int, int] = (2, 3)
    visible: tuple[int, int] = (2, 5)
    acting: tuple[int, int] = (1, 3)
    actions: tuple[str, ...] = ACTIONS
    action_share: float = 0.4
    look_alike_share: float = 0.3
    margin: int = 1
    noise: float = 14.0

    def __post_init__(self) -> None:
        for name, least in (("durations", 1), ("actors", 1), ("visible", 1), ("acting", 1)):
            low, high = getattr(self, name)
            if not (isinstance(low, int) and isinstance(high, int) and least <= low <= high):
                raise ValueError(f"WorldConfig.{name} must be whole numbers {least} <= low <= high, got {(low, high)}")
        if self.actors[1] > len(_CELLS):
            raise ValueError(f"WorldConfig.actors: at most {len(_CELLS)} shapes fit into a frame, got {self.actors[1]}")
        if unknown := set(self.actions) - set(ACTIONS):
            raise ValueError(f"WorldConfig.actions: unknown {sorted(unknown)}; known: {', '.join(ACTIONS)}")
        if self.action_share > 0 and not self.actions:
            raise ValueError("WorldConfig.action_share is above 0 but WorldConfig.actions is empty")
        for name in ("action_share", "look_alike_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"WorldConfig.{name} must lie in 0..1, got {getattr(self, name)}")
        if self.margin < 0 or self.noise < 0:
            raise ValueError("WorldConfig.margin and WorldConfig.noise cannot be negative")
        needed = max(self.visible[1], self.acting[1] + 2 if self.action_share else 0) + 2 * self.margin
        if self.durations[0] < needed:
            raise ValueError(f"WorldConfig.durations: events and margins need {needed} s, got {self.durations[0]} s")


class Event(NamedTuple):
    """A query in words and the one span it holds for, in seconds."""

    query: str
    span: Span


@dataclass(frozen=True)
class Actor:
    """One shape: what it looks like, where it stands, when it is visible and when it acts."""

    color: str
    shape: str
    cell: int
    center: tuple[float, float]
    radius: float
    tint: tuple[float, float, float]
    visible: Span
    action: str | None = None
    acting: Span | None = None

    @property
    def events(self) -> list[Event]:
        """The queries this shape answers."""
        found = [Event(f"a {self.color} {self.shape} appears", self.visible)]
        if self.action is not None and self.acting is not None:
            found.append(Event(f"the {self.color} {self.shape} {self.action}", self.acting))
        return found


@dataclass(frozen=True)
class Scene:
    """A clip of ``duration`` seconds before it is drawn. No two actors share colour and shape: queries are unique."""

    duration: float
    actors: tuple[Actor, ...]
    noise: float
    background_seed: int = field(repr=False)

    @property
    def events(self) -> list[Event]:
        """All queries about the scene."""
        return [event for actor in self.actors for event in actor.events]

    @property
    def cast(self) -> tuple[tuple[str, str, int], ...]:
        """Who stands where: sorted ``(colour, shape, corner)``."""
        return tuple(sorted((a.color, a.shape, a.cell) for a in self.actors))

    @property
    def timeline(self) -> tuple[float, ...]:
        """When things happen: the duration, then all spans in order."""
        return (self.duration, *(t for event in sorted(self.events, key=lambda e: e.span) for t in event.span))


def split_of(key: tuple[object, ...]) -> Split:
    """The one split that a cast or a timeline belongs to: a fixed function of its text, the same on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return _SPLIT_OF_BUCKET[digest[0] % len(_SPLIT_OF_BUCKET)]


def make_scene(seed: int | Sequence[int], config: WorldConfig | None = None, *, split: Split = "train") -> Scene:
    """Draw a scene.

    Args:
        seed: one or several non-negative integers; equal seeds give equal scenes.
        config: what scenes look like.
        split: the world's part that both cast and timeline belong to.

    Raises:
        ValueError: unknown split, or a config under which no scene of the split can be found.
    """
    config = config or WorldConfig()
    if split not in get_args(Split):
        raise ValueError(f"unknown split {split!r}; known: {', '.join(get_args(Split))}")
    rng = np.random.default_rng(seed)
    for _ in range(_MAX_DRAWS):
        duration = _whole(rng, config.durations)
        times = [_draw_times(rng, config, duration) for _ in range(_whole(rng, config.actors))]
        scene = Scene(float(duration), _draw_cast(rng, config, times), config.noise, int(rng.integers(2**31)))
        # Cast and timeline are drawn together because a scene's events tie them to each other.
        if split_of(scene.cast) == split and split_of(scene.timeline) == split:
            return scene
    raise ValueError(f"no scene of split {split!r} in {_MAX_DRAWS} draws: {config} leaves too few combinations")


def _whole(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


class _Times(NamedTuple):
    visible: Span
    action: str | None
    acting: Span | None


def _draw_times(rng: np.random.Generator, config: WorldConfig, duration: int) -> _Times:
    first, last = config.margin, duration - config.margin
    if rng.random() >= config.action_share:
        length = _whole(rng, config.visible)
        start = _whole(rng, (first, last - length))
        return _Times(Span(start, start + length), None, None)
    length = _whole(rng, config.acting)
    start = _whole(rng, (first + 1, last - 1 - length))
    before, after = _whole(rng, (1, 2)), _whole(rng, (1, 2))
    visible = Span(max(first, start - before), min(last, start + length + after))
    return _Times(visible, str(rng.choice(config.actions)), Span(start, start + length))


def _draw_cast(rng: np.random.Generator, config: WorldConfig, times: Sequence[_Times]) -> tuple[Actor, ...]:
    colors, cells = list(COLORS), rng.permutation(len(_CELLS))
    looks: list[tuple[str, str]] = []
    while len(looks) < len(times):
        color, shape = str(rng.choice(colors)), str(rng.choice(SHAPES))
        if looks and rng.random() < config.look_alike_share:
            color, shape = (looks[0][0], shape) if rng.random() < 0.5 else (color, looks[0][1])
        if (color, shape) not in looks:
            looks.append((color, shape))
    return tuple(
        place_actor(rng, color, shape, int(cell), when.visible, when.action, when.acting)
        for (color, shape), cell, when in zip(looks, cells, times, strict=False)
    )


def place_actor(
    rng: np.random.Generator,
    color: str,
    shape: str,
    cell: int,
    visible: Span,
    action: str | None = None,
    acting: Span | None = None,
) -> Actor:
    """A shape somewhere in corner ``cell`` (0..3, row by row), of slightly random size and tint."""
    x, y = _CELLS[cell] + rng.uniform(-0.03, 0.03, size=2)
    red, green, blue = np.array(COLORS[color]) + rng.normal(0, 6, size=3)
    return Actor(
        color=color,
        shape=shape,
        cell=cell,
        center=(float(x), float(y)),
        radius=float(rng.uniform(0.14, 0.17)),
        tint=(float(red), float(green), float(blue)),
        visible=visible,
        action=action,
        acting=acting,
    )


def render(
    scene: Scene, *, size: int = 128, fps: float = 8.0, times: NDArray[np.float64] | None = None
) -> NDArray[np.uint8]:
    """Frames of a scene.

    Args:
        size: side of the square frame, in pixels.
        fps: frames per second, from 0 to before the scene's end; at a multiple of 2 every event starts and ends on a
            frame.
        times: seconds of the frames to draw instead, shape ``(frames,)``.

    Returns:
        RGB of shape ``(frames, size, size, 3)``.
    """
    if size < 8 or not fps > 0:
        raise ValueError(f"a scene needs at least 8 pixels a side and a positive frame rate, got {size} and {fps}")
    if times is None:
        times = np.arange(round(scene.duration * fps)) / fps
    video = drifting_noise(np.random.default_rng(scene.background_seed), times, size, scene.noise)
    for actor in scene.actors:
        for frames, center, radius in _states(actor, times):
            rows, columns, share = coverage(actor.shape, center, radius, size)
            behind = video[frames, rows, columns]
            video[frames, rows, columns] = behind + share[:, :, None] * (np.array(actor.tint, np.float32) - behind)
    clipped: NDArray[np.uint8] = np.clip(np.round(video), 0, 255).astype(np.uint8)
    return clipped


def _states(actor: Actor, times: NDArray[np.float64]) -> list[tuple[NDArray[np.intp], tuple[float, float], float]]:
    """Frames that show the actor alike: indices, centre, radius."""
    shown = (times >= actor.visible.start) & (times < actor.visible.end)
    x, y = actor.center
    if actor.action is None or actor.acting is None:
        return [(np.flatnonzero(shown), (x, y), actor.radius)]
    acts = (times >= actor.acting.start) & (times < actor.acting.end)
    first_half = times % 1.0 < 0.5
    still = (np.flatnonzero(shown & ~acts), (x, y), actor.radius)
    if actor.action == "blinks":
        return [still, (np.flatnonzero(acts & first_half), (x, y), actor.radius)]
    if actor.action == "grows":
        return [still, (np.flatnonzero(acts), (x, y), actor.radius * GROWTH)]
    return [
        still,
        (np.flatnonzero(acts & first_half), (x - _HOP, y), actor.radius),
        (np.flatnonzero(acts & ~first_half), (x + _HOP, y), actor.radius),
    ]
