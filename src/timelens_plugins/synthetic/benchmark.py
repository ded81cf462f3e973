"""Synthetic data on disk, in the formats of the real sets: TimeLens-Bench to evaluate on, TimeLens-100K to train on.

Benchmark::

    FOLDER/{charades,activitynet,qvhighlights}-timelens.json   {"<id>": {"duration", "spans", "queries"}}, whole seconds
    FOLDER/videos/<subset>/<id>.mp4

Training set::

    FOLDER/timelens-100k.jsonl     {"source", "video_path", "duration", "events": [{"query", "span": [[start, end]]}]}
    FOLDER/videos/<video_path>     video_path = "<source>/<id>.mp4"

Both are functions of their arguments alone. Every clip has its own seed, so a run that was interrupted continues where
it stopped, a larger set begins with the smaller one, and several processes may write the same folder at once.
``world.json`` keeps the arguments: writing other data into the same folder is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from timelens_plugins.atomic import write_whole
from timelens_plugins.synthetic.mp4 import write_mp4
from timelens_plugins.synthetic.world import Event, Scene, Split, WorldConfig, make_scene, render

__all__ = ["SUBSETS", "write_benchmark", "write_training_set"]

SUBSETS: dict[str, WorldConfig] = {
    "charades": WorldConfig(durations=(12, 14), actors=(2, 2), noise=10.0),
    "activitynet": WorldConfig(durations=(16, 20), actors=(2, 3)),
    "qvhighlights": WorldConfig(durations=(14, 18), actors=(3, 3), noise=18.0),
}
"""The three subsets: short clips with few events, long ones, and crowded ones."""

FORMAT = 2  # raised when the same arguments begin to give other data
_SPLIT_SEEDS: dict[Split, int] = {"heldout": 1, "train": 2, "pretrain": 3}


def write_benchmark(
    folder: str | Path,
    clips: int | Mapping[str, int] = 20,
    *,
    moments: int | None = None,
    seed: int = 0,
    queries: int = 3,
    size: int = 128,
    fps: float = 8.0,
    processes: int = 1,
    progress: bool = True,
) -> Path:
    """Write a benchmark of held-out scenes in TimeLens-Bench's layout.

    Args:
        folder: created where missing; the value for ``TIMELENS_BENCH_DIR``.
        clips: videos a subset, for all three or by name (a subset left out is not written).
        moments: queries a subset, in the place of ``clips``: as many videos as they need, all but the last with all
            of theirs.
        seed: of the whole set.
        queries: at most so many a video.
        size: side of the square frame in pixels.
        fps: frame rate of the videos.
        processes: that encode videos. Above 1 they are spawned, so a script needs its ``__name__ == "__main__"``.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        ValueError: unknown subset, or the folder holds other data.
    """
    if moments is not None and moments < 1:
        raise ValueError(f"a subset needs at least one moment, got {moments}")
    counts = dict(clips) if isinstance(clips, Mapping) else dict.fromkeys(SUBSETS, clips)
    _check_subsets(counts)
    folder = Path(folder)
    _claim(folder, "timelens-bench", seed=seed, queries=queries, size=size, fps=fps)
    chosen = {subset: _chosen(subset, count, moments, seed, queries) for subset, count in counts.items()}
    videos = [
        (folder / "videos" / subset / f"{name}.mp4", scene)
        for subset, described in chosen.items()
        for name, scene, _ in described
    ]
    _write_videos(videos, size, fps, processes, "benchmark clips", progress)
    for subset, described in chosen.items():
        rows = {
            name: {
                "duration": scene.duration,
                "spans": [[int(e.span.start), int(e.span.end)] for e in events],
                "queries": [e.query for e in events],
            }
            for name, scene, events in described
        }
        write_whole(folder / f"{subset}-timelens.json", json.dumps(rows, indent=1) + "\n")
    return folder


def write_training_set(
    folder: str | Path,
    clips: int | Mapping[str, int] = 200,
    *,
    seed: int = 0,
    queries: int = 3,
    size: int = 128,
    fps: float = 8.0,
    processes: int = 1,
    progress: bool = True,
) -> Path:
    """Write training scenes in TimeLens-100K's layout; arguments as :func:`write_benchmark`.

    Clips of the subsets' three kinds take turns, so that any first part of the file is a fair sample. The source of a
    row names its kind: ``synthetic_charades`` and so on.

    Returns:
        The annotation file.
    """
    counts = dict(clips) if isinstance(clips, Mapping) else dict.fromkeys(SUBSETS, clips)
    _check_subsets(counts)
    folder = Path(folder)
    _claim(folder, "timelens-100k", seed=seed, queries=queries, size=size, fps=fps)
    rows: list[str] = []
    videos: list[tuple[Path, Scene]] = []
    for subset, index in _in_turn(counts):
        name, scene, events = _clip(subset, "train", seed, index, queries)
        source = f"synthetic_{subset}"
        videos.append((folder / "videos" / source / f"{name}.mp4", scene))
        row = {
            "source": source,
            "video_path": f"{source}/{name}.mp4",
            "duration": scene.duration,
            "events": [{"query": e.query, "span": [list(e.span)]} for e in events],
        }
        rows.append(json.dumps(row) + "\n")
    _write_videos(videos, size, fps, processes, "training clips", progress)
    annotations = folder / "timelens-100k.jsonl"
    write_whole(annotations, "".join(rows))
    return annotations


def _clip(subset: str, split: Split, seed: int, index: int, queries: int) -> tuple[str, Scene, list[Event]]:
    """The clip's id, its scene and the chosen events, in random order."""
    entropy = [seed, _SPLIT_SEEDS[split], list(SUBSETS).index(subset), index]
    scene = make_scene(entropy, SUBSETS[subset], split=split)
    events = scene.events
    order = np.random.default_rng([*entropy, 1]).permutation(len(events))[:queries]
    return f"{split}-{subset}-{seed}-{index:05d}", scene, [events[i] for i in order]


