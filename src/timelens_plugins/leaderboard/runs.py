"""Results on disk as entries of a board: runs of lmms-eval (results.json with or without samples), TimeLens's files.

Where the samples of a run were logged, its scores are computed from them; elsewhere they are taken from results.json.
Nothing is ranked by what cannot be seen: every reason why figures are not comparable becomes a difference of the entry.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from timelens_plugins.leaderboard.protocol import (
    UNRECORDED,
    model_arguments,
    protocol_differences,
    protocol_notes,
)
from timelens_plugins.leaderboard.published import Benchmark, Entry, Published
from timelens_plugins.metrics import THRESHOLDS, Interval, ResultFile, Scores, evaluate, load_results

__all__ = ["Runs", "read_runs"]

RESULTS = "results.json"  # <date>_results.json
SAMPLES = re.compile(r"(?P<date>.*_|)samples_(?P<task>\w+)\.jsonl")  # beside it
SYNTHETIC = re.compile(r"(heldout|train|pretrain)-(charades|activitynet|qvhighlights)-\d+-\d{5}")
AGREE = 0.005  # percentage points between samples and results.json that rounding explains


@dataclass(frozen=True, slots=True)
class Runs:
    """What was read. ``passed_over``: tasks of other benchmarks, as ``file: task``."""

    entries: tuple[Entry, ...]
    passed_over: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One task of a run: its results file, its samples, or both."""

    label: str
    results: Path | None
    task: str
    samples: Path | None


def read_runs(
    inputs: Iterable[tuple[str, Path]],
    published: Published,
    *,
    benchmark: str | None = None,
    assume_protocol: bool = False,
) -> Runs:
    """Read results of lmms-eval and TimeLens.

    Args:
        inputs: pairs of a label and a path. A path is a folder (searched for all of the following), an lmms-eval
            results.json, its samples, or a TimeLens result file. A label names the row; inputs of one label are one
            run. With ``""`` the model's name is taken, or the folder's for TimeLens files.
        published: the benchmarks and the protocol to compare with.
        benchmark: the key of the benchmark that result files belong to which do not say it themselves.
        assume_protocol: take settings that are not recorded for the official ones, with a note.

    Raises:
        ValueError: nothing found, an unreadable file, a result file of an unknown benchmark, one run with two results
            on the same benchmark.
        OSError: a file cannot be read.
    """
    parts: dict[tuple[Path | None, Path | None, str], _Part] = {}
    passed_over: list[str] = []
    contents: dict[Path, dict[str, Any]] = {}
    for label, given in inputs:
        for part in _find(label, given, published, contents, passed_over):
            resolved = [path and path.resolve() for path in (part.results, part.samples)]
            parts.setdefault((resolved[0], resolved[1], part.task), part)
    entries = [_entry(part, contents, published, benchmark) for part in parts.values()]
    if assume_protocol:
        entries = [_assumed(entry) for entry in entries]
    return Runs(tuple(_named_apart(entries)), tuple(dict.fromkeys(passed_over)))


def _find(
    label: str, path: Path, published: Published, contents: dict[Path, dict[str, Any]], passed_over: list[str]
) -> list[_Part]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if not path.is_dir():
        return _parts_of(label, path, published, contents, passed_over)
    names = {f"{key}{suffix}" for key in published.benchmarks for suffix in (".json", ".jsonl")}
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and (file.name.endswith(RESULTS) or SAMPLES.fullmatch(file.name) or file.name in names)
    )
    if not files:
        raise ValueError(
            f"{path}: holds no *{RESULTS} and no *samples_*.jsonl of lmms-eval, and no TimeLens result file "
            f"({', '.join(published.benchmarks)}; .json or .jsonl)"
        )
    return [part for file in files for part in _parts_of(label, file, published, contents, passed_over)]


def _parts_of(
    label: str, file: Path, published: Published, contents: dict[Path, dict[str, Any]], passed_over: list[str]
) -> list[_Part]:
    if logged := SAMPLES.fullmatch(file.name):
        task = logged["task"]
        if published.of_task(task) is None:
            passed_over.append(f"{file}: {task}")
            return []
        results = file.with_name(logged["date"] + RESULTS)
        return [_Part(label, results if _is_results(results, contents) else None, task, file)]
    if not file.name.endswith(RESULTS) or not _is_results(file, contents):
        return [_Part(label, None, "", file)]
    content = contents[file]
    parts = []
    for task in content["results"]:
        samples = file.with_name(f"{file.name.removesuffix(RESULTS)}samples_{task}.jsonl")
        if published.of_task(task) is not None:
            parts.append(_Part(label, file, task, samples if samples.is_file() else None))
        elif task not in (content.get("groups") or {}):
            passed_over.append(f"{file}: {task}")
    return parts


def _is_results(path: Path, contents: dict[Path, dict[str, Any]]) -> bool:
    """Whether lmms-eval wrote the file; its content is then in ``contents``."""
    if path in contents:
        return True
    if not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict) or "results" not in content:
        return False
    for name in ("results", "config", "configs"):
        if not isinstance(content.get(name), dict):
            raise ValueError(f"{path}: field '{name}' is missing or no object, so this is no results file of lmms-eval")
    contents[path] = content
    return True


