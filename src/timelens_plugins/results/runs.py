"""Runs on disk: files, folders and globs of results, and which of them belong together.

Files that lmms-eval wrote at the same time are one run, as are files given the same name and the files in one folder
below a folder that is given; every other file is a run of its own. Of several evaluations in one folder, the newest
samples of each task count. A file of a run that repeats another's answers counts once; files that answer the same
moments differently are no run (``repetition``).
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from timelens_plugins.metrics import Sample
from timelens_plugins.results.files import load_file
from timelens_plugins.results.json_files import is_keyed, read_rows
from timelens_plugins.results.lmms_eval import (
    RESULTS_NAME,
    SAMPLES_NAME,
    Record,
    evaluations_of,
    read_record,
)
from timelens_plugins.results.repetition import counted_once
from timelens_plugins.results.result_file import Case, ResultFile
from timelens_plugins.results.rows import is_of_moments, is_of_sets

__all__ = ["Run", "Source", "annotations_for", "check_names", "find_sources", "load_run", "load_runs", "load_source"]


@dataclass(frozen=True, slots=True)
class Run:
    """Answers of one model to a set of moments.

    Attributes:
        name: as tables and pages call it.
        cases: in the order of the files; where lmms-eval put one task into a file, its subset is the task.
        absent: the same of events that are not in the video: no IoU is about them, ``metrics.count_rejections`` is.
        parts: the files they come from, each with what it says of itself.
        notes: what was passed over or put together, a sentence each; :attr:`remarks` has what the files say.
        warnings: why the cases may not be of one evaluation, a sentence each.
    """

    name: str
    cases: tuple[Case, ...]
    parts: tuple[ResultFile, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    absent: tuple[Case, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files."""
        return tuple(str(part.path) for part in self.parts)

    @property
    def remarks(self) -> list[str]:
        """Notes, and what a reader of the figures has to know about the files, a sentence each."""
        return [*self.notes, *(f"{part.path}: {remark}" for part in self.parts for remark in part.remarks())]

    @property
    def single(self) -> bool:
        """Whether every case has one answer."""
        return all(len(case.samples) == 1 for case in self.cases)

    @classmethod
    def from_samples(cls, name: str, samples: Iterable[Sample]) -> Run:
        """A run of samples at hand, one answer each."""
        cases = [Case((sample,), path=sample.video) for sample in samples]
        present, absent = (tuple(c for c in cases if bool(c.moment.target) is there) for there in (True, False))
        return cls(name, present, absent=absent)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was found, not read yet.

    Attributes:
        given: number of the argument it was found for.
        path: the results; None where lmms-eval recorded scores of the task and logged no samples.
        record: lmms-eval's results file of the same evaluation.
        time, task: of lmms-eval, as the file's name has them; ``""`` for other files.
        folder: the given folder it was found below; None for a file that was given.
    """

    given: int
    path: Path | None
    record: Record | None = None
    time: str = ""
    task: str = ""
    folder: Path | None = None

    @property
    def place(self) -> Path:
        """The file that is there."""
        if self.path is None:
            assert self.record is not None
            return self.record.path
        return self.path


def find_sources(paths: Sequence[str | Path]) -> tuple[list[Source], dict[int, list[str]]]:
    """The result files that the arguments name, and by argument what was passed over, a sentence each.

    Args:
        paths: files; folders, searched for samples and results of lmms-eval and results of TimeLens; or globs of these.
            A results file of lmms-eval stands for the samples beside it.

    Raises:
        ValueError: a folder without results, a damaged results file.
        OSError: a path leads nowhere or cannot be read.
    """
    sources: dict[tuple[int, Path, str], Source] = {}
    records: dict[Path, Record | None] = {}
    notes: dict[int, list[str]] = {}
    for given, path in enumerate(paths):
        for found in _expanded(Path(path)):
            if found.is_dir():
                here, said = _in_folder(given, found, records)
                notes.setdefault(given, []).extend(said)
            else:
                here = list(_in_file(given, found, records))
            for source in here:
                sources.setdefault((given, source.place, source.task), source)
    return list(sources.values()), notes


def _expanded(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    if found := sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []:
        return [Path(name) for name in found]
    raise FileNotFoundError(f"{path}: no such file or folder")


Records: TypeAlias = dict[Path, Record | None]


def _in_file(given: int, file: Path, records: Records, folder: Path | None = None) -> Iterator[Source]:
    def recorded(path: Path) -> Record | None:
        if path not in records:
            records[path] = read_record(path) if path.is_file() else None
        return records[path]

    if named := SAMPLES_NAME.fullmatch(file.name):
        record = recorded(file.with_name(named["time"] + RESULTS_NAME))
        yield Source(given, file, record, named["time"], named["task"], folder)
    elif file.name.endswith(RESULTS_NAME) and (record := recorded(file)) is not None:
        time = file.name.removesuffix(RESULTS_NAME)
        for task in record.content["results"]:
            name = f"{time}samples_{task}.jsonl"
            beside = Path(name).name == name and file.with_name(name).is_file()  # a task of any name leads nowhere else
            if beside and not _is_of_sets(file.with_name(name)):
                yield Source(given, file.with_name(name), record, time, task, folder)
            elif task not in record.groups:
                yield Source(given, None, record, time, task, folder)
    else:
        yield Source(given, file, folder=folder)


def _in_folder(given: int, folder: Path, records: Records) -> tuple[list[Source], list[str]]:
    sources: list[Source] = []
    others: list[Path] = []
    unlike: list[Path] = []
    for file in sorted(path for path in folder.rglob("*.json*") if path.suffix in (".json", ".jsonl")):
        if SAMPLES_NAME.fullmatch(file.name) and not _is_of_moments(file):
            others.append(file)
        elif SAMPLES_NAME.fullmatch(file.name) or is_keyed(file):
            sources += _in_file(given, file, records, folder)
        elif file.name.endswith(RESULTS_NAME):
            sources += (source for source in _in_file(given, file, records, folder) if source.path is None)
        else:
            unlike.append(file)
    notes = [f"{folder}: passed over, samples of other tasks: {_names(others)}."] if others else []
    results = {source.path.parent for source in sources if source.path is not None and not source.task}
    if beside := [file for file in unlike if file.parent in results]:  # one of them may be a result that broke off
        notes.append(f"{folder}: passed over, beside results and none themselves: {_names(beside)}.")
    if sources:
        return sources, notes
    if others:
        raise ValueError(
            f"{folder}: no samples of moments in this folder, only of other tasks: {_names(others)}; give the folder "
            "of a run of the timelens tasks"
        )
    raise ValueError(
        f"{folder}: no samples of lmms-eval in this folder (*_samples_*.jsonl; was it run with --log_samples?), no "
        f"*{RESULTS_NAME}, and no TimeLens result file"
    )


def _is_of_moments(file: Path) -> bool:
    """Whether the first row has a moment in it. What cannot be read is left to the reader to complain about."""
    try:
        return is_of_moments(next(read_rows(file))[1])
    except ValueError:
        return True


def _is_of_sets(file: Path) -> bool:
    """Whether the scores of a task are those that lmms-eval recorded: sets of spans are not scored again."""
    try:
        return is_of_sets(next(read_rows(file))[1])
    except (ValueError, StopIteration):
        return False


def load_source(source: Source, *, annotations: str | Path | None = None, reparse: bool = False) -> ResultFile:
    """Read a file that was found, with what lmms-eval recorded beside it."""
    if source.path is None:
        return ResultFile(source.place, "lmms-eval results", (), task=source.task, record=source.record)
    return replace(load_file(source.path, annotations=annotations, reparse=reparse), record=source.record)


def annotations_for(sources: Sequence[Source], annotations: Sequence[str | Path]) -> list[str | Path | None]:
    """The annotation file of every source: one file is for all that hold results, several are for each.

    Raises:
        ValueError: counts that do not fit.
    """
    logged = sum(source.path is not None for source in sources)
    if len(annotations) not in (0, 1, logged):
        raise ValueError(
            f"--annotations takes one file, or as many as there are result files ({logged}), got {len(annotations)}"
        )
    each = iter(annotations if len(annotations) > 1 else [*annotations] * logged)
    return [next(each, None) if source.path is not None else None for source in sources]


def check_names(names: Sequence[str], paths: Sequence[str | Path]) -> None:
    """Refuse names that are not one for each path."""
    if names and len(names) != len(paths):
        raise ValueError(f"--name takes one name for each of the {len(paths)} files or folders, got {len(names)}")


def load_runs(
    paths: Sequence[str | Path],
    names: Sequence[str] = (),
    *,
    annotations: Sequence[str | Path] = (),
    reparse: bool = False,
) -> list[Run]:
    """Read files and folders, and tell which of them belong together. A file that is given twice counts once.

    Args:
        paths: as of :func:`find_sources`; difficulty files, too. Tasks of which no samples were logged are passed over.
        names: one for each path; paths of the same name are one run. ``""`` leaves a run its own name.
        annotations: what the answers are about, one file for all result files or one for each: moments nobody answered
            then count as missing, and durations become known.
        reparse: as in :func:`~timelens_plugins.results.load_results`.

    Raises:
        ValueError: counts that do not fit, a folder without samples, a given file that is neither results nor
            difficulty, a name for several models, files of one run that answer the same moments differently.
        OSError: a file cannot be read.
    """
    if not paths:
        raise ValueError("there is no file of results")
    check_names(names, paths)
    sources, notes = find_sources(paths)
    newest: list[Source] = []
    for given, path in enumerate(paths):
        newest += _newest([s for s in sources if s.given == given], path, notes.setdefault(given, []))
    groups: dict[object, list[Source]] = {}
    for source in newest if len(annotations) > 1 else _once(newest, names, notes):
        group = groups.setdefault(_together(source, names), [])
        if not any((s.place, s.task) == (source.place, source.task) for s in group):
            group.append(source)
    _refuse_several_models(groups, paths)
    own = iter(_labels([group for key, group in groups.items() if not isinstance(key, str)]))
    chosen = [source for group in groups.values() for source in group]
    beside = iter(annotations_for(chosen, annotations))
    runs = []
    for key, group in groups.items():
        files = [load_source(source, annotations=next(beside), reparse=reparse) for source in group]
        said = [note for given in dict.fromkeys(source.given for source in group) for note in notes.pop(given, ())]
        files, repeated = counted_once(files)
        said += repeated
        runs.append(_run(key if isinstance(key, str) else next(own), files, said))
    return runs


def load_run(
    paths: str | Path | Sequence[str | Path],
    name: str,
    *,
    annotations: Sequence[str | Path] = (),
    reparse: bool = False,
) -> Run:
    """Read the files of one run; arguments and errors as :func:`load_runs`. A file without rows gives no cases."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    [run] = load_runs(given, [name] * len(given), annotations=annotations, reparse=reparse)
    return run


