"""Results as entries of a board: what :mod:`timelens_plugins.results` reads, one entry a run and benchmark.

Where the samples of a run were logged, its scores are computed from them; elsewhere they are taken from results.json.
Nothing is ranked by what cannot be seen: every reason why figures are not comparable becomes a difference of the entry.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timelens_plugins.leaderboard.protocol import UNRECORDED, limit_of, protocol_differences, protocol_notes
from timelens_plugins.leaderboard.published import Benchmark, Entry, Published
from timelens_plugins.metrics import THRESHOLDS, Interval, Scores, count_rejections, evaluate
from timelens_plugins.results import (
    PredictOnly,
    ResultFile,
    Run,
    Source,
    annotations_for,
    check_names,
    find_sources,
    load_source,
)
from timelens_plugins.results.json_files import short
from timelens_plugins.results.repetition import counted_once
from timelens_plugins.results.result_file import samples_of
from timelens_plugins.results.rows import is_number

__all__ = ["Entries", "entries_of", "read_entries"]

SYNTHETIC = re.compile(r"(heldout|train|pretrain)-(charades|activitynet|qvhighlights)-\d+-\d{5}")
AGREE = 0.005  # percentage points between samples and results.json that rounding explains


@dataclass(frozen=True, slots=True)
class Entries:
    """What was read, and what was passed over, a sentence each."""

    entries: tuple[Entry, ...]
    passed_over: tuple[str, ...]


def read_entries(
    paths: Sequence[str | Path],
    published: Published,
    names: Sequence[str] = (),
    *,
    annotations: Sequence[str | Path] = (),
    reparse: bool = False,
    benchmark: str | None = None,
    assume_protocol: bool = False,
) -> Entries:
    """Read results of lmms-eval and TimeLens; every evaluation in a folder is a run.

    Args:
        paths, annotations, reparse: as of :func:`~timelens_plugins.results.load_runs`.
        published: the benchmarks and the protocol to compare with.
        names: one for each path; paths of one name are one run. Without names, the model's name is taken, or the
            folder's for TimeLens files.
        benchmark: the key of the benchmark that result files belong to which do not say it themselves.
        assume_protocol: take settings that are not recorded for the official ones, with a note.

    Raises:
        ValueError: nothing found, an unreadable file, a result file of an unknown benchmark, one run with two results
            on the same benchmark, files of one run that answer the same moments differently.
        OSError: a file cannot be read.
    """
    check_names(names, paths)
    sources, notes = find_sources(paths)
    passed_over = [note for said in notes.values() for note in said]
    chosen: list[tuple[Source, str]] = []
    unique: dict[object, Source] = {}
    for source in sources:
        unique.setdefault((source.place.resolve(), source.task, names[source.given] if names else ""), source)
    for source in unique.values():
        if (found := _benchmark(source.place, source.task, published, benchmark)) is not None:
            chosen.append((source, found.key))
        elif source.task or source.folder is not None:
            other = source.task or "no TimeLens-Bench file by its name"
            passed_over.append(f"{source.place}: passed over, another benchmark: {other}.")
        else:
            raise ValueError(
                f"{source.place}: neither its name nor its content says which benchmark it belongs to; name it "
                f"{next(iter(published.benchmarks))}.json and the like, or give --benchmark"
            )
    together: dict[tuple[str, object, str], list[ResultFile]] = {}
    for (source, key), beside in zip(chosen, annotations_for([s for s, _ in chosen], annotations), strict=True):
        name = names[source.given] if names else ""
        try:
            file = load_source(source, annotations=beside, reparse=reparse)
        except PredictOnly as error:
            passed_over.append(f"passed over, {error}.")
        else:
            place = None if name else source.place if source.folder is None else source.place.parent
            together.setdefault((name, place, key), []).append(file)
    entries = []
    for (name, _, _), files in together.items():
        kept, repeated = counted_once(files, evaluations_apart=not name)
        passed_over += repeated
        entries += [_entry(file, name, published, benchmark) for file in kept]
    if assume_protocol:
        entries = [_assumed(entry) for entry in entries]
    return Entries(tuple(_named_apart(entries)), tuple(dict.fromkeys(passed_over)))


def entries_of(runs: Sequence[Run], published: Published) -> list[Entry]:
    """Entries of runs that were read already, under their names; files of other benchmarks have none."""
    return [
        replace(_entry(file, run.name, published, None), run=run.name)
        for run in runs
        for file in run.parts
        if file.cases and _benchmark(file.path, file.task, published, None) is not None
    ]


def _benchmark(path: Path, task: str, published: Published, benchmark: str | None) -> Benchmark | None:
    """The benchmark of a file: by its task, else by its name, else as it is given."""
    if task:
        return published.of_task(task)
    return published.benchmarks.get(path.stem.replace("_", "-")) or published.benchmarks.get(benchmark or "")


def _entry(file: ResultFile, name: str, published: Published, benchmark: str | None) -> Entry:
    chosen = _benchmark(file.path, file.task, published, benchmark)
    assert chosen is not None  # others are passed over
    differences, notes = [], list[str]()
    if chosen.sets:
        differences.append(
            "sets of spans, asked by this package's prompt; missing videos and unreadable answers count 0"
        )
    elif not chosen.refined:
        differences.append("original annotations, not TimeLens-Bench")
    if file.record is None:
        differences.append(f"{UNRECORDED}" + ("" if file.task else " in a TimeLens result file"))
    elif chosen.sets:  # not of the official protocol; its settings are what there is to compare
        arguments = file.record.arguments
        notes += [f"{name}={arguments[name]}" for name in published.protocol.settings if name in arguments]
        if (limit := limit_of(file.record)) is not None:
            differences.append(f"--limit {limit}")
    else:
        differences += protocol_differences(file.record, file.task, published.protocol)
        notes += protocol_notes(file.record)
    entry = _from_samples(file, chosen) if file.cases else _from_record(file, chosen)
    model, run = _name(file)
    return replace(
        entry,
        model=name or model,
        run=name or run,
        differences=(*differences, *entry.differences),
        notes=(*notes, *entry.notes),
        date="" if file.record is None else file.record.date,
    )


def _name(file: ResultFile) -> tuple[str, str]:
    """The row's name, and what identifies the run."""
    if file.record is None:
        folder = str(file.path.resolve().parent)
        return Path(folder).name or folder, folder
    given = str(file.record.content.get("model_name") or file.record.arguments.get("pretrained", ""))
    name = given if given.count("/") <= 1 and not given.startswith(("/", ".")) else Path(given).name
    return name or str(file.record.content["config"].get("model")), str(file.record.path)