def _chosen(
    subset: str, clips: int, moments: int | None, seed: int, queries: int
) -> list[tuple[str, Scene, list[Event]]]:
    """The first ``clips`` clips, or as many as ``moments`` need."""
    if moments is None:
        return [_clip(subset, "heldout", seed, index, queries) for index in range(clips)]
    chosen: list[tuple[str, Scene, list[Event]]] = []
    left = moments
    while left > 0:
        name, scene, events = _clip(subset, "heldout", seed, len(chosen), queries)
        chosen.append((name, scene, events[:left]))
        left -= len(events)
    return chosen


def _in_turn(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for index in range(max(counts.values(), default=0)):
        yield from ((subset, index) for subset, count in counts.items() if index < count)


def _check_subsets(counts: Mapping[str, int]) -> None:
    if unknown := counts.keys() - SUBSETS.keys():
        raise ValueError(f"unknown subset {sorted(unknown)}; known: {', '.join(SUBSETS)}")
    if bad := {name: count for name, count in counts.items() if count < 1}:
        raise ValueError(f"a subset needs at least one clip, got {bad}")


def _claim(folder: Path, kind: str, **arguments: Any) -> None:
    """Note what the folder holds, or check that it holds the same."""
    folder.mkdir(parents=True, exist_ok=True)
    world = {name: asdict(config) for name, config in SUBSETS.items()}
    wanted = json.loads(json.dumps({"format": FORMAT, "kind": kind, **arguments, "world": world}))
    path = folder / "world.json"
    if not path.exists():
        write_whole(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        present = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete the folder or choose another") from error
    if present != wanted:
        names = sorted(k for k in wanted.keys() | present.keys() if wanted.get(k) != present.get(k))
        raise ValueError(f"{folder} holds synthetic data made with another {', '.join(names)}: choose another folder")


def _write_videos(
    videos: Sequence[tuple[Path, Scene]], size: int, fps: float, processes: int, label: str, progress: bool
) -> None:
    with tqdm(total=len(videos), desc=label, unit="clip", disable=not progress) as bar:
        if processes == 1:
            for path, scene in videos:
                _write_video(path, scene, size, fps)
                bar.update()
            return
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            try:
                for job in as_completed([pool.submit(_write_video, path, scene, size, fps) for path, scene in videos]):
                    job.result()
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _write_video(path: Path, scene: Scene, size: int, fps: float) -> None:
    if not path.exists():  # it gets its name only when complete
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, render(scene, size=size, fps=fps), fps)
