"""The functions that the task YAML files name: rows out of annotations, prompt and video of a row, scores of an answer.

Every sample's metric is a dict, so that ``--log_samples`` (which drops the row itself) keeps what a reader needs: the
video (the cluster of standard errors), query, target and predicted span, and whether the answer could be read.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from timelens_plugins.answers import GROUNDING_PROMPT, parse_answer
from timelens_plugins.evaluation.subsets import load_subset
from timelens_plugins.metrics import READINGS, reading_iou
from timelens_plugins.spans import Span

if TYPE_CHECKING:
    from datasets import Dataset

Row: TypeAlias = Mapping[str, Any]
Item: TypeAlias = Mapping[str, Any]

THRESHOLDS = (0.3, 0.5, 0.7)


def _process_docs(_: Dataset, task: str) -> Dataset:
    """The rows of a task, in the order of its annotations; takes the place of the stub that the YAML names."""
    from datasets import Dataset

    loaded = load_subset(task)
    return Dataset.from_list(
        [
            {
                "id": moment.id,
                "subset": moment.source,
                "video_id": moment.video_id,
                "video": moment.video,
                "query": moment.query,
                "spans": [list(span) for span in moment.spans],
                "duration": moment.duration,
                "video_start": moment.video_start,
                "video_end": moment.video_end,
                "flags": sorted(moment.flags),
                "missing_videos": len(loaded.missing),
            }
            for moment in loaded.moments
        ]
    )


process_timelens_bench_charades = functools.partial(_process_docs, task="timelens_bench_charades")
process_timelens_bench_activitynet = functools.partial(_process_docs, task="timelens_bench_activitynet")
process_timelens_bench_qvhighlights = functools.partial(_process_docs, task="timelens_bench_qvhighlights")
process_timelens_original_charades_sta = functools.partial(_process_docs, task="timelens_original_charades_sta")
process_timelens_original_activitynet_captions = functools.partial(
    _process_docs, task="timelens_original_activitynet_captions"
)
process_timelens_original_qvhighlights = functools.partial(_process_docs, task="timelens_original_qvhighlights")


def doc_to_visual(doc: Row) -> list[str | dict[str, Any]]:
    """The video's path; with its window in seconds where the moment is one of a longer video."""
    if doc["video_start"] is None and doc["video_end"] is None:
        return [doc["video"]]
    return [{"type": "video", "url": doc["video"], "video_start": doc["video_start"], "video_end": doc["video_end"]}]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The official prompt. What a time encoding adds in front of it is the model's business, not the task's."""
    return GROUNDING_PROMPT.format(query=doc["query"])


def doc_to_target(doc: Row) -> str:
    """The annotated spans, for the log."""
    return str(doc["spans"])


def process_results(doc: Row, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Scores of one answer, in percent, under both readings (see :mod:`timelens_plugins.metrics`).

    Answers are read without the clip's duration: the protocol does not cut predictions that overrun it.
    """
    parsed = parse_answer(results[0], query=doc["query"])
    predicted = parsed.spans[0] if parsed.spans else None
    target = tuple(Span(*span) for span in doc["spans"])
    key = {"video": doc["video_id"], "query": doc["query"], "span": doc["spans"]}
    scores: dict[str, dict[str, Any]] = {}
    for reading in READINGS:
        suffix = "" if reading == "official" else f"_{reading}"
        iou = reading_iou(predicted, target, reading)
        scores |= {f"R1@{t}{suffix}": key | {"score": 100.0 * (iou >= t)} for t in THRESHOLDS}
        scores[f"mIoU{suffix}"] = key | {"score": 100.0 * iou}
    scores["mIoU"] |= {
        "pred": None if predicted is None else list(predicted),
        "status": str(parsed.status),
        "duration": doc["duration"],
        "subset": doc["subset"],
        "flags": doc["flags"],
    }
    scores["parse_failures"] = key | {"score": 0.0 if predicted is not None else 100.0}
    scores["missing_videos"] = {"count": doc["missing_videos"]}
    return scores


def mean_exact(items: Sequence[Item]) -> float:
    """Mean score over all annotations."""
    return math.fsum(item["score"] for item in items) / len(items)


def mean_official(items: Sequence[Item]) -> float:
    """Mean score with exact duplicates (video, query, span) counted once, as results keyed by them are."""
    unique = {(item["video"], item["query"], str(item["span"])): item for item in items}
    return mean_exact(list(unique.values()))


def missing_videos(items: Sequence[Item]) -> int:
    """How many annotated videos were absent and left out (0 unless TIMELENS_ALLOW_MISSING=1)."""
    return int(items[0]["count"])