def _from_samples(file: ResultFile, benchmark: Benchmark) -> Entry:
    official, exact = evaluate(file.samples, "official"), evaluate(file.samples, "exact")
    rejections = count_rejections(samples_of((*file.cases, *file.absent)))
    own = official if benchmark.refined else exact  # the field's scripts for the original benchmarks round nothing
    differences = _incomplete(benchmark, {exact.n, official.n}, exact.videos)
    if any(SYNTHETIC.fullmatch(sample.video) for sample in file.samples):
        differences.append("synthetic clips")
    if file.videos_left_out:
        differences.append(f"{file.videos_left_out} videos missing")
    notes = _sample_notes(file, official) + (
        [] if rejections is None else [_rejected(rejections.absent, rejections.rates)]
    )
    if file.record is not None and file.annotations is None:
        if file.incomplete:
            differences.append(file.incomplete)
        row = file.record.scores(file.task)
        reported = row.get("mIoU,none" if benchmark.refined or "mIoU_exact,none" not in row else "mIoU_exact,none")
        if is_number(reported) and abs(reported - 100 * own.miou) > AGREE:
            notes.append(f"the results file says mIoU {reported:.2f}, the samples {100 * own.miou:.2f}")
    return Entry(
        model="",
        benchmark=benchmark.key,
        source=str(file.path),
        miou=100 * own.miou,
        recall=_percent(own),
        differences=tuple(differences),
        notes=tuple(notes),
        interval=_interval(own),
        miou_exact=100 * exact.miou,
        recall_exact=_percent(exact),
        n=exact.n,
        videos=exact.videos,
    )


def _sample_notes(file: ResultFile, scores: Scores) -> list[str]:
    notes = []
    if scores.parse_failures:
        notes.append(f"{scores.parse_failures} answers without a span, IoU 0 ({scores.reasons})")
    if scores.missing:
        notes.append(f"{scores.missing} annotations without an answer, IoU 0")
    if file.disagreements:
        notes.append(f"{len(file.disagreements)} stored predictions are not what the answers say, see timelens score")
    return notes


def _rejected(absent: int, rates: Mapping[str, float | None]) -> str:
    right, missed, wrong = (
        "none" if rate is None else f"{100 * rate:.1f} %"
        for rate in (rates[name] for name in ("right", "missed", "wrong"))
    )
    return f"{absent} events not in the video: {right} rejected, {missed} with a span; of the others {wrong} rejected"


