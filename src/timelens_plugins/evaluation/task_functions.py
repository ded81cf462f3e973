"""The functions that the task YAML files name: rows out of annotations, prompt and video of a row, scores of an answer.

Every sample's metric is a dict, so that ``--log_samples`` (which drops the row itself) keeps what a reader needs: the
video (the cluster of standard errors), query, target and predicted span, and whether the answer could be read.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from timelens_plugins.answers import (
    GROUNDING_PROMPT,
    SPAN_SET_PROMPT,
    AnswerStatus,
    ParsedAnswer,
    ask,
    parse_answer,
)
from timelens_plugins.evaluation.specs import TaskSpec
from timelens_plugins.evaluation.subsets import load_subset
from timelens_plugins.file_state import state_of
from timelens_plugins.metrics import Reading, SetScore, reading_iou, score_span_set, success_area
from timelens_plugins.spans import Span

if TYPE_CHECKING:
    from datasets import Dataset

Row: TypeAlias = Mapping[str, Any]
Item: TypeAlias = Mapping[str, Any]

THRESHOLDS = (0.3, 0.5, 0.7)
BENCH_COLUMNS: Mapping[Reading, str] = {"official": "", "exact": "_exact"}
ORIGINAL_COLUMNS: Mapping[Reading, str] = {"exact": "", "official": "_rounded"}
"""What the columns of a reading end in. The plain ones are those that the benchmark's own scripts give."""
SUFFIXES_OF_SIMPLE_MODELS = (".mp4", ".avi", ".mov")  # case matters to them


def process_docs(_: Dataset, spec: TaskSpec) -> Dataset:
    """The rows of a task, in the order of its annotations; takes the place of the stub that the YAML names."""
    from datasets import Dataset

    loaded = load_subset(spec)
    return Dataset.from_list(
        [
            {
                "id": moment.id,
                "subset": moment.source,
                "video_id": moment.video_id,
                "video": moment.video,
                "query": moment.query,
                "question": moment.question,
                "spans": [list(span) for span in moment.spans],
                "duration": moment.duration,
                "video_start": moment.video_start,
                "video_end": moment.video_end,
                "flags": sorted(moment.flags),
                "missing_videos": len(loaded.missing),
                "missing_moments": missing_moments,
                "missing_absent": missing_absent,
                "any_absent": loaded.any_absent,
            }
            for moment, missing_moments, missing_absent in zip(
                loaded.moments, loaded.missing_moments, loaded.missing_absent, strict=True
            )
        ]
    )


class RowsOf(functools.partial[Any]):
    """:func:`process_docs` of a spec, which stands as text in the task's configuration.

    lmms-eval keeps answers (``--use_cache``) by that text, the number of the row and its prompt. So the text tells
    which videos the rows are about, and their files' states: other annotations or videos of a task are others.
    """

    def __repr__(self) -> str:
        spec = self.keywords["spec"]
        try:
            clips = [(m.video, m.video_start, m.video_end) for m in load_subset(spec).moments]
        except (OSError, ValueError):  # nothing to be kept; who loads the rows is told
            return f"rows of {spec}"
        states = {video: state_of(video) for video, _, _ in clips}
        text = repr([(*clip, states[clip[0]]) for clip in clips])
        return f"rows of {spec}, videos {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def doc_to_messages(doc: Row, to_text: Callable[[Row], str] | None = None) -> list[dict[str, Any]]:
    """The conversation as lmms-eval's chat models take it: the video, with its window in seconds, and the prompt.

    Written here, because lmms-eval's own way from :func:`doc_to_visual` guesses the kind of a file from its suffix.
    """
    video = {"type": "video", "url": doc["video"]}
    for key, name in (("video_start", "start_time"), ("video_end", "end_time")):
        if doc[key] is not None:
            video[name] = doc[key]
    return [{"role": "user", "content": [video, {"type": "text", "text": (to_text or doc_to_text)(doc)}]}]


