"""A board as aligned text, Markdown, CSV or JSON. Figures are percentages."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from timelens_plugins.leaderboard.board import Board, Ranked, Section
from timelens_plugins.leaderboard.published import Entry
from timelens_plugins.metrics import THRESHOLDS

__all__ = ["FORMATS", "board_tables", "render"]

OURS = "▸"
ABSENT = "–"
HEADER = ("#", "model", *(f"R1@{t:g}" for t in THRESHOLDS), "mIoU", "95 % interval", "unrounded mIoU", "source")
LEFT = (1, len(HEADER) - 1)  # text columns; the others are figures
LEGEND = (
    f"{OURS} given here; published rows keep their paper's order, though its models ran under different rules; "
    "interval: of the mIoU, clustered by video, where samples were logged; unrounded: the same predictions without "
    "rounding to whole seconds, not comparable with published figures."
)


def render(board: Board, format: str) -> str:  # noqa: A002 - the option's name
    """The board in one of ``FORMATS``.

    Raises:
        ValueError: an unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    return FORMATS[format](board)


def board_tables(board: Board, names: Sequence[str]) -> dict[str, Any]:
    """The board as JSON types for a page: cells as text; ``run`` is the place in ``names`` of a run that was given."""
    return {
        "protocol": board.protocol,
        "header": list(HEADER),
        "left": list(LEFT),
        "legend": LEGEND,
        "sections": [
            {
                "title": section.title,
                "blocks": [
                    {
                        "title": title,
                        "rows": [
                            {"cells": _cells(row), "run": names.index(row.entry.run) if row.entry.ours else None}
                            for row in rows
                        ],
                        "notes": _notes(rows),
                    }
                    for title, rows in section.blocks
                ],
            }
            for section in board.sections
        ],
    }


def _text(board: Board) -> str:
    lines = [f"Official protocol: {board.protocol}."]
    tables = {
        (section.key, title): [_cells(row) for row in rows]
        for section in board.sections
        for title, rows in section.blocks
    }
    widths = [
        max(map(len, column)) for column in zip(HEADER, *(r for rows in tables.values() for r in rows), strict=True)
    ]
    for section in board.sections:
        lines += ["", section.title]
        for title, rows in section.blocks:
            lines += ["", f"  {title}", _aligned(HEADER, widths)]
            lines += [_aligned(cells, widths) for cells in tables[section.key, title]]
            lines += [f"  {name}: {text}" for name, text in _notes(rows)]
    return "\n".join([*lines, "", LEGEND])


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if i in LEFT else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return ("  " + "  ".join(padded)).rstrip()


def _cells(row: Ranked) -> list[str]:
    entry = row.entry
    interval = entry.interval
    return [
        f"{OURS if entry.ours else ''} {row.rank or ''}".strip(),
        entry.model,
        *(_figure(entry.recall.get(t)) for t in THRESHOLDS),
        _figure(entry.miou),
        "" if interval is None else f"{_figure(interval.low)} – {_figure(interval.high)}",
        "" if entry.miou_exact is None else _figure(entry.miou_exact),
        _source(entry),
    ]


def _source(entry: Entry) -> str:
    if entry.ours:
        return _origin(entry)
    return ": ".join(filter(None, (entry.source, "; ".join(filter(None, (*entry.differences, entry.rules))))))


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"


def _notes(rows: Sequence[Ranked]) -> list[tuple[str, str]]:
    """Why given runs stand apart, what else to know of them, and their files."""
    return [(entry.model, "; ".join(_remarks(entry))) for entry in (row.entry for row in rows) if entry.ours]


def _remarks(entry: Entry) -> list[str]:
    apart = [f"not comparable: {', '.join(entry.differences)}"] if entry.differences else []
    return [*apart, *entry.notes, f"from {entry.source}"]


def _markdown(board: Board) -> str:
    lines = [f"Official protocol: {board.protocol}."]
    for section in board.sections:
        lines += ["", f"### {section.title}"]
        for title, rows in section.blocks:
            lines += ["", f"*{title}*", "", _markdown_row(HEADER)]
            lines.append("|" + "|".join("---" if i in LEFT else "---:" for i in range(len(HEADER))) + "|")
            for row in rows:
                cells = [cell.replace("|", "\\|") for cell in _cells(row)]
                if row.entry.ours:
                    cells[1] = f"**{cells[1]}**"
                lines.append(_markdown_row(cells))
            if notes := _notes(rows):
                lines += ["", *(f"- {name}: {text}" for name, text in notes)]
    return "\n".join([*lines, "", LEGEND])


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv(board: Board) -> str:
    records = [record for section in board.sections for record in _records(section)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(records[0]), lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: "; ".join(v) if isinstance(v, list) else v for k, v in record.items()})
    return out.getvalue().rstrip("\n")


def _json(board: Board) -> str:
    content = {
        "protocol": board.protocol,
        "sections": [
            {"benchmark": section.key, "title": section.title, "rows": _records(section)} for section in board.sections
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _records(section: Section) -> list[dict[str, Any]]:
    return [_record(section.key, row) for _, rows in section.blocks for row in rows]


def _record(benchmark: str, row: Ranked) -> dict[str, Any]:
    entry = row.entry
    low, high = (None, None) if entry.interval is None else entry.interval[:2]
    return {
        "benchmark": benchmark,
        "rank": row.rank,
        "model": entry.model,
        "ours": entry.ours,
        "comparable": not entry.differences,
        **_named(entry.recall, ""),
        "mIoU": entry.miou,
        "mIoU_low": low,
        "mIoU_high": high,
        **_named(entry.recall_exact or {}, "_exact"),
        "mIoU_exact": entry.miou_exact,
        "annotations": entry.n,
        "videos": entry.videos,
        "source": entry.source,
        "scored_from": _origin(entry),
        "date": entry.date,
        "rules": entry.rules,
        "differences": list(entry.differences),
        "notes": list(entry.notes),
    }


def _named(recall: Any, suffix: str) -> dict[str, float | None]:
    return {f"R1@{t:g}{suffix}": recall.get(t) for t in THRESHOLDS}


def _origin(entry: Entry) -> str:
    if not entry.ours:
        return "published"
    return "samples" if entry.videos is not None else "results.json"


FORMATS: dict[str, Callable[[Board], str]] = {"table": _text, "markdown": _markdown, "csv": _csv, "json": _json}
