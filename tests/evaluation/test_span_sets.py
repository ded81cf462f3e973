"""Benchmarks whose answers are sets of spans: each in its own schema, from real clips, with scores computed by hand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scripted import answered

from timelens_plugins.leaderboard import build_board, load_published, read_entries
from timelens_plugins.locations import shipped_folder
from timelens_plugins.metrics import SUCCESS_THRESHOLDS, score_span_set, success_area, success_curve
from timelens_plugins.results import find_sources

PROMPT = "JSON array of [start, end] pairs in seconds"


def test_scores_against_a_second_implementation() -> None:
    """Covered time by counting quarters of a second, on 10,000 random pairs of sets."""
    rng = np.random.default_rng(0)
    ious = []
    for _ in range(10_000):
        covered, sets = [], []
        for _ in range(2):
            starts = rng.integers(0, 100, rng.integers(1, 6))
            spans = np.stack([starts, starts + rng.integers(1, 40, len(starts))], axis=1)
            mask = np.zeros(200, dtype=bool)
            for start, end in spans:
                mask[start:end] = True
            covered.append(mask)
            sets.append([tuple(pair) for pair in (spans / 4).tolist()])
        both, either = (covered[0] & covered[1]).sum(), (covered[0] | covered[1]).sum()
        score = score_span_set(*sets)
        expected = (both / either, both / covered[0].sum(), both / covered[1].sum())
        assert (score.iou, score.precision, score.recall) == pytest.approx(expected, abs=1e-12)
        ious.append(score.iou)
    by_hand = [np.mean([iou > threshold for iou in ious]) for threshold in (i / 100 for i in range(101))]
    assert success_curve(ious).tolist() == pytest.approx(by_hand, abs=1e-12)
    trapezoids = [(left + right) / 200 for left, right in pairwise(by_hand)]
    assert success_area(ious) == pytest.approx(sum(trapezoids), abs=1e-12)
    assert SUCCESS_THRESHOLDS.tolist() == [float(f"{i / 100:.2f}") for i in range(101)]


def test_no_prediction_scores_nothing_and_no_target_is_an_error() -> None:
    score = score_span_set([], [(1, 2)])
    assert (score.iou, score.precision, score.recall) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least one span"):
        score_span_set([(1, 2)], [])
    with pytest.raises(ValueError, match="at least one value"):
        success_curve([])


def vue_tr(
    folder: Path, name: str, rows: list[tuple[str, str, list[list[float]]]], sound: tuple[str, ...] = ()
) -> None:
    content = [
        {
            "query_id": i,
            "video_id": video,
            "query": query,
            "duration": 35.0 if video == "OHOFG" else 31.0,
            "gt": spans,
            "task": "temporal retrieval",
            "duration_category": "short",
            "query_format": "sentence",
            "query_modality": "audio" if query in sound else "vision",
        }
        for i, (video, query, spans) in enumerate(rows)
    ]
    (folder / name).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each set, in the set's own schema, around the two real clips."""
    root = tmp_path_factory.mktemp("sets")
    clips = real_data / "charades"
    for name in ("vue_tr", "vue_tr_v2", "ego4d_nlq"):
        (root / name / "videos").mkdir(parents=True)
    (root / "momentseeker" / "videos" / "movies").mkdir(parents=True)
    (root / "bench" / "videos" / "charades").mkdir(parents=True)
    for clip in ("3MSZA.mp4", "OHOFG.mp4"):
        shutil.copy(clips / clip, root / "vue_tr" / "videos")
        shutil.copy(clips / clip, root / "ego4d_nlq" / "videos")
        shutil.copy(clips / clip, root / "bench" / "videos" / "charades")
    shutil.copy(clips / "3MSZA.mp4", root / "vue_tr_v2" / "videos")
    shutil.copy(clips / "OHOFG.mp4", root / "momentseeker" / "videos" / "movies")
    vue_tr(
        root / "vue_tr",
        "VUE-TR_ground_truth.json",
        [
            ("3MSZA", "two of four", [[2, 6], [10, 14]]),
            ("OHOFG", "one span", [[1.0, 7.5]]),
            ("3MSZA", "unreadable", [[24, 30]]),
            ("OHOFG", "denied", [[0, 10]]),
            ("OHOFG", "heard", [[0, 10]]),
        ],
        sound=("heard",),
    )
    vue_tr(
        root / "vue_tr_v2",
        "VUE-TRv2_ground_truth.json",
        [("3MSZA", "one span", [[1.0, 7.5]]), ("absent", "one span", [[1.0, 7.5]])],
    )
    rows = [
        {
            "src_video_path": f"movies/{video}.mp4",
            "qry_text": query,
            "answering_time_interval": spans,
            "task": "caption",
        }
        for video, query, spans in (
            ("OHOFG", "two of four", [[10, 14], [4, 8]]),
            ("OHOFG", "denied", []),
            ("OHOFG", "one span", []),
            ("absent", "denied", []),
        )
    ]
    (root / "momentseeker" / "t2v.json").write_text(json.dumps(rows))
    nlq = [
        {
            "video_id": "3MSZA",
            "query_id": "a_0",
            "query": "query text: one span",
            "duration": 31.0,
            "timestamps": [[1.0, 14.0]],
            "query_type": "Objects: Where is object X?",
        },
        {
            "video_id": "OHOFG",
            "query_id": "a_1",
            "query": "denied",
            "duration": 35.0,
            "timestamps": [[1.0, 14.0]],
            "query_type": "Place",
        },
    ]
    (root / "ego4d_nlq" / "ego4d_nlq_val_v2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in nlq))
    bench = {"3MSZA": {"duration": 31.0, "spans": [[4, 14], [1, 8]], "queries": ["two of four", "one span"]}}
    (root / "bench" / "charades-timelens.json").write_text(json.dumps(bench))
    return root


ANSWERS = {
    "two of four": "```json\n[[4, 8], [10.0, 14.0]]\n```",
    "one span": "The event happens in 1.0 - 7.5 seconds.",
    "unreadable": "I cannot tell.",
    "denied": "[]",
}


@pytest.fixture(scope="module")
def evaluated(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All tasks under lmms-eval, answered from :data:`ANSWERS`."""
    tasks = ["vue_tr", "vue_tr_v2", "momentseeker", "ego4d_nlq", "bench_sets_charades"]
    folders = {f"TIMELENS_{name.upper()}_DIR": root / name for name in (*tasks[:4], "bench")}
    results, asked = answered(
        [f"timelens_{t}" for t in tasks], ANSWERS, tmp_path_factory.mktemp("cache"), **folders, TIMELENS_ALLOW_MISSING=1
    )
    for video, text in asked:
        assert Path(video).is_file()
        assert PROMPT in text
        assert "query text" not in text
    return results


def values(evaluated: dict[str, Any], task: str) -> dict[str, float]:
    row = evaluated["results"][f"timelens_{task}"]
    return {name.split(",")[0]: value for name, value in row.items() if name.endswith(",none") and "stderr" not in name}


def test_vue_tr_by_hand(evaluated: dict[str, Any]) -> None:
    # [4, 8] + [10, 14] against [2, 6] + [10, 14]: 6 s of 10; each side covers 8 s. Then a hit, and twice nothing.
    assert values(evaluated, "vue_tr") == pytest.approx(
        {
            "set_R1@0.3": 50.0,
            "set_R1@0.5": 50.0,
            "set_R1@0.7": 25.0,
            "set_mIoU": 100 * (0.6 + 1) / 4,
            "set_precision": 100 * (0.75 + 1) / 4,
            "set_recall": 100 * (0.75 + 1) / 4,
            "set_success": (59.5 + 99.5) / 4,  # 60 thresholds below 0.6, 100 below 1, less half of the first's width
            "parse_failures": 50.0,
            "denied": 25.0,
            "missing_videos": 0,
        }
    )


def test_a_missing_video_counts_zero(evaluated: dict[str, Any]) -> None:
    found = values(evaluated, "vue_tr_v2")
    # 6.5 s of 6.5, and one annotation without its video.
    assert (found["set_mIoU"], found["set_recall"], found["missing_videos"]) == (50.0, 50.0, 1)
    assert found["set_success"] == pytest.approx(99.5 / 2)


def test_momentseeker_ego4d_and_the_bench_by_hand(evaluated: dict[str, Any]) -> None:
    # One row with spans, and three without, of which one is rejected, one not, and one has no video.
    assert values(evaluated, "momentseeker") == pytest.approx(
        dict.fromkeys(("set_R1@0.3", "set_R1@0.5", "set_R1@0.7", "set_mIoU", "set_precision", "set_recall"), 100.0)
        | {"set_success": 99.5, "parse_failures": 0.0, "denied": 0.0, "missing_videos": 1}
        | {"absent_moments": 3, "right_rejections": 100 / 3, "missed_rejections": 100 / 3, "wrong_rejections": 0.0}
    )
    nlq = values(evaluated, "ego4d_nlq")  # 6.5 s of 13, and a denial
    assert (nlq["set_mIoU"], nlq["set_precision"], nlq["set_R1@0.5"], nlq["denied"]) == (25.0, 50.0, 50.0, 50.0)
    bench = values(evaluated, "bench_sets_charades")  # 8 of 10 s, 6.5 of 7 s: nothing is rounded, both spans count
    assert bench["set_mIoU"] == pytest.approx(100 * (0.8 + 6.5 / 7) / 2)
    assert bench["set_precision"] == 100.0


def test_samples_of_sets_are_not_taken_for_first_spans(evaluated: dict[str, Any], tmp_path: Path) -> None:
    rows = evaluated["samples"]["timelens_vue_tr"]
    logged = tmp_path / "20260101_000000_samples_timelens_vue_tr.jsonl"
    logged.write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "doc"}, default=str) + "\n" for row in rows)
    )
    with pytest.raises(ValueError, match="no samples of moments in this folder, only of other tasks"):
        find_sources([tmp_path])


def test_a_run_stands_apart_from_the_published_rows(evaluated: dict[str, Any], tmp_path: Path) -> None:
    record = {
        "results": evaluated["results"],
        "configs": {},
        "config": {"model": "timelens", "model_args": "pretrained=mine,fps=1,max_frames=2048"},
        "n-samples": {"timelens_vue_tr": {"original": 4, "effective": 4}},
    }
    path = tmp_path / "20260101_000000_results.json"
    path.write_text(json.dumps(record, default=str))
    rows = evaluated["samples"]["timelens_vue_tr"]
    (tmp_path / "20260101_000000_samples_timelens_vue_tr.jsonl").write_text(
        "".join(json.dumps({k: v for k, v in row.items() if k != "doc"}, default=str) + "\n" for row in rows)
    )
    published = load_published()
    read = read_entries([tmp_path], published)
    [entry] = [e for e in read.entries if e.benchmark == "vue-tr"]
    assert (entry.miou, entry.n, dict(entry.recall)) == (pytest.approx(40.0), 4, {0.3: 50.0, 0.5: 50.0, 0.7: 25.0})
    assert entry.notes == ("fps=1", "max_frames=2048")
    [missing] = [e for e in read.entries if e.benchmark == "vue-tr-v2"]
    assert "1 videos missing" in missing.differences
    [bench] = [s for s in build_board(published, read.entries).sections if s.key == "charades-timelens-sets"]
    assert [(row.entry.model, row.entry.miou) for row in bench.published_apart] == [
        *(("TimeLens2-8B", 58.6), ("TimeLens2-4B", 57.7))
    ]
    assert [row.entry.miou for row in bench.given_apart] == [pytest.approx(100 * (0.8 + 6.5 / 7) / 2)]
    assert not bench.ranked
    [seeker] = [e for e in read.entries if e.benchmark == "momentseeker"]
    said = "3 events not in the video: 33.3 % rejected, 33.3 % with a span; of the others 0.0 % rejected"
    assert (seeker.miou, said in seeker.notes) == (100.0, True)
    [section] = [s for s in build_board(published, read.entries).sections if s.key == "vue-tr"]
    assert not section.ranked
    assert [row.entry.miou for row in section.published_apart] == [53.5]
    assert [row.entry.model for row in section.given_apart] == ["mine"]


def test_columns_of_tasks_and_group_are_the_same() -> None:
    folder = shipped_folder("tasks") / "timelens_sets"
    loader: Callable[[str], Any] = yaml.BaseLoader
    plain = (folder / "_sets").read_text().replace("!function ", "")
    group = (folder / "timelens_bench_sets.yaml").read_text().replace("!function ", "")
    columns = [m["metric"] for m in yaml.load(plain, Loader=loader)["metric_list"]]
    assert columns[-4:] == ["absent_moments", "right_rejections", "missed_rejections", "wrong_rejections"]
    assert [m["metric"] for m in yaml.load(group, Loader=loader)["aggregate_metric_list"]] == columns[:-4], (
        "TimeLens-Bench has no absent events"
    )
