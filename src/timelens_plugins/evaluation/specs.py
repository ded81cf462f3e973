"""What a task reads, as its YAML file says under ``timelens:``: for the tasks of this package and of anybody else.

    task: kitchen
    include: timelens            # metrics, prompt and generation settings of this package
    timelens:
      annotations: kitchen.csv   # beside this file, or below root
      videos: videos
      format: csv                # left out: recognised from the content
      leave_out: needs_sound     # annotations with this flag are counted and not evaluated

A value that begins with ``$`` is the environment variable of that name; where it is not set, the field is left out.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timelens_plugins.moments.formats import format_by_name

__all__ = ["SPEC_KEY", "Places", "TaskSpec", "read_spec", "specs_of"]

SPEC_KEY = "timelens"
FIELDS = ("annotations", "videos", "format", "root", "shards", "hub", "leave_out")


@dataclass(frozen=True)
class Places:
    """A spec whose variables are looked up: what this machine has to hold."""

    annotations: tuple[Path, ...]  # alternatives, in order of preference
    videos: tuple[Path, ...]  # folders, in order of preference; none: those beside the annotations
    format: str | None
    shards: Path | None  # folder of tar archives to unpack into the first video folder


@dataclass(frozen=True)
class TaskSpec:
    """The ``timelens:`` part of a task's YAML file.

    Attributes:
        task: the task's name.
        file: the YAML file.
        annotations: path below the root, or several, of which the first that exists is read.
        videos: folders below the root, in order of preference; none: ``videos`` beside the annotations, and their own.
        format: as of :func:`~timelens_plugins.moments.load_moments`.
        root: the folder that paths start from; None for the file's own folder.
        shards: folder of video archives below the root, which are unpacked into the first of ``videos``.
        hub: data set that is fetched where the variable that ``root`` names is not set.
        leave_out: flags of :mod:`timelens_plugins.moments`; annotations with one of them are not evaluated.
    """

    task: str
    file: str
    annotations: tuple[str, ...]
    videos: tuple[str, ...] = ()
    format: str | None = None
    root: str | None = None
    shards: str | None = None
    hub: str | None = None
    leave_out: tuple[str, ...] = ()

    def resolve(self) -> Places:
        """Look up variables and folders; the files are not looked for.

        Raises:
            FileNotFoundError: a root or an annotation file that is not set, or a root that is no folder.
            ValueError: an unknown format.
        """
        root = self._root()
        annotations = self._paths(self.annotations, root)
        if not annotations:
            raise FileNotFoundError(
                f"{self.task} needs {' or '.join(name.removeprefix('$') for name in self.annotations)}: the path of an "
                f"annotation file ({self.file})"
            )
        name = _value(self.format) if self.format is not None else None
        if name is not None:
            try:
                format_by_name(name)
            except ValueError as error:
                raise ValueError(f"{self.task}: {error} ({self.file})") from None
        videos = self._paths(self.videos, root)
        if self.videos and videos and not self.shards and not any(folder.is_dir() for folder in videos):
            raise FileNotFoundError(f"{self.task}: no folder of videos at {videos[0]} ({self.file})")
        shards = self._paths((self.shards,), root) if self.shards else ()
        return Places(annotations, videos, name, shards[0] if shards else None)

    def _paths(self, names: Iterable[str], root: Path) -> tuple[Path, ...]:
        """Paths that are set. What stands in a variable starts from the working directory, as the shell's paths do."""
        found = []
        for name in names:
            value = _value(name)
            if value is not None:
                path = Path(value).expanduser()
                found.append(path.resolve() if name.startswith("$") else root / path)
        return tuple(found)

    def _root(self) -> Path:
        own = Path(self.file).parent.resolve()
        if self.root is None:
            return own
        setting = _value(self.root)
        if setting is None:
            return self._fetched()
        folder = (own / Path(setting).expanduser()) if not self.root.startswith("$") else Path(setting).expanduser()
        folder = folder.resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"{self.root.removeprefix('$')} is set to {folder}, which is not a folder")
        return folder

    def _fetched(self) -> Path:
        assert self.root is not None
        variable = self.root.removeprefix("$")
        videos = f"the videos in {self.videos[0]}/" if self.videos else "its videos"
        if self.hub is None:
            raise FileNotFoundError(f"{self.task} needs {variable}: a folder with {self.annotations[0]} and {videos}")
        try:
            return _snapshot(self.hub)
        except Exception as error:  # the hub raises many kinds; all mean that the data is not here; the cause is shown
            packed = f" or their archives in {self.shards}/" if self.shards else ""
            raise FileNotFoundError(
                f"{self.task}: {variable} is not set and {self.hub} could not be fetched from the hub "
                f"({type(error).__name__}: {error}). Set {variable} to a folder with {self.annotations[0]} "
                f"and {videos}{packed}."
            ) from error