def doc_to_visual(doc: Row) -> list[str]:
    """The video's path, for lmms-eval's models without chat messages.

    Raises:
        ValueError: many of those models would not see this video, or see all of it instead of its window, and answer
            all the same.
    """
    if doc["video_start"] is not None or doc["video_end"] is not None:
        raise ValueError(
            f"{doc['id']}: a window of {doc['video']}, which lmms-eval's models without chat messages do not know; "
            "use the chat form of the model (leave --force_simple out), or cut the video"
        )
    if not doc["video"].endswith(SUFFIXES_OF_SIMPLE_MODELS):
        raise ValueError(
            f"{doc['video']}: lmms-eval's models without chat messages know videos by the endings "
            f"{', '.join(SUFFIXES_OF_SIMPLE_MODELS)}, and many answer without one they do not know; use the chat form "
            "of the model (leave --force_simple out), or remux it: ffmpeg -i IN -c copy OUT.mp4"
        )
    return [doc["video"]]


def doc_to_text(doc: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The official prompt, or the data's own words. What a time encoding adds in front is the model's business."""
    return doc["question"] or GROUNDING_PROMPT.format(query=doc["query"])


def doc_to_set_text(doc: Row, lmms_eval_specific_kwargs: Mapping[str, Any] | None = None) -> str:
    """The prompt that asks for all spans, or the data's own words."""
    return doc["question"] or ask(SPAN_SET_PROMPT, doc["query"])


def doc_to_set_messages(doc: Row) -> list[dict[str, Any]]:
    """As :func:`doc_to_messages`, with the prompt that asks for all spans."""
    return doc_to_messages(doc, doc_to_set_text)


def doc_to_target(doc: Row) -> str:
    """The annotated spans, for the log."""
    return str(doc["spans"])


def process_results(
    doc: Row, results: Sequence[str], columns: Mapping[Reading, str] = BENCH_COLUMNS
) -> dict[str, dict[str, Any]]:
    """Scores of one answer, in percent, under both readings (see :mod:`timelens_plugins.metrics`).

    Answers are read without the clip's duration, under both readings: the protocol does not cut predictions that
    overrun it, and its script does not know what ``40 % of the video`` is in seconds.

    Where the event is not in the video, the row has no such score, and columns count without it; those about rejections
    are there where the task has such rows.
    """
    parsed = parse_answer(results[0], query=doc["query"])
    predicted = parsed.spans[0] if parsed.spans else None
    target = tuple(Span(*span) for span in doc["spans"])
    key = _key(doc)
    shares: dict[str, float] = {}
    for reading, suffix in columns.items():
        iou = reading_iou(predicted, target, reading) if target else 0.0
        shares |= {f"R1@{t}{suffix}": iou >= t for t in THRESHOLDS}
        shares[f"mIoU{suffix}"] = iou
    shares["parse_failures"] = predicted is None
    shares |= {status: parsed.status is status for status in (AnswerStatus.SWAPPED, AnswerStatus.ZERO_LENGTH)}
    scores = {name: key | _score(share, target) for name, share in shares.items()}
    scores["mIoU"] |= _details(doc, None if predicted is None else list(predicted), parsed.status)
    scores["missing_videos"] = {"count": doc["missing_videos"]}
    return scores | _rejections(doc, parsed, key, key)


process_original_results = functools.partial(process_results, columns=ORIGINAL_COLUMNS)


def process_set_results(doc: Row, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Scores of one answer as a set of spans, in percent; see :mod:`timelens_plugins.metrics.span_sets`.

    The names begin with ``set_``: what is computed from a first span and a best window is another figure.
    """
    parsed = parse_answer(results[0], query=doc["query"])
    target = [Span(*span) for span in doc["spans"]]
    score = score_span_set(parsed.spans, target) if target else SetScore(0.0, 0.0, 0.0)
    key = _key(doc) | {"missing": doc["missing_moments"]}
    shares: dict[str, float] = {f"set_R1@{t}": score.iou >= t for t in THRESHOLDS}
    shares |= {"set_mIoU": score.iou, "set_precision": score.precision, "set_recall": score.recall}
    shares |= {"set_success": score.iou, "parse_failures": not parsed.spans}
    shares[AnswerStatus.DENIED] = parsed.status is AnswerStatus.DENIED
    scores = {name: key | _score(share, target) for name, share in shares.items()}
    scores["set_mIoU"] |= _details(doc, [list(span) for span in parsed.spans], parsed.status)
    scores["missing_videos"] = {"count": doc["missing_videos"]}
    return scores | _rejections(doc, parsed, key, _key(doc) | {"missing": doc["missing_absent"]})


def _score(share: float, counts: object) -> dict[str, float]:
    """In percent; none where the column is about other rows."""
    return {"score": 100.0 * share} if counts else {}


def _details(doc: Row, predicted: object, status: AnswerStatus) -> dict[str, Any]:
    return {"pred": predicted, "status": str(status)} | {name: doc[name] for name in ("duration", "subset", "flags")}


def _rejections(doc: Row, parsed: ParsedAnswer, present: Item, absent: Item) -> dict[str, dict[str, Any]]:
    """Columns about answers that say "not in this video", where the task has rows of which that is true.

    Args:
        doc: the row.
        parsed: the answer to it.
        present: what items say of rows with a span.
        absent: what they say of those without one.
    """
    if not doc.get("any_absent"):
        return {}
    denied, here = parsed.status is AnswerStatus.DENIED, bool(doc["spans"])
    missing = absent.get("missing", 0)
    return {
        "absent_moments": {"count": missing + (not here)},
        "right_rejections": {**absent, **_score(denied, not here)},
        "missed_rejections": {**absent, **_score(bool(parsed.spans), not here)},
        "wrong_rejections": {**present, **_score(denied, here)},
    }


def _key(doc: Row) -> dict[str, Any]:
    """What an annotation is told by; most are about whole videos, and have no window."""
    window = {name: doc[name] for name in ("video_start", "video_end") if doc.get(name) is not None}
    return {"video": doc["video_id"], "query": doc["query"], "span": doc["spans"], **window}


def mean_of_all(items: Sequence[Item]) -> float:
    """Mean score over all annotations of the file: those whose videos are missing count 0. NaN of none."""
    scores = _scores(items)
    total = len(scores) + sum(item["missing"] for item in items)
    return math.fsum(scores) / total if total else math.nan


def success_of_all(items: Sequence[Item]) -> float:
    """Area under the success curve, in percent: the share of annotations above an IoU, over 101 of them."""
    ious = [score / 100.0 for score in _scores(items)] + [0.0] * sum(item["missing"] for item in items)
    return 100.0 * success_area(ious) if ious else math.nan


def mean_exact(items: Sequence[Item]) -> float:
    """Mean score over all annotations that have one. NaN of none."""
    scores = _scores(items)
    return math.fsum(scores) / len(scores) if scores else math.nan


def _scores(items: Sequence[Item]) -> list[float]:
    return [item["score"] for item in items if "score" in item]


def mean_official(items: Sequence[Item]) -> float:
    """Mean score with exact duplicates (video, window, query, span) counted once, as results keyed by them are."""
    names = ("video", "video_start", "video_end", "query", "span")
    unique = {str([item.get(name) for name in names]): item for item in items}
    return mean_exact(list(unique.values()))


def count(items: Sequence[Item]) -> int:
    """Sum of what the rows count."""
    return sum(item["count"] for item in items)


def missing_videos(items: Sequence[Item]) -> int:
    """How many annotated videos were absent and left out (0 unless TIMELENS_ALLOW_MISSING=1)."""
    return int(items[0]["count"])


def sum_of_subsets(values: Sequence[float], sizes: Sequence[int], weight_by_size: bool) -> int:
    """Of a group's row: how many videos were absent in all of its subsets."""
    return int(sum(values))
