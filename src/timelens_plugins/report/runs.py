"""Runs to report on: result files of TimeLens or lmms-eval, or difficulty files, read into cases.

A *case* is a moment with what a run answered to it: one answer, or several in a difficulty file. Several files make one
run where lmms-eval wrote them together (same folder, same time in the name), where they lie in one folder that is
given, or where they are given the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from timelens_plugins.metrics import (
    Disagreement,
    ResultFile,
    Sample,
    join_annotations,
    load_results,
    reading_iou,
)
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.moments.files import Layout, read_document
from timelens_plugins.report.folders import LMMS_EVAL_NAME, evaluations_of, samples_in

__all__ = ["Case", "Run", "Window", "load_run", "load_runs"]

Window: TypeAlias = tuple[float, float]

EXAMPLES = 3  # rows named in a note
IOU_TOLERANCE = 0.005  # between a recorded IoU and that of the prediction beside it; files round to two decimals


@dataclass(frozen=True, slots=True)
class Case:
    """A moment and a run's answers to it.

    Attributes:
        samples: one per answer, at least one, all about the same annotation.
        window: of a longer video, in seconds of the file; spans count from its start.
        path: of the video, as the file gives it.
    """

    samples: tuple[Sample, ...]
    window: Window | None = None
    path: str = ""

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError("a case needs at least one answer (a sample of status 'missing' where there is none)")

    @property
    def moment(self) -> Sample:
        """The sample whose annotation, subset and duration are those of the case."""
        return self.samples[0]


@dataclass(frozen=True, slots=True)
class Run:
    """Answers of one model to a set of moments.

    Attributes:
        name: as the report calls it.
        cases: in the order of the files.
        files: where they come from.
        notes: what a reader of the figures has to know about the files, a sentence each.
        warnings: why the cases may not be of one evaluation, a sentence each.
    """

    name: str
    cases: tuple[Case, ...]
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether every case has one answer."""
        return all(len(case.samples) == 1 for case in self.cases)

    @classmethod
    def from_samples(cls, name: str, samples: Iterable[Sample]) -> Run:
        """A run of samples at hand, one answer each."""
        return cls(name, tuple(Case((sample,), path=sample.video) for sample in samples))


def load_runs(
    paths: Sequence[str | Path],
    names: Sequence[str] = (),
    *,
    annotations: Sequence[str | Path] = (),
    reparse: bool = False,
) -> list[Run]:
    """Read files and folders, and tell which of them belong together.

    Args:
        paths: files; or folders of lmms-eval, of which the newest samples file of each task is taken and those of
            other tasks are passed over.
        names: one for each path; paths of the same name are one run. Without names, files that lmms-eval wrote at the
            same time are one run, and any other file is one.
        annotations: what the answers are about, one file for all result files or one for each: moments nobody answered
            then count as missing, and durations become known.
        reparse: as in :func:`~timelens_plugins.metrics.load_results`.

    Raises:
        ValueError: counts that do not fit, a folder without samples, a given file that is neither results nor
            difficulty.
        OSError: a file cannot be read.
    """
    if not paths:
        raise ValueError("there is no file to report on")
    if names and len(names) != len(paths):
        raise ValueError(f"--name takes one name for each of the {len(paths)} files or folders, got {len(names)}")
    found = [samples_in(Path(path)) if Path(path).is_dir() else ([Path(path)], list[str]()) for path in paths]
    groups: dict[object, list[Path]] = {}
    for i, (path, (files, _)) in enumerate(zip(paths, found, strict=True)):
        for file in files:
            parts = LMMS_EVAL_NAME.fullmatch(file.stem)
            together: object = i
            if names:
                together = names[i]
            elif parts and not Path(path).is_dir():
                together = (file.parent, parts["time"])
            groups.setdefault(together, []).append(file)
    labels = list(names and dict.fromkeys(names)) or _labels(list(groups.values()))
    files_in_all = sum(map(len, groups.values()))
    if len(annotations) not in (0, 1, files_in_all):
        raise ValueError(
            f"--annotations takes one file, or one for each of the {files_in_all} result files, got {len(annotations)}"
        )
    given = iter(annotations if len(annotations) > 1 else list(annotations) * files_in_all)
    choices = {file: notes for files, notes in found for file in files}
    runs = []
    for label, files in zip(labels, groups.values(), strict=True):
        beside = [next(given) for _ in files] if annotations else []
        run = load_run(files, label, annotations=beside, reparse=reparse)
        notes = [*dict.fromkeys(note for file in files for note in choices[file]), *run.notes]
        warnings: tuple[str, ...] = ()
        if (evaluations := evaluations_of(files)) is not None:
            text, alike = evaluations
            if alike:
                notes.insert(0, f"{label}: {text}")
            else:
                warnings = (f"{label}: {text}",)
        runs.append(replace(run, notes=tuple(notes), warnings=warnings))
    return runs


def load_run(
    paths: str | Path | Sequence[str | Path],
    name: str,
    *,
    annotations: Sequence[str | Path] = (),
    reparse: bool = False,
) -> Run:
    """Read the files of one run; arguments and errors as :func:`load_runs`. A file without rows gives no cases."""
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    beside: Sequence[str | Path | None] = list(annotations) or [None] * len(files)
    if len(beside) != len(files):
        raise ValueError(f"run {name!r}: {len(files)} files and {len(beside)} annotation files")
    cases: list[Case] = []
    notes: list[str] = []
    for file, annotated in zip(files, beside, strict=True):
        read, said = _read(file, annotated, reparse)
        cases += _with_subset(read, file)
        notes += said
    return Run(name, tuple(cases), tuple(map(str, files)), tuple(notes))