@functools.lru_cache
def _snapshot(data_set: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(data_set, repo_type="dataset"))


def _value(text: str) -> str | None:
    """A field's text, or that of the variable it names; None where this is not set."""
    return os.environ.get(text[1:]) or None if text.startswith("$") else text


def read_spec(content: Any, task: object, file: str) -> TaskSpec:
    """The spec that stands under ``timelens:`` in ``file``.

    Raises:
        ValueError: an unknown or missing field, or one that is no text, named with the file.
    """
    where = f"{file}: {SPEC_KEY}"
    if not isinstance(task, str) or not task:
        raise ValueError(f"{where}: the file names no task; write task: NAME")
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: must hold fields such as 'annotations: FILE', got {content!r}")
    if unknown := sorted(str(name) for name in content if name not in FIELDS):
        raise ValueError(f"{where}: unknown field {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    if not content.get("annotations"):
        raise ValueError(f"{where}: names no annotations; write annotations: FILE")

    def texts(name: str) -> tuple[str, ...]:
        value = content.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) and text for text in values):
            raise ValueError(f"{where}: {name} must be text, or a list of it, got {value!r}")
        return tuple(values)

    def text(name: str) -> str | None:
        values = texts(name)
        if len(values) > 1:
            raise ValueError(f"{where}: {name} is one text, got {list(values)!r}")
        return values[0] if values else None

    return TaskSpec(
        task,
        file,
        texts("annotations"),
        texts("videos"),
        text("format"),
        text("root"),
        text("shards"),
        text("hub"),
        texts("leave_out"),
    )


def specs_of(tasks: Any, manager: Any) -> list[TaskSpec]:
    """The specs of those tasks, groups and configurations that have one.

    Args:
        tasks: as ``simple_evaluate`` takes them: a name, a configuration, or a list of both.
        manager: lmms-eval's ``TaskManager``, which knows where their files are.
    """
    from lmms_eval import utils

    found: list[TaskSpec] = []
    waiting = [tasks] if isinstance(tasks, str) else list(tasks or [])
    while waiting:
        task = waiting.pop(0)
        config: Any = task
        if isinstance(task, str):
            entry = manager.task_index.get(task, {})
            if entry.get("type") == "tag":
                waiting[:0] = entry["task"]
                continue
            path = entry.get("yaml_path", -1)
            if entry.get("type") not in ("task", "group") or path == -1:
                continue
            config = utils.load_yaml_config(path, mode="simple")
            if SPEC_KEY in config:
                found.append(read_spec(config[SPEC_KEY], config.get("task"), str(path)))
                continue
        if not isinstance(config, Mapping):
            continue
        members, rows = config.get("task"), config.get("process_docs")
        if isinstance(members, list):
            waiting[:0] = members
        elif isinstance(rows, functools.partial) and isinstance(rows.keywords.get("spec"), TaskSpec):
            found.append(rows.keywords["spec"])
        elif isinstance(task, Mapping) and isinstance(members, str):
            waiting.insert(0, members)  # a registered task with changes
    return found
