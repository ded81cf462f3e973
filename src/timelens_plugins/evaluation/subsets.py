"""Which annotations and videos each task reads, and the check that every video is there.

TimeLens-Bench is looked for in the folder ``TIMELENS_BENCH_DIR``, else fetched from the hub; the original benchmarks,
which no single place distributes, in ``TIMELENS_ORIGINAL_DIR``. A missing video is an error unless
``TIMELENS_ALLOW_MISSING=1``: then its moments are left out, counted, and shown in the result.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from timelens_plugins.evaluation.shards import unpack_shards
from timelens_plugins.moments import LoadedMoments, Moment, load_moments

__all__ = ["SUBSETS", "Subset", "SubsetMoments", "check_tasks", "load_subset"]

logger = logging.getLogger(__name__)

HUB_DATASET = "TencentARC/TimeLens-Bench"
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


@dataclass(frozen=True)
class Subset:
    """One task: where its annotations lie below the root, and the folders that may hold its videos."""

    task: str
    root: str  # environment variable that names the root folder
    format: str
    annotations: tuple[str, ...]  # alternatives, in order of preference
    videos: tuple[str, ...]  # folders, in order of preference
    shards: str | None = None  # folder of tar archives to unpack into the first video folder


def _bench(name: str) -> Subset:
    return Subset(
        task=f"timelens_bench_{name}",
        root="TIMELENS_BENCH_DIR",
        format="timelens_bench",
        annotations=(f"{name}-timelens.json",),
        videos=(f"videos/{name}",),
        shards=f"video_shards/{name}",
    )


def _original(name: str, format: str, folder: str, *annotations: str) -> Subset:  # noqa: A002 - as in load_moments
    return Subset(
        task=f"timelens_original_{name}",
        root="TIMELENS_ORIGINAL_DIR",
        format=format,
        annotations=tuple(f"{folder}/{file}" for file in annotations),
        videos=(f"{folder}/videos", f"videos/{folder}", folder),
    )


SUBSETS: dict[str, Subset] = {
    subset.task: subset
    for subset in (
        _bench("charades"),
        _bench("activitynet"),
        _bench("qvhighlights"),
        _original("charades_sta", "charades_sta", "charades", "charades_sta_test.json"),
        _original("activitynet_captions", "activitynet_captions", "activitynet", "val_2.json"),
        _original("qvhighlights", "qvhighlights", "qvhighlights", "highlight_val_release.jsonl"),
    )
}


@dataclass(frozen=True)
class SubsetMoments:
    """The moments of a task whose videos exist, and what is missing."""

    subset: Subset
    moments: tuple[Moment, ...]
    missing: tuple[str, ...]  # paths of videos that are annotated but absent
    missing_moments: int


def check_tasks(tasks: Iterable[str]) -> None:
    """Load the subsets of these tasks and groups, which raises for whatever is missing.

    Names of other packages' tasks are ignored.
    """
    for task in tasks:
        for name in SUBSETS:
            if name == task or name.startswith(f"{task}_"):
                load_subset(name)


def load_subset(task: str) -> SubsetMoments:
    """The moments of a task, each with the path of an existing video.

    Raises:
        FileNotFoundError: no root folder, no annotations, or missing videos, which it names.
        ValueError: faults in the annotations, an empty video file, or no video at all.
    """
    subset = SUBSETS[task]
    return _load(subset, os.environ.get(subset.root), _allow_missing())


@functools.lru_cache
def _load(subset: Subset, root_setting: str | None, allow_missing: bool) -> SubsetMoments:
    root = _root(subset, root_setting)
    annotations = _annotations(subset, root)
    loaded = load_moments(annotations, format=subset.format, source=annotations.stem)
    logger.info("%s: %s", subset.task, loaded.report.summary())
    if subset.shards:
        unpack_shards(root / subset.shards, root / subset.videos[0])
    return _with_videos(subset, loaded, root, allow_missing)


def _allow_missing() -> bool:
    value = os.environ.get("TIMELENS_ALLOW_MISSING", "0")
    if value not in ("0", "1", ""):
        raise ValueError(f"TIMELENS_ALLOW_MISSING must be 0 or 1, got {value!r}")
    return value == "1"


def _root(subset: Subset, setting: str | None) -> Path:
    if setting:
        root = Path(setting).expanduser().resolve()
        if not root.is_dir():
            raise FileNotFoundError(f"{subset.root} is set to {root}, which is not a folder")
        return root
    if subset.root != "TIMELENS_BENCH_DIR":
        raise FileNotFoundError(
            f"{subset.task} needs {subset.root}: a folder with {subset.annotations[0]} "
            f"and the videos in {subset.videos[0]}/"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(HUB_DATASET, repo_type="dataset"))
    except Exception as error:  # the hub raises many kinds; all mean that the data is not here, and the cause is shown
        raise FileNotFoundError(
            f"{subset.task}: TIMELENS_BENCH_DIR is not set and {HUB_DATASET} could not be fetched from the hub "
            f"({type(error).__name__}: {error}). Set TIMELENS_BENCH_DIR to a folder with {subset.annotations[0]} "
            f"and the videos in {subset.videos[0]}/ or their archives in {subset.shards}/."
        ) from error


def _annotations(subset: Subset, root: Path) -> Path:
    for name in subset.annotations:
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(f"{subset.task}: no annotations at {root / subset.annotations[0]} (root: {subset.root})")


def _with_videos(subset: Subset, loaded: LoadedMoments, root: Path, allow_missing: bool) -> SubsetMoments:
    present = _index_videos([root / folder for folder in subset.videos])
    found, missing, missing_moments = [], {}, 0
    for moment in loaded:
        path = present.get(moment.video_id)
        if path is None:
            missing[moment.video_id] = str(root / subset.videos[0] / f"{moment.video_id}{VIDEO_SUFFIXES[0]}")
            missing_moments += 1
        else:
            found.append(replace(moment, video=str(path)))
    empty = sorted({moment.video for moment in found if Path(moment.video).stat().st_size == 0})
    if empty:
        raise ValueError(f"{subset.task}: {_some(empty)} of zero bytes; fetch again")
    if missing and not (allow_missing and found):
        remedy = (
            "" if allow_missing else " To evaluate the others and have these counted, set TIMELENS_ALLOW_MISSING=1."
        )
        raise FileNotFoundError(
            f"{subset.task}: {_some(list(missing.values()))} missing, with {missing_moments} of {len(loaded)} "
            f"annotations.{remedy}"
        )
    if missing:
        logger.warning(
            "%s: %s missing; %d of %d annotations are not evaluated (TIMELENS_ALLOW_MISSING=1)",
            subset.task,
            _some(list(missing.values())),
            missing_moments,
            len(loaded),
        )
    return SubsetMoments(subset, tuple(found), tuple(missing.values()), missing_moments)


def _index_videos(folders: list[Path]) -> dict[str, Path]:
    """Video id to file; an earlier folder, then an earlier suffix wins."""
    index: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            continue
        here: dict[str, Path] = {}
        for path in sorted(folder.iterdir(), key=lambda p: _suffix_rank(p.suffix)):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                here.setdefault(path.name[: -len(path.suffix)], path)
        index = here | index
    return index


def _suffix_rank(suffix: str) -> int:
    return VIDEO_SUFFIXES.index(suffix.lower()) if suffix.lower() in VIDEO_SUFFIXES else len(VIDEO_SUFFIXES)


def _some(paths: list[str], shown: int = 5) -> str:
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return f"{len(paths)} video{'s' if len(paths) != 1 else ''} ({', '.join(paths[:shown])}{more})"