def _newest(sources: list[Source], path: str | Path, notes: list[str]) -> list[Source]:
    """Of every task in a folder the newest samples; with a note of what is left out."""
    logged = [source for source in sources if source.path is not None]
    if not logged:
        tasks = ", ".join(dict.fromkeys(source.task for source in sources))
        raise ValueError(
            f"{path}: scores of {tasks} and no samples; was it run with --log_samples? (Those of tasks whose answers "
            "are sets of spans are not read; timelens leaderboard takes their scores.)"
        )
    newest: dict[object, Source] = {}
    for source in sorted(logged, key=lambda s: (s.time, s.task) if s.folder is not None else ("", "")):
        searched = source.folder is not None and source.task
        newest[(source.place.parent, source.task) if searched else source.place] = source
    if left := [source.place for source in logged if source not in newest.values()]:
        notes.append(f"{path}: older samples of the same tasks are not shown: {_names(left)}.")
    return list(newest.values())


def _once(sources: Sequence[Source], names: Sequence[str], notes: dict[int, list[str]]) -> list[Source]:
    """Every file once under a name, in the folder that was given rather than by itself; with a note of the others."""
    kept: dict[tuple[Path, str, str], Source] = {}
    for source in sorted(sources, key=lambda s: s.folder is None):
        first = kept.setdefault((source.place.resolve(), source.task, names[source.given] if names else ""), source)
        if _together(first, names) != _together(source, names):
            notes[first.given].append(f"{source.place}: given more than once, counts once.")
    return [source for source in sources if source in kept.values()]