def _from_record(file: ResultFile, benchmark: Benchmark) -> Entry:
    if file.record is None:
        raise ValueError(f"{file.path}: there are no samples to score")
    row, count = file.record.scores(file.task), file.record.count(file.task)
    differences = [f"{UNRECORDED}: how many annotations"] if count is None else _incomplete(benchmark, {count}, None)
    if left_out := row.get("missing_videos,none"):
        differences.append(f"{left_out} videos missing")

    where = f"{file.path}: task '{file.task}'"

    def value(name: str) -> float:
        found = row.get(f"{name},none")
        if not is_number(found):
            raise ValueError(f"{where}, field '{name},none': expected a number, got {short(found)}")
        return float(found)

    def reading(miou: str, recall: str) -> tuple[float, dict[float, float]]:
        return value(miou), {t: value(recall.format(t)) for t in THRESHOLDS}

    notes = []
    if absent := row.get("absent_moments,none"):
        found = {name: row.get(f"{name}_rejections,none") for name in ("right", "missed", "wrong")}
        notes.append(_rejected(absent, {name: v / 100 if is_number(v) else None for name, v in found.items()}))
    miou_exact, recall_exact = None, None
    if benchmark.sets:
        miou, recall = reading("set_mIoU", "set_R1@{:g}")
    elif "mIoU,none" in row:
        # The plain columns are the benchmark's own reading; those of the originals were rounded once, and unrounded
        # ones then had a name.
        exact = "_exact" if "mIoU_exact,none" in row or benchmark.refined else ""
        own = "" if benchmark.refined else exact
        miou, recall = reading(f"mIoU{own}", f"R1@{{:g}}{own}")
        miou_exact, recall_exact = reading(f"mIoU{exact}", f"R1@{{:g}}{exact}")
    else:
        miou, recall = value("timelens_mIOU"), {t: value(f"timelens_IOU@{10 * t:.0f}") for t in THRESHOLDS}
        differences.append("scored by lmms-eval's own task: not rounded, other parser (no samples logged)")
    return Entry(
        model="",
        benchmark=benchmark.key,
        source=str(file.record.path),
        miou=miou,
        recall=recall,
        differences=tuple(differences),
        notes=tuple(notes),
        miou_exact=miou_exact,
        recall_exact=recall_exact,
        n=None if count is None or (absent and left_out) else count - (absent or 0),
    )


def _incomplete(benchmark: Benchmark, counts: set[int], videos: int | None) -> list[str]:
    """Why the annotations are not all of the benchmark's; ``counts``: with duplicates, and without."""
    if benchmark.annotations is None:
        return []
    if benchmark.annotations not in counts:
        count = max(counts)
        if count < benchmark.annotations:
            return [f"{count} of {benchmark.annotations} annotations"]
        return [f"{count} annotations instead of {benchmark.annotations}"]
    if videos is not None and videos != benchmark.videos:
        return [f"{videos} videos instead of {benchmark.videos}"]
    return []


def _percent(scores: Scores) -> dict[float, float]:
    return {t: 100 * share for t, share in scores.recall.items()}


def _interval(scores: Scores) -> Interval | None:
    interval = scores.intervals["mIoU"]
    return None if interval is None else Interval(*(100 * end for end in interval))


def _assumed(entry: Entry) -> Entry:
    kept = tuple(d for d in entry.differences if not d.startswith(UNRECORDED))
    if kept == entry.differences:
        return entry
    return replace(entry, differences=kept, notes=("settings taken for the official ones", *entry.notes))


def _named_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Runs of one name told apart by their dates, or by their files."""
    given = Counter((entry.run, entry.benchmark) for entry in entries)
    for (run, key), count in given.items():
        if count > 1:
            raise ValueError(f"{run}: {count} results on {key}; give each run a name of its own (--name)")
    names: dict[str, set[str]] = {}
    for entry in entries:
        names.setdefault(entry.model, set()).add(entry.run)
    dates: dict[str, set[str]] = {}
    for entry in entries:
        dates.setdefault(entry.model, set()).add(entry.date)
    told = []
    for entry in entries:
        runs = names[entry.model]
        by_date = len(dates[entry.model]) == len(runs) and "" not in dates[entry.model]
        mark = entry.date if by_date else entry.run
        told.append(replace(entry, model=f"{entry.model} ({mark})") if len(runs) > 1 else entry)
    return told
