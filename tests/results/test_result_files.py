"""Reading result files: what TimeLens and lmms-eval write, and what is wrong with damaged ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.metrics import evaluate
from timelens_plugins.results import load_results
from timelens_plugins.spans import Span

DATA = Path(__file__).parents[1] / "data" / "results"
ANSWER = "The event happens in 2.0 - 6.0 seconds."


@pytest.mark.parametrize(
    ("name", "file_format"),
    [
        ("timelens.json", "timelens"),
        ("timelens.jsonl", "timelens"),
        ("lmms_eval_samples_timelens_bench_charades.jsonl", "lmms-eval"),
    ],
)
def test_all_formats_give_the_same_hand_checked_scores(name: str, file_format: str) -> None:
    results = load_results(DATA / name)
    assert results.format == file_format
    assert not results.disagreements
    assert [s.query for s in results.samples][1] == "text reads 'in >>> out' >"
    # Worked out in test_metrics.py.
    official, exact = evaluate(results.samples, "official"), evaluate(results.samples, "exact")
    assert (official.n, official.duplicates_dropped, exact.n, exact.parse_failures) == (5, 1, 6, 1)
    assert (official.miou, exact.miou) == pytest.approx((0.3, 0.294521), abs=1e-6)
    assert official.recall == {0.3: 0.6, 0.5: 0.2, 0.7: 0.2}


def timelens(path: Path, *entries: tuple[str, Any]) -> Path:
    path.write_text("{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in entries) + "}")
    return path


def test_stored_prediction_counts_and_disagreements_are_returned(tmp_path: Path) -> None:
    file = timelens(
        tmp_path / "r.json",
        ("charades/a.mp4>>>q>>>[[2, 6]]", {"timestamps": [[2.0, 6.0]], "answers": ANSWER}),
        ("charades/b.mp4>>>q>>>[2, 6]", {"timestamps": [[3, 6], [7, 8]], "answers": ANSWER}),
        ("charades/c.mp4>>>q>>>[(2, 6)]", {"timestamps": [], "answers": ANSWER}),
        ("charades/d.mp4>>>q>>>[[2, 6]]", {"timestamps": [[6.0, 2.0]], "answers": ANSWER}),
        ("charades/e.mp4>>>q>>>[[2, 6]]", {"timestamps": [[1.0, 2.0]]}),
    )
    results = load_results(file)
    assert [s.predicted for s in results.samples] == [Span(2, 6), Span(3, 6), Span(2, 6), None, Span(1, 2)]
    assert [s.status for s in results.samples] == ["parsed", "parsed", "parsed", "unparsed", "parsed"]
    assert {s.subset for s in results.samples} == {"charades"}
    assert {s.target for s in results.samples} == {(Span(2, 6),)}
    assert [(d.row, d.stored, d.parsed) for d in results.disagreements] == [
        (2, (3.0, 6.0), Span(2, 6)),
        (4, (6.0, 2.0), Span(2, 6)),
    ]
    assert results.read_from_answer == 1
    with pytest.raises(ValueError, match="row 5, there is no answer"):
        load_results(file, reparse=True)
    four = timelens(file, *list(json.loads(file.read_text()).items())[:4])
    again = load_results(four, reparse=True)
    assert [s.predicted for s in again.samples] == [Span(2, 6)] * 4
    assert len(again.disagreements) == 2


def test_several_windows_in_a_key(tmp_path: Path) -> None:
    file = timelens(tmp_path / "r.json", ("a.mp4>>>q>>>[[2, 6], [8, 9]]", {"timestamps": [[8, 9]], "answers": "8 - 9"}))
    (only,) = load_results(file).samples
    assert only.target == (Span(2, 6), Span(8, 9))
    assert evaluate([only], "exact").miou == 1


def own_item(**changes: Any) -> dict[str, Any]:
    item = {"score": 100.0, "video": "a", "query": "q", "span": [[2.0, 6.0]], "pred": [2.0, 6.0], "status": "parsed"}
    return item | {"duration": 31.0, "subset": "charades"} | changes


def test_files_written_by_lmms_eval(tmp_path: Path) -> None:
    """Rows go through lmms-eval's own writer; the second task is its own `timelens`, which stores answers only."""
    tracker_module = pytest.importorskip("lmms_eval.loggers.evaluation_tracker")
    upstream = pytest.importorskip("lmms_eval.tasks.timelens.utils")
    answers = [ANSWER, "No idea.", "The event happens in 3.4 - 6.4 seconds."]
    docs = [{"video_path": f"charades/{v}.mp4", "query": "q", "span": [[2, 6]]} for v in "abc"]
    items = [
        own_item(video=v, pred=pred, status=status)
        for v, pred, status in (("a", [2.0, 6.0], "parsed"), ("b", None, "no_span"), ("c", [3.4, 6.4], "parsed"))
    ]
    metrics = {
        "timelens_bench_charades": [{"mIoU": item} for item in items],
        "timelens_charades": [
            upstream.timelens_process_results(doc, [a]) for doc, a in zip(docs, answers, strict=True)
        ],
    }
    tracker = tracker_module.EvaluationTracker(output_path=str(tmp_path))
    tracker.general_config_tracker.model_name_sanitized = "model"
    tracker.date_id = "20260101_000000"
    for task, values in metrics.items():
        rows = [
            {"doc_id": i, "doc": docs[i], "target": "[[2, 6]]", "arguments": ["prompt"], "resps": [[answers[i]]]}
            | {"filtered_resps": [answers[i]], "doc_hash": "x"}
            | value
            for i, value in enumerate(values)
        ]
        tracker.save_results_samples(task, rows)
    for task in metrics:
        results = load_results(tmp_path / "model" / f"20260101_000000_samples_{task}.jsonl")
        assert not results.disagreements
        assert [s.status for s in results.samples] == ["parsed", "unparsed", "parsed"]
        assert [s.answer for s in results.samples] == answers
        assert {s.subset for s in results.samples} == {"charades"}
        # Official: [3.4, 6.4] is [3, 6], 3 / 4; exact: 2.6 / 4.4.
        assert evaluate(results.samples, "official").miou == pytest.approx((1 + 0.75) / 3)
        assert evaluate(results.samples, "exact").miou == pytest.approx((1 + 2.6 / 4.4) / 3)