def _together(source: Source, names: Sequence[str]) -> object:
    if names and names[source.given]:
        return names[source.given]
    if source.folder is not None:
        return source.given, source.place.parent
    return (source.place.parent, source.time) if source.task else (source.given, source.place)


def _refuse_several_models(groups: Mapping[object, Sequence[Source]], paths: Sequence[str | Path]) -> None:
    for group in (group for key, group in groups.items() if isinstance(key, str)):
        for given, path in enumerate(paths):
            folders = sorted({str(s.place.parent) for s in group if s.given == given and s.folder is not None})
            if len(folders) > 1:
                raise ValueError(f"{path}: holds results of several models, give each folder: {', '.join(folders)}")


def _run(name: str, files: Sequence[ResultFile], said: Sequence[str]) -> Run:
    labelled = zip(*(_with_subset(file) for file in files), strict=True)
    cases, absent = (tuple(case for part in parts for case in part) for parts in labelled)
    notes = list(said)
    warnings: tuple[str, ...] = ()
    if (evaluations := evaluations_of({file.path: file.record for file in files})) is not None:
        text, alike = evaluations
        if alike:
            notes.insert(0, f"{name}: {text}")
        else:
            warnings = (f"{name}: {text}",)
    return Run(name, cases, tuple(files), tuple(notes), warnings, absent)