def _labels(groups: Sequence[Sequence[Path]]) -> list[str]:
    """Short names that tell the runs apart: lmms-eval's folder, else the file's name, or more of the path."""
    first = [files[0] for files in groups]
    labels = [file.parent.name if LMMS_EVAL_NAME.fullmatch(file.stem) else file.stem for file in first]
    depth = 2
    while len(set(labels)) < len(labels) and depth <= max(len(file.parts) for file in first):
        twice = {label for label, count in Counter(labels).items() if count > 1}
        labels = [
            "/".join(file.with_suffix("").parts[-depth:]) if label in twice else label
            for file, label in zip(first, labels, strict=True)
        ]
        depth += 1
    return [label if label not in labels[:i] else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def _read(file: Path, annotations: str | Path | None, reparse: bool) -> tuple[list[Case], list[str]]:
    if not file.read_bytes().strip():
        return [], [f"{file}: holds no rows."]
    if _is_results(file):
        return _read_results(file, annotations, reparse)
    if annotations is not None or reparse:
        raise ValueError(f"{file}: --annotations and --reparse are for result files, and this is a difficulty file")
    return _read_difficulty(file)


def _is_results(file: Path) -> bool:
    """Whether the first row is one of a result file. What is neither is left for the readers to complain about."""
    document = read_document(file)
    if document.layout is Layout.BY_VIDEO:
        return ">>>" in (document.entries[0].key or "")
    first = next((entry.value for entry in document.entries if entry.fault is None), None)
    return isinstance(first, dict) and ("doc_id" in first or any(">>>" in key for key in first))


def _read_results(file: Path, annotations: str | Path | None, reparse: bool) -> tuple[list[Case], list[str]]:
    results = load_results(file, reparse=reparse)
    notes = _result_notes(results, reparse)
    if annotations is None:
        return [Case((sample,), path=sample.video) for sample in results.samples], notes
    moments = load_moments(annotations)
    expected = [
        Sample(m.video_id, m.query, m.spans, None, "missing", subset=m.source, duration=m.duration) for m in moments
    ]
    try:
        joined = join_annotations(expected, results.samples)
    except ValueError as error:
        raise ValueError(f"{file}, with annotations {annotations}: {error}") from None
    notes.append(f"{file}: annotations {moments.report.summary()}")
    if joined.repeated:
        notes.append(f"{file}: {joined.repeated} annotations share the answer of an earlier exact duplicate.")
    return [Case((s,), _window(m), m.video) for s, m in zip(joined.samples, moments, strict=True)], notes


def _result_notes(results: ResultFile, reparse: bool) -> list[str]:
    notes = []
    if results.videos_left_out:
        notes.append(f"{results.path}: {results.videos_left_out} annotated videos were absent and are left out.")
    if results.read_from_answer:
        notes.append(
            f"{results.path}: {results.read_from_answer} predictions were not stored and are read from the answer."
        )
    if found := results.disagreements:
        counts = "what the answer says counts" if reparse else "what is stored counts"
        shown = "; ".join(_disagreement(d) for d in found[:EXAMPLES]) + ("; …" if len(found) > EXAMPLES else "")
        notes.append(
            f"{results.path}: {len(found)} stored predictions are not the first span of the answer; {counts} ({shown})."
        )
    return notes


def _disagreement(d: Disagreement) -> str:
    stored, parsed = ("no span" if s is None else f"[{s[0]:g}, {s[1]:g}]" for s in (d.stored, d.parsed))
    return f"row {d.row}: stored {stored}, answer {parsed}"


def _read_difficulty(file: Path) -> tuple[list[Case], list[str]]:
    moments = load_moments(file)
    bare = [m for m in moments if not m.predictions]
    if bare:
        raise ValueError(
            f"{file}: read as {moments.report.format}, and {len(bare)} of {len(moments)} moments hold no prediction, "
            f"such as {bare[0].id!r}. Give a result file or a difficulty file, and annotations as --annotations"
        )
    differing = 0
    cases = []
    for moment in moments:
        samples = []
        for prediction in moment.predictions:
            first = next(iter(prediction.spans), None)
            samples.append(
                Sample(
                    moment.video_id,
                    moment.query,
                    moment.spans,
                    first,
                    "unparsed" if first is None else "parsed",
                    moment.source,
                    moment.duration,
                    prediction.answer,
                )
            )
            recorded = prediction.iou
            differing += (
                recorded is not None and abs(recorded - reading_iou(first, moment.spans, "exact")) > IOU_TOLERANCE
            )
        cases.append(Case(tuple(samples), _window(moment), moment.video))
    notes = []
    if differing:
        notes.append(
            f"{file}: {differing} recorded IoUs are not those of the first predicted span; the figures here are "
            "computed from the spans."
        )
    if moments.report.flags:
        flags = ", ".join(f"{count} {flag}" for flag, count in moments.report.flags.items())
        notes.append(f"{file}: flagged annotations: {flags}.")
    return cases, notes


def _window(moment: Moment) -> Window | None:
    if moment.video_start is None or moment.video_end is None:
        return None
    return moment.video_start, moment.video_end


def _with_subset(cases: Sequence[Case], file: Path) -> list[Case]:
    """Cases with the task's name as their subset, where lmms-eval put one task into the file."""
    parts = LMMS_EVAL_NAME.fullmatch(file.stem)
    if not parts or len({case.moment.subset for case in cases}) > 1:
        return list(cases)
    return [replace(case, samples=tuple(replace(s, subset=parts["task"]) for s in case.samples)) for case in cases]
