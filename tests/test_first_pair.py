"""The first pair decides: the same answers score the same everywhere, and as the benchmark's own script scores them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from timelens_plugins.answers import parse_answer, parse_spans
from timelens_plugins.difficulty.rows import difficulty_row
from timelens_plugins.evaluation.task_functions import process_results
from timelens_plugins.metrics import evaluate
from timelens_plugins.moments import load_moments
from timelens_plugins.results import load_results
from timelens_plugins.rewards import giou_reward, parse_penalty, set_iou_reward, temporal_iou_reward

TARGET = (5.0, 20.0)
ANSWERS = {
    "The event happens in 20.0 - 5.0 seconds.": "swapped",
    "The event happens in 20.0 - 5.0, 5.0 - 20.0 seconds.": "swapped",
    "from 20 to 5 seconds, then from 5 to 20 seconds": "swapped",
    "The event happens in 8.0 - 8.0 seconds.": "zero_length",
    "5.0 - 5.0, 6.0 - 19.0": "zero_length",
    "The event happens in 6.2 - 18.9 seconds.": "parsed",
    "The event happens in 6.0 - 19.0, 30.0 - 25.0 seconds.": "parsed",
    "7 to 7.4": "parsed",
    "I do not know.": "no_span",
    # with the duration these are spans; the benchmark's script, which has none, cannot read them
    "From 12.5% to 50% of the video.": "needs_duration",
    "It happens from 5.0 seconds until the end of the video.": "needs_duration",
}


def official_iou(answer: str) -> float:
    """The benchmark's rule, written down from its description: the first two numbers that a dash or 'to' joins."""
    found = re.search(r"([0-9.]*[0-9])(?: - | to )([0-9.]*[0-9])", answer)
    if not found:
        return 0.0
    start, end = (round(float(number)) for number in found.groups())
    if start >= end:
        return 0.0
    overlap = min(end, TARGET[1]) - max(start, TARGET[0])
    return max(0.0, overlap) / (max(end, TARGET[1]) - min(start, TARGET[0]))


def entry(answer: str, **settings: object) -> dict[str, object]:
    doc = {"video_id": "v", "query": "q", "spans": [list(TARGET)], "duration": 40.0, "subset": "", "flags": []}
    return process_results(doc | {"missing_videos": 0} | settings, [answer])


@pytest.mark.parametrize(("answer", "status"), ANSWERS.items())
def test_one_rule_everywhere(answer: str, status: str, tmp_path: Path) -> None:
    assert parse_answer(answer).status == status
    scores = entry(answer)
    assert scores["mIoU"]["score"] == pytest.approx(100 * official_iou(answer))
    assert scores["mIoU"]["status"] == status
    assert scores["parse_failures"]["score"] == (0.0 if status == "parsed" else 100.0)
    assert [scores[s]["score"] for s in ("swapped", "zero_length")] == [
        100.0 * (status == s) for s in ("swapped", "zero_length")
    ]
    exact = scores["mIoU_exact"]["score"] / 100
    assert temporal_iou_reward([answer], spans=[[TARGET]]) == [pytest.approx(exact)]

    # the same from a sample file, from result files with and without what their writer read, and read again
    sample = tmp_path / "x_samples_y.jsonl"
    sample.write_text(json.dumps({"doc_id": 0, "filtered_resps": [answer]} | scores))
    read = [list(span) for span in re.findall(r"([0-9.]*[0-9])(?: - | to )([0-9.]*[0-9])", answer)]
    files = [sample]
    for name, stored in (("empty", []), ("as_written", [[float(a), float(b)] for a, b in read])):
        files.append(tmp_path / f"{name}.json")
        files[-1].write_text(json.dumps({f"v.mp4>>>q>>>{[list(TARGET)]}": {"timestamps": stored, "answers": answer}}))
    for file in files:
        for reparse in (False, True):
            results = load_results(file, reparse=reparse)
            assert not results.disagreements
            for reading in ("official", "exact"):
                scored = evaluate(results.samples, reading)
                suffix = "" if reading == "official" else "_exact"
                assert scored.miou == pytest.approx(scores[f"mIoU{suffix}"]["score"] / 100)
                assert scored.failures == ({} if status == "parsed" else {status: 1})
                assert scored.parse_failures == (status != "parsed")

    # and in difficulty estimation, written and read back
    annotations = tmp_path / "a.json"
    annotations.write_text(json.dumps({"v": {"duration": 40.0, "spans": [list(TARGET)], "queries": ["q"]}}))
    (moment,) = load_moments(annotations)
    row = difficulty_row(moment, [answer], {})
    assert (row["iou"], row["status"]) == (pytest.approx(exact), status)
    rows = tmp_path / "d.jsonl"
    rows.write_text(json.dumps(row))
    (back,) = load_moments(rows)
    assert back.iou == pytest.approx(exact)


def test_no_score_depends_on_the_duration() -> None:
    answer = "From 12.5% to 50% of the video."
    assert parse_spans(answer, duration=40.0) == [TARGET]
    for duration in (40.0, 80.0, None):
        assert entry(answer, duration=duration)["mIoU_exact"]["score"] == 0.0
        assert temporal_iou_reward([answer], spans=[[TARGET]], duration=[duration]) == [0.0]
    assert parse_answer("20% to 40%, 95% sure it is 5 - 9 s").spans == [(5, 9)]
    assert parse_answer("I am 95% sure.").status == "no_span"


def test_a_first_pair_that_is_none_pays_nothing() -> None:
    swapped = ["The event happens in 20.0 - 5.0 seconds."]
    assert set_iou_reward(swapped, spans=[[TARGET]]) == [0.0]
    assert giou_reward(swapped, spans=[[TARGET]]) == [-1.0]
    assert parse_penalty(swapped) == [-1.0]


def test_the_lenient_reading_is_there_for_the_asking() -> None:
    assert parse_spans("20.0 - 5.0", order=True) == [(5, 20)]
    assert parse_spans("5 - 5 s, 12 - 15 s", order=True) == [(12, 15)]
    assert parse_spans("40 - 50 s, 12 - 15 s", duration=30.0, order=True) == [(12, 15)]
    assert parse_answer("40 - 50 s, 12 - 15 s", duration=30.0).status == "outside_clip"


def test_difficulty_files_of_others_follow_it(tmp_path: Path) -> None:
    row = {"video_path": "v.mp4", "duration": 40.0, "query": "q", "span": [list(TARGET)], "iou": 0.0}
    for first in ([20.0, 5.0], [8.0, 8.0]):
        file = tmp_path / "d.jsonl"
        file.write_text(json.dumps(row | {"pred": [first, [5.0, 20.0]]}))
        (moment,) = load_moments(file)
        assert moment.predictions[0].spans == ()
        assert moment.flags == {"invalid_prediction"}