def _with_subset(file: ResultFile) -> tuple[Sequence[Case], Sequence[Case]]:
    """Cases and those without a span, with the task's name as subset where lmms-eval put one task into the file."""
    both = (file.cases, file.absent)
    if not file.task or len({case.moment.subset for cases in both for case in cases}) > 1:
        return both
    present, absent = ([_case_of(case, file.task) for case in cases] for cases in both)
    return present, absent


def _case_of(case: Case, task: str) -> Case:
    return Case(tuple(_renamed(sample, task) for sample in case.samples), case.path)


def _renamed(s: Sample, subset: str) -> Sample:
    # As dataclasses.replace, which takes seconds for a hundred thousand.
    return Sample(s.video, s.query, s.target, s.predicted, s.status, subset, s.duration, s.answer, s.failure, s.window)


def _labels(groups: Sequence[Sequence[Source]]) -> list[str]:
    """Short names that tell the runs apart: lmms-eval's folder, else the file's name, or more of the path."""
    first = [group[0] for group in groups]
    labels = [_label(source, 0) for source in first]
    for step in range(1, 2 * max((len(source.place.parts) for source in first), default=0)):
        counts = Counter(labels)
        labels = [
            _label(source, step) if counts[label] > 1 else label for source, label in zip(first, labels, strict=True)
        ]
    return [label if label not in labels[:i] else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _label(source: Source, step: int) -> str:
    """More of the path with every other step, and in between what else could tell two files apart."""
    depth, more = divmod(step, 2)
    place = source.place
    if source.folder is not None or re.fullmatch(r"\d{8}_\d{6}_", source.time):
        text = Path(*place.absolute().parent.parts[-depth - 1 :]).as_posix()
        return f"{text} ({source.time.rstrip('_')})" if more and source.time else text
    return Path(*(place if more else place.with_suffix("")).parts[-depth - 1 :]).as_posix()


def _names(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
