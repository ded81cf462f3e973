"""The report's charts as pictures: PNG for slides, SVG for papers. Needs matplotlib, from the ``report`` extra."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timelens_plugins.locations import how_to_install
from timelens_plugins.metrics import Reading
from timelens_plugins.metrics.readings import check_reading, round_predictions
from timelens_plugins.report.figures import by_facet, differences, headline
from timelens_plugins.report.payload import nearest_target
from timelens_plugins.report.table import Table, tabulate
from timelens_plugins.report.training import training_curves
from timelens_plugins.results import Run
from timelens_plugins.results.scoring import ious_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write_charts"]

COLOURS = ("#0072b2", "#d55e00", "#007f5f", "#a8488f", "#a37400", "#2f8fc9", "#7a5230", "#5b5ea6")
"""Of the runs, as on the page."""

BINS = 20
SUFFIXES = (".png", ".svg")


def write_charts(
    runs: Sequence[Run],
    folder: str | Path,
    *,
    training: Sequence[str | Path] | Mapping[str, str | Path] = (),
    reading: str = "official",
) -> list[Path]:
    """Write every chart as PNG and SVG: ``miou``, ``differences``, ``by_length``, ``iou``, ``errors``, ``training-N``.

    Args:
        runs, training: as :func:`~timelens_plugins.report.write_report`.
        folder: created where missing; files of these names are replaced.
        reading: which of the two the charts show.

    Returns:
        The files. Charts that have nothing to show are left out.

    Raises:
        ValueError: matplotlib is not installed; an unknown reading; no samples in any run.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(f"static charts need matplotlib: {how_to_install('report')}") from None
    chosen: Reading = check_reading(reading)
    table = tabulate(runs)
    if not table.rows:
        raise ValueError("there are no samples to draw")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    named = training.items() if isinstance(training, Mapping) else [(None, path) for path in training]
    curves = [training_curves(path, name) for name, path in named]
    written = []
    # Text stays text in SVG, and equal data give equal files.
    with rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "timelens",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    ):
        for name, size, draw in _drawings(table, curves, chosen):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            for suffix in SUFFIXES:
                path = folder / f"{name}{suffix}"
                figure.savefig(path, dpi=160, metadata={"Date": None} if suffix == ".svg" else {"Software": None})
                written.append(path)
    return written


Drawing = tuple[str, tuple[float, float], Callable[["Figure"], None]]