def test_missing_status_and_changed_parser_in_lmms_eval_rows(tmp_path: Path) -> None:
    rows = [
        {"doc_id": 0, "filtered_resps": "", "mIoU": own_item(pred=None, status="missing")},
        {"doc_id": 1, "filtered_resps": [ANSWER], "mIoU": own_item(pred=[2.0, 5.0])},
        {"doc_id": 2, "filtered_resps": [ANSWER], "mIoU": own_item(pred=None, status="unparsed")},
    ]
    results = load_results(jsonl(tmp_path / "s.jsonl", *rows))
    assert [s.status for s in results.samples] == ["missing", "parsed", "unparsed"]
    assert [d.row for d in results.disagreements] == [2, 3]
    assert results.read_from_answer == 0
    assert [s.predicted for s in load_results(tmp_path / "s.jsonl", reparse=True).samples] == [
        None,
        Span(2, 6),
        Span(2, 6),
    ]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


KEY = "a.mp4>>>q>>>[[2, 6]]"
GOOD = {KEY: {"timestamps": [[2, 6]], "answers": ANSWER}}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([""], "the file is empty"),
        (["{'a': 1}"], "line 1 is not JSON: .* at column 2"),
        ([GOOD, '{"a.mp4>>>q'], "line 2 is not JSON: .*cut off"),
        ([GOOD, "nonsense", GOOD], "line 2 is not JSON: Expecting value at column 1$"),
        ([[1, 2]], "row 1: expected a JSON object"),
        ([{"a": 1}], "row 1, neither a TimeLens result .* its keys are a"),
        ([GOOD, {"a": 1}], "row 2, key 'a': expected '<video>"),
        ([{"a.mp4>>>q": {}}], "row 1, key 'a.mp4>>>q': expected"),
        ([{"a.mp4>>>>>>[[2, 6]]": {}}], "empty video or query"),
        ([{"a.mp4>>>q>>>two": {}}], "'two' is not a span"),
        ([{"a.mp4>>>q>>>[[6, 2]]": {"answers": "x"}}], "'span of the key': a span must end no earlier"),
        ([{"a.mp4>>>q>>>[]": {"answers": "x"}}], "'span of the key': expected"),
        ([{KEY: [2, 6]}], "the value must be an object"),
        ([{KEY: {}}], "'timestamps' and 'answers' are both absent"),
        ([GOOD, {KEY: {"timestamps": [2, 6], "answers": ""}}], "row 2, field 'timestamps': expected \\[start, end\\]"),
        ([{KEY: {"timestamps": [[float("nan"), 6]], "answers": ""}}], "field 'timestamps': .* got \\[nan, 6\\]"),
        ([{KEY: {"timestamps": [["2", 6]], "answers": ""}}], "field 'timestamps'"),
        ([{KEY: {"timestamps": [[2, 10**400]], "answers": ""}}], "field 'timestamps'"),
        ([f'{{"{KEY}": {{"timestamps": [[2, 1{"0" * 5000}]]}}}}'], "not JSON: .*digits"),
        ([f'{{"{KEY}": {"[" * 100_000}'], "not JSON: nested too deeply"),
        ([{KEY: {"timestamps": [[-2, 6]], "answers": ""}}], "field 'timestamps': times cannot be negative"),
        ([{KEY: {"timestamps": [[2, 6]], "answers": 7}}], "field 'answers': expected text, got 7"),
        ([f'{{"{KEY}": {{"answers": "2 - 6", "answers": "3 - 6"}}}}'], "field 'answers' is given more than once"),
        ([{"doc_id": 0, "acc": 1.0}], "field 'mIoU' .* is missing, .*its keys are doc_id, acc"),
        ([{"doc_id": 0, "mIoU": {"score": 1.0, "video": "a"}}], "field 'mIoU': lacks query, span, pred, status"),
        ([{"doc_id": 0, "mIoU": own_item(pred=None)}], "'mIoU.pred': null, although"),
        ([{"doc_id": 0, "mIoU": own_item(pred=[1])}], "field 'mIoU.pred'"),
        ([{"doc_id": 0, "mIoU": own_item(query=3)}], "field 'mIoU.query': expected text, got 3"),
        ([{"doc_id": 0, "mIoU": own_item(duration=0)}], "field 'mIoU.duration'"),
        ([{"doc_id": 0, "mIoU": own_item(), "missing_videos": {"count": "2"}}], "field 'missing_videos.count'"),
        ([{"doc_id": 4, "mIoU": own_item()}] * 2, "row 2, field 'doc_id': 4 stands in row 1 already"),
        ([{"doc_id": 0, "timelens_mIOU": {KEY: ["x"]}}], "field 'timelens_mIOU': expected the answer's text"),
    ],
)
def test_faults_name_file_row_and_field(tmp_path: Path, rows: list[Any], message: str) -> None:
    file = jsonl(tmp_path / "results.jsonl", *rows)
    with pytest.raises(ValueError, match=f"results.jsonl: .*{message}|results.jsonl: {message}"):
        load_results(file)


def test_not_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="not UTF-8"):
        load_results(tmp_path / "r.json")
    with pytest.raises(OSError, match="absent"):
        load_results(tmp_path / "absent.json")