def _entry(part: _Part, contents: Mapping[Path, dict[str, Any]], published: Published, benchmark: str | None) -> Entry:
    content = None if part.results is None else contents[part.results]
    chosen = _benchmark(part, published, benchmark)
    differences, notes = [], list[str]()
    if not chosen.refined:
        differences.append("original annotations, not TimeLens-Bench")
    if content is None:
        differences.append(f"{UNRECORDED}" + ("" if part.task else " in a TimeLens result file"))
    else:
        task = content["configs"].get(part.task) or {}
        differences += protocol_differences(content["config"], task, published.protocol)
        notes += protocol_notes(content["config"])
    entry = _from_samples(part, content, chosen) if part.samples else _from_results(part, content, chosen)
    name, run = _name(part, content)
    return replace(
        entry,
        model=name,
        run=run,
        differences=(*differences, *entry.differences),
        notes=(*notes, *entry.notes),
        date=str((content or {}).get("date", "")),
    )


def _benchmark(part: _Part, published: Published, benchmark: str | None) -> Benchmark:
    if part.task:
        found = published.of_task(part.task)
        assert found is not None  # parts of other tasks are passed over
        return found
    assert part.samples is not None
    key = part.samples.stem.replace("_", "-")
    if key not in published.benchmarks:
        if benchmark is None:
            raise ValueError(
                f"{part.samples}: neither its name nor its content says which benchmark it belongs to; name it "
                f"{next(iter(published.benchmarks))}.json and the like, or give --benchmark"
            )
        key = benchmark
    return published.benchmarks[key]


def _name(part: _Part, content: Mapping[str, Any] | None) -> tuple[str, str]:
    """The row's name, and what identifies the run."""
    if part.label:
        return part.label, part.label
    if content is None:
        assert part.samples is not None
        folder = str(part.samples.resolve().parent)
        return Path(folder).name or folder, folder
    given = str(content.get("model_name") or model_arguments(content["config"].get("model_args")).get("pretrained", ""))
    name = given if given.count("/") <= 1 and not given.startswith(("/", ".")) else Path(given).name
    return name or str(content["config"].get("model")), str(part.results)


def _from_samples(part: _Part, content: Mapping[str, Any] | None, benchmark: Benchmark) -> Entry:
    assert part.samples is not None
    file = load_results(part.samples)
    official, exact = evaluate(file.samples, "official"), evaluate(file.samples, "exact")
    differences = _incomplete(benchmark, {exact.n, official.n}, exact.videos)
    if any(SYNTHETIC.fullmatch(sample.video) for sample in file.samples):
        differences.append("synthetic clips")
    if file.videos_left_out:
        differences.append(f"{file.videos_left_out} videos missing")
    notes = _sample_notes(file, official)
    if content is not None:
        logged = (content.get("n-samples") or {}).get(part.task, {}).get("effective", exact.n)
        if logged != exact.n:
            differences.append(f"the samples file holds {exact.n} rows of the {logged} that were evaluated")
        reported = content["results"][part.task].get("mIoU,none")
        if isinstance(reported, int | float) and abs(reported - 100 * official.miou) > AGREE:
            notes.append(f"the results file says mIoU {reported:.2f}, the samples {100 * official.miou:.2f}")
    return Entry(
        model="",
        benchmark=benchmark.key,
        source=str(part.samples),
        miou=100 * official.miou,
        recall=_percent(official),
        differences=tuple(differences),
        notes=tuple(notes),
        interval=_interval(official),
        miou_exact=100 * exact.miou,
        recall_exact=_percent(exact),
        n=exact.n,
        videos=exact.videos,
    )


def _sample_notes(file: ResultFile, scores: Scores) -> list[str]:
    notes = []
    if scores.parse_failures:
        notes.append(f"{scores.parse_failures} answers without a span, IoU 0")
    if empty := sum(sample.answer == "" for sample in file.samples):
        notes.append(f"{empty} of them empty")
    if scores.missing:
        notes.append(f"{scores.missing} annotations without an answer, IoU 0")
    if file.disagreements:
        notes.append(f"{len(file.disagreements)} stored predictions are not what the answers say, see timelens score")
    return notes


def _from_results(part: _Part, content: Mapping[str, Any] | None, benchmark: Benchmark) -> Entry:
    assert part.results is not None
    assert content is not None
    row = content["results"][part.task]
    count = (content.get("n-samples") or {}).get(part.task, {}).get("effective")
    differences = [f"{UNRECORDED}: how many annotations"] if count is None else _incomplete(benchmark, {count}, None)
    if left_out := row.get("missing_videos,none"):
        differences.append(f"{left_out} videos missing")

    def value(name: str) -> float:
        found = row.get(f"{name},none")
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise ValueError(
                f"{part.results}: task '{part.task}', field '{name},none': expected a number, got {found!r}"
            )
        return float(found)

    if "mIoU,none" in row:
        return Entry(
            model="",
            benchmark=benchmark.key,
            source=str(part.results),
            miou=value("mIoU"),
            recall={t: value(f"R1@{t:g}") for t in THRESHOLDS},
            differences=tuple(differences),
            miou_exact=value("mIoU_exact"),
            recall_exact={t: value(f"R1@{t:g}_exact") for t in THRESHOLDS},
            n=count,
        )
    recall = {t: value(f"timelens_IOU@{10 * t:.0f}") for t in THRESHOLDS}
    return Entry(
        model="",
        benchmark=benchmark.key,
        source=str(part.results),
        miou=value("timelens_mIOU"),
        recall=recall,
        differences=(*differences, "scored by lmms-eval's own task: not rounded, other parser (no samples logged)"),
        n=count,
    )


def _incomplete(benchmark: Benchmark, counts: set[int], videos: int | None) -> list[str]:
    """Why the annotations are not all of the benchmark's; ``counts``: with duplicates, and without."""
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
            raise ValueError(f"{run}: {count} results on {key}; give each run a label of its own (LABEL=PATH)")
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