def _drawings(table: Table, curves: Sequence[Mapping[str, Any]], reading: Reading) -> Iterator[Drawing]:
    """Name, size in inches, and how to draw it."""
    blocks = headline(table)
    yield (
        "miou",
        (6.5, 0.9 + 0.28 * len(blocks) * (len(table.runs) + 1)),
        lambda f: _headline(f, table, blocks, reading),
    )
    pairs = [pair for pair in differences(table) if pair["shared"]]
    if pairs:
        rows = sum(len(pair["parts"]) for pair in pairs)
        yield "differences", (6.5, 0.9 + 0.3 * rows), lambda f: _differences(f, table, pairs, reading)
    facets = [facet for facet in by_facet(table) if len(facet["edges"]) > 1]
    if facets:
        yield "by_length", (3.6 * len(facets), 3.0), lambda f: _facets(f, table, facets, reading)
    yield "iou", (6.5, 3.0), lambda f: _histogram(f, table, reading)
    yield "errors", (6.4, 3.2 * len(table.runs)), lambda f: _errors(f, table, reading)
    for i, training in enumerate(curves, 1):
        size = (3.4 * min(3, len(training["curves"])), 2.5 * -(-len(training["curves"]) // 3))
        yield f"training-{i}", size, lambda f, training=training: _training(f, training)  # type: ignore[misc]


def _headline(figure: Figure, table: Table, blocks: Sequence[Mapping[str, Any]], reading: Reading) -> None:
    axis = figure.subplots()
    places: list[tuple[float, str]] = []
    y = 0.0
    for block in blocks:
        places.append((y + (len(table.runs) - 1) / 2, block["title"]))
        for i, run in enumerate(table.runs):
            scores = block["runs"][i][reading]
            if scores is not None:
                metric = scores["metrics"]["mIoU"]
                _interval(axis, y, metric["value"], metric["ci"], i, run.name if y == i else None)
            y += 1
        for level in block["chance"]:
            if level["readings"][reading] is not None:
                chance = 100 * level["readings"][reading]["best constant span"]["mIoU"]
                label = "best constant span" if block is blocks[0] else "_nolegend_"
                axis.vlines(chance, y - len(table.runs) - 0.4, y - 0.6, color="0.45", linestyle=":", label=label)
        y += 1
    axis.set_yticks([place for place, _ in places], [name for _, name in places])
    axis.set_ylim(y - 0.5, -0.7)
    axis.set_xlim(0, 100)
    axis.set_xlabel(f"mIoU in % ({reading} reading), 95 % intervals clustered by video")
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")


def _differences(figure: Figure, table: Table, pairs: Sequence[Mapping[str, Any]], reading: Reading) -> None:
    axis = figure.subplots()
    labels: list[str] = []
    for pair in pairs:
        for part in pair["parts"]:
            found = part["readings"][reading]
            y = len(labels)
            labels.append(f"{table.runs[pair['b']].name} − {table.runs[pair['a']].name}, {part['title']}")
            if found is not None:
                metric = found["metrics"]["mIoU"]
                _interval(axis, y, metric["value"], metric["ci"], pair["b"], None)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_xlabel(f"difference of mIoU in points ({reading} reading), 95 % intervals clustered by video")
    axis.grid(axis="x", alpha=0.3)


def _interval(axis: Axes, y: float, value: float, ends: Sequence[float] | None, run: int, label: str | None) -> None:
    colour = COLOURS[run % len(COLOURS)]
    if ends is not None:
        axis.hlines(y, 100 * ends[0], 100 * ends[1], color=colour, linewidth=1.4)
    axis.plot([100 * value], [y], "o", color=colour, markersize=5, label=label)


def _facets(figure: Figure, table: Table, facets: Sequence[Mapping[str, Any]], reading: Reading) -> None:
    axes = figure.subplots(1, len(facets), sharey=True, squeeze=False)[0]
    for axis, facet in zip(axes, facets, strict=True):
        edges = facet["edges"]
        names = [f"{a:.4g}–{b:.4g}" for a, b in pairwise(edges)]
        for i, run in enumerate(table.runs):
            shift = (i - (len(table.runs) - 1) / 2) * 0.12
            for x, found in enumerate(facet["runs"][i][reading]):
                if found is None:
                    continue
                colour = COLOURS[i % len(COLOURS)]
                if found["ci"] is not None:
                    axis.vlines(x + shift, 100 * found["ci"][0], 100 * found["ci"][1], color=colour)
                axis.plot([x + shift], [100 * found["miou"]], "o", color=colour, markersize=4)
            axis.plot([], [], "o", color=COLOURS[i % len(COLOURS)], label=run.name)
        axis.set_xticks(range(len(names)), names, fontsize=7)
        axis.set_xlabel(f"{facet['title']} ({facet['unit']})")
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
    axes[0].set_ylabel(f"mIoU in % ({reading})")
    axes[0].legend(fontsize=8)


def _histogram(figure: Figure, table: Table, reading: Reading) -> None:
    axis = figure.subplots()
    count = len(table.runs)
    for i, run in enumerate(table.runs):
        values = [v for of_case in ious_of(run.cases, reading) for v in of_case]
        parsed = [sample.predicted is not None for case in run.cases for sample in case.samples]
        positive = np.array([v for v, p in zip(values, parsed, strict=True) if p and v > 0])
        failed = sum(not p for p in parsed)
        bins = np.minimum((positive * BINS + 1e-9).astype(int), BINS - 1)
        heights = np.array([failed, len(values) - failed - len(positive), *np.bincount(bins, minlength=BINS)])
        left = np.array([-4.5, -2.25, *range(BINS)]) + i / count
        share = 100 * heights / max(1, len(values))
        axis.bar(left, share, 0.95 / count, align="edge", color=COLOURS[i % len(COLOURS)], label=run.name)
    axis.set_xticks(
        [-4, -1.75, *range(0, BINS + 1, 4)], ["no\nspan", "0", *(f"{k / BINS:.1f}" for k in range(0, 21, 4))]
    )
    axis.set_xlabel(f"IoU ({reading} reading)")
    axis.set_ylabel("% of the run's answers")
    axis.legend(fontsize=8)


def _errors(figure: Figure, table: Table, reading: Reading) -> None:
    axes = figure.subplots(len(table.runs), 2, squeeze=False)
    found = [_boundary_errors(run, reading) for run in table.runs]
    sizes = np.abs(np.concatenate([np.concatenate([e, _centre_and_length(e)]) for e in found])).ravel()
    reach = max(1.0, float(np.quantile(sizes, 0.98)) * 1.05) if sizes.size else 1.0
    for i, (row, errors) in enumerate(zip(axes, found, strict=True)):
        kinds = (("start", "end", errors), ("centre", "length", _centre_and_length(errors)))
        for axis, (x_name, y_name, points) in zip(row, kinds, strict=True):
            beyond = int((np.abs(points) > reach).any(axis=1).sum())
            axis.axhline(0, color="0.6", linewidth=0.8)
            axis.axvline(0, color="0.6", linewidth=0.8)
            shown = np.clip(points, -reach, reach)
            axis.plot(shown[:, 0], shown[:, 1], ".", color=COLOURS[i % len(COLOURS)], alpha=0.4, markersize=5)
            axis.set(xlim=(-reach * 1.03, reach * 1.03), ylim=(-reach * 1.03, reach * 1.03), aspect="equal")
            axis.set(xlabel=f"{x_name} error (s)", ylabel=f"{y_name} error (s)")
            note = f", {beyond} at the edge lie beyond" if beyond else ""
            axis.set_title(f"{table.runs[i].name}: {len(points)} answers{note}", fontsize=8)


def _boundary_errors(run: Run, reading: Reading) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Start and end of every parsed answer minus those of its target, seconds, shape ``(n, 2)``."""
    rows = []
    for case in run.cases:
        for sample in case.samples:
            if sample.predicted is not None:
                target = sample.target[nearest_target(sample)]
                rows.append((sample.predicted.start, sample.predicted.end, target.start, target.end))
    values = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return np.asarray(round_predictions(values[:, :2], reading) - values[:, 2:])


def _centre_and_length(errors: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.stack([errors.mean(axis=1), errors[:, 1] - errors[:, 0]], axis=1)


def _training(figure: Figure, training: Mapping[str, Any]) -> None:
    curves = training["curves"]
    columns = min(3, len(curves))
    axes = figure.subplots(-(-len(curves) // columns), columns, squeeze=False).ravel()
    decision = training["plateau"] and training["plateau"]["decision"]
    for axis, curve in zip(axes, curves, strict=False):
        axis.plot(curve["steps"], curve["values"], color=COLOURS[0], alpha=0.3 if curve["smooth"] else 1.0, linewidth=1)
        if curve["smooth"]:
            axis.plot(curve["steps"], curve["smooth"], color=COLOURS[0], linewidth=1.6)
        if decision:
            axis.axvspan(decision["start_step"], decision["step"], color=COLOURS[2], alpha=0.12)
            axis.axvline(decision["step"], color=COLOURS[2], linewidth=1.2)
        axis.set_title(curve["title"] + (f" ({curve['unit']})" if curve["unit"] else ""), fontsize=8)
        axis.set_xlabel("optimizer step", fontsize=8)
        axis.grid(alpha=0.3)
    for axis in axes[len(curves) :]:
        axis.set_visible(False)
    figure.suptitle(training["name"], fontsize=9)
