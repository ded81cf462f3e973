"""The synthetic world: what the frames show is what the queries say, and splits share nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from timelens_plugins.synthetic.shapes import COLORS, SHAPES, coverage
from timelens_plugins.synthetic.world import ACTIONS, Scene, WorldConfig, make_scene, render

SPLITS = ("heldout", "train", "pretrain")
DISTINCT = WorldConfig(look_alike_share=0.0, action_share=0.7)


def colored(video: NDArray[np.uint8], color: str) -> NDArray[np.bool_]:
    """Pixels of a colour: nearer to it than to any other colour or to the grey of the background."""
    names = [*COLORS, "grey"]
    palette = np.array([*COLORS.values(), (125, 125, 125)], np.float32)
    distance = np.stack([((video - p) ** 2).sum(-1) for p in palette])
    return np.asarray(distance.argmin(0) == names.index(color))


def scenes_with_distinct_colors(count: int) -> list[Scene]:
    found = [make_scene([7, i], DISTINCT) for i in range(count * 4)]
    return [s for s in found if len({a.color for a in s.actors}) == len(s.actors)][:count]


def test_a_seed_gives_the_same_bits_in_another_process() -> None:
    def digest() -> str:
        return hashlib.sha256(render(make_scene([3, 1])).tobytes()).hexdigest()

    code = (
        "import hashlib; from timelens_plugins.synthetic.world import make_scene, render;"
        "print(hashlib.sha256(render(make_scene([3, 1])).tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert digest() == other
    assert make_scene([3, 1]) != make_scene([3, 2])


def test_frames_show_the_events_and_nothing_else() -> None:
    """Spans read back from the pixels by colour, half second by half second."""
    seen = set()
    for scene in scenes_with_distinct_colors(24):
        video = render(scene, size=64, fps=4)
        for actor in scene.actors:
            mask = colored(video, actor.color)
            area = mask.sum((1, 2)).astype(float)
            expected = np.zeros(len(video), bool)
            expected[int(actor.visible.start * 4) : int(actor.visible.end * 4)] = True
            still = expected.copy()
            if actor.action and actor.acting:
                seen.add(actor.action)
                a, b = int(actor.acting.start * 4), int(actor.acting.end * 4)
                halves = area[a:b].reshape(-1, 2, 2)  # (seconds, halves, frames)
                still[a:b] = False
                usual = area[still].mean()
                if actor.action == "blinks":
                    assert (halves[:, 0] > 0.8 * usual).all()
                    assert (halves[:, 1] < 0.1 * usual).all()
                    expected[a:b] = np.tile([True, True, False, False], (b - a) // 4)
                elif actor.action == "grows":
                    assert (halves > 1.8 * usual).all()
                else:
                    x = [np.nonzero(m)[1].mean() for m in mask[a:b]]
                    assert (np.diff(np.reshape(x, (-1, 2, 2))[:, :, 0]) > 5).all()  # of 64 pixels
            assert ((area > 20) == expected).all(), (scene, actor)
            assert area[still].std() < 0.1 * area[still].mean()
    assert seen == set(ACTIONS)


def test_shapes_differ_at_the_resolution_a_tiny_model_sees() -> None:
    masks = {}
    for shape in SHAPES:
        rows, columns, share = coverage(shape, (0.5, 0.5), 0.15, 32)
        masks[shape] = np.zeros((32, 32))
        masks[shape][rows, columns] = share
    areas = [m.sum() for m in masks.values()]
    assert max(areas) < 1.5 * min(areas)
    for a in SHAPES:
        for b in SHAPES:
            if a != b:
                assert abs(masks[a] - masks[b]).sum() > 0.15 * masks[a].sum()
    with pytest.raises(ValueError, match="unknown shape 'star'"):
        coverage("star", (0.5, 0.5), 0.15, 32)
    assert coverage("circle", (1.5, 0.5), 0.15, 32)[2].size == 0  # outside the frame


def test_splits_share_neither_casts_nor_timelines() -> None:
    casts: dict[str, set[object]] = {}
    timelines: dict[str, set[object]] = {}
    for split in SPLITS:
        scenes = [make_scene([i], split=split) for i in range(400)]  # the same seeds on purpose
        casts[split] = {s.cast for s in scenes}
        timelines[split] = {s.timeline for s in scenes}
    for a, b in (("heldout", "train"), ("heldout", "pretrain"), ("train", "pretrain")):
        assert not casts[a] & casts[b]
        assert not timelines[a] & timelines[b]
    assert all(len(found) > 150 for found in casts.values())


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), split=st.sampled_from(SPLITS))
def test_scenes_keep_their_promises(seed: int, split: str) -> None:
    config = WorldConfig()
    scene = make_scene(seed, config, split=split)  # type: ignore[arg-type]
    assert 12 <= scene.duration <= 20
    queries = [e.query for e in scene.events]
    assert len(set(queries)) == len(queries)
    assert len({a.cell for a in scene.actors}) == len(scene.actors)
    for actor in scene.actors:
        assert config.margin <= actor.visible.start < actor.visible.end <= scene.duration - config.margin
        if actor.acting:
            assert actor.visible.start < actor.acting.start < actor.acting.end < actor.visible.end
    assert all(t == int(t) for e in scene.events for t in e.span)


def test_a_scene_looks_the_same_at_any_size() -> None:
    """Drawing small is close to drawing large and scaling down."""
    for seed in range(5):
        scene = make_scene(seed, WorldConfig(noise=0.0))
        large = render(scene, size=128, fps=2).astype(np.float32)
        small = render(scene, size=32, fps=2).astype(np.float32)
        scaled = large.reshape(len(large), 32, 4, 32, 4, 3).mean((2, 4))
        assert abs(scaled - small).mean() < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"durations": (20, 12)}, "durations"),
        ({"durations": (5, 9)}, "need 7 s"),
        ({"actors": (1, 5)}, "at most 4"),
        ({"actions": ("sings",)}, "unknown .'sings"),
        ({"actions": ()}, "actions is empty"),
        ({"action_share": 1.5}, "0..1"),
        ({"noise": -1.0}, "negative"),
    ],
)
def test_impossible_worlds_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldConfig(**arguments)  # type: ignore[arg-type]


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'test'"):
        make_scene(0, split="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 8 pixels"):
        render(make_scene(0), size=4)
    narrow = WorldConfig(
        durations=(9, 9), actors=(1, 1), visible=(7, 7), action_share=0.0, look_alike_share=0.0
    )  # one timeline only: it belongs to one split
    refused = [split for split in SPLITS if not _has_scenes(narrow, split)]
    assert len(refused) == 2


def _has_scenes(config: WorldConfig, split: str) -> bool:
    try:
        make_scene(0, config, split=split)  # type: ignore[arg-type]
    except ValueError as error:
        if "too few combinations" in str(error):
            return False
        raise
    return True
