"""``timelens compare-benchmarks``: the published rank changes, and runs whose moments are known one by one."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from timelens_plugins.cli import main
from timelens_plugins.metrics import Sample
from timelens_plugins.quality.comparing import compare_benchmarks
from timelens_plugins.quality.findings import Finding
from timelens_plugins.results import Run
from timelens_plugins.spans import Span


def run(name: str, rows: list[tuple[str, str, tuple[float, float], tuple[float, float]]]) -> Run:
    return Run.from_samples(
        name, [Sample(v, q, (Span(*target),), Span(*predicted), "parsed") for v, q, target, predicted in rows]
    )


def test_the_published_rank_changes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Charades: the order of the released labels is nearly turned round. Tau counted by hand from the pairs."""
    out = tmp_path / "c.json"
    assert main(["compare-benchmarks", "charades", "--json", str(out)]) == 0
    [found] = json.loads(out.read_text())
    scores = {m["model"]: (m["original"], m["refined"]) for m in found["models"]}
    assert scores == {
        "GPT-4o": (34.7, 41.8),
        "Gemini-2.5-Pro": (34.6, 52.8),
        "VideoChat-R1-7B": (60.8, 33.7),
        "Time-R1-7B": (58.1, 36.6),
        "Qwen2.5-VL-7B": (43.6, 39.3),
        "TimeLens-7B": (42.3, 48.8),
    }
    ranks = {m["model"]: (m["original_rank"], m["refined_rank"]) for m in found["models"]}
    assert ranks["VideoChat-R1-7B"] == (1, 6)
    assert ranks["Gemini-2.5-Pro"] == (6, 1)
    pairs = list(itertools.combinations(scores.values(), 2))
    agree = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
    assert found["tau"] == pytest.approx((agree - (len(pairs) - agree)) / len(pairs))
    assert found["tau"] < -0.7
    assert len(found["swaps"]) == len(pairs) - agree
    assert found["interval"] is None
    assert "no interval: published figures only" in capsys.readouterr().out
    assert main(["compare-benchmarks"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("Charades-TimeLens", "ActivityNet-TimeLens", "QVHighlights-TimeLens"))


def test_runs_with_moments() -> None:
    """Two models; one answers the original labels, the other the refined ones. Classes and scores by hand."""
    original, refined = [], []
    for i in range(20):
        video = f"v{i}"
        original += [(video, "a dog barks", (0, 10)), (video, "a cat sleeps", (10, 20)), (video, "it again", (5, 9))]
        refined += [
            (video, "A dog barks", (0, 10)),
            (video, "the cat sleeps", (30, 40)),
            (video, "a bird flies", (1, 3)),
        ]
    answers = {
        "old": {"a dog barks": (0, 10), "a cat sleeps": (10, 20), "it again": (5, 9)},
        "new": {"a dog barks": (0, 10), "a cat sleeps": (30, 40), "a bird flies": (1, 3)},
    }

    def of(model: str, rows: list) -> Run:
        known = answers[model]
        words = lambda q: q.lower().replace("the ", "a ")  # noqa: E731
        return run(model, [(v, q, t, known.get(words(q), (90, 91))) for v, q, t in rows])

    runs = {model: (of(model, original), of(model, refined)) for model in answers}
    finding = Finding("v0:x", "clips/v0.mp4", "it again", ((5, 9),), "unclear", 0.9)
    found = compare_benchmarks("before", "after", {}, runs, findings=[finding])
    assert {m.model: (round(m.original, 1), round(m.refined, 1)) for m in found.models} == {
        "new": (33.3, 100.0),
        "old": (100.0, 33.3),
    }
    assert found.tau == -1.0
    assert found.interval == (-1.0, -1.0)
    assert found.swaps == [("old", "new")]
    classes = {c.name: (c.moments, c.original, c.refined) for c in found.classes["old"]}
    assert classes == {
        "kept": (20, 100.0, 100.0),
        "moved": (20, 100.0, 0.0),
        "dropped": (20, 100.0, None),
        "added": (20, None, 0.0),
    }
    assert {c.name: dict(c.kinds) for c in found.classes["old"]}["dropped"] == {"unclear": 1}
    assert "same query, another span" in found.table()


def test_labels_of_one_query_are_matched_by_their_spans_and_windows() -> None:
    """What stays is found whatever stands beside it: another span of the query, the query of another window."""

    def of(rows: list[tuple[str, tuple[float, float], tuple[float, float] | None]]) -> Run:
        span = Span(0, 1)
        return Run.from_samples("m", [Sample("v", q, (Span(*t),), span, "parsed", window=w) for q, t, w in rows])

    one, two = (0.0, 50.0), (50.0, 100.0)
    before = [("a dog barks", (0, 5), None), ("a dog barks", (9, 12), None), ("a cat", (1, 4), one)]
    after = [("A dog barks.", (9, 12), None), ("a dog barks", (20, 25), None), ("a cat", (1, 4), two)]
    found = compare_benchmarks("x", "y", {}, {"m": (of(before), of(after))})
    assert {c.name: c.moments for c in found.classes["m"]} == {"kept": 1, "moved": 1, "dropped": 1, "added": 1}


def test_an_interval_is_as_wide_as_the_videos_are_few() -> None:
    """Two models of nearly equal scores: over few videos their order is open, and the interval says so."""
    spans = [(0.0, 10.0)] * 6
    good = [(f"v{i}", "q", s, (0, 10 - i)) for i, s in enumerate(spans)]
    bad = [(f"v{i}", "q", s, (0, 4 + i)) for i, s in enumerate(spans)]
    runs = {"a": (run("a", good), run("a", good)), "b": (run("b", bad), run("b", good))}
    found = compare_benchmarks("x", "y", {"c": (70.0, 60.0)}, runs, seed=1)
    assert found.interval is not None
    low, high = found.interval
    assert low < (found.tau or 0) <= high
    again = compare_benchmarks("x", "y", {"c": (70.0, 60.0)}, runs, seed=1)
    assert again.interval == found.interval


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "unknown benchmark nothing"),
        (["--run", "m", "a.jsonl", "b.jsonl"], "needs one BENCHMARK"),
        (["charades", "--run", "m", "absent.jsonl", "b.jsonl"], "absent.jsonl"),
        (["charades", "--no-published"], "--no-published needs --run"),
        (["charades", "--findings", __file__], "--findings needs --run"),
    ],
)
def test_bad_calls(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare-benchmarks", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_run_may_not_take_a_published_name(tmp_path: Path) -> None:
    rows = run("GPT-4o", [("v", "q", (0, 1), (0, 1))])
    with pytest.raises(ValueError, match="GPT-4o: published"):
        compare_benchmarks("x", "y", {"GPT-4o": (1.0, 2.0)}, {"GPT-4o": (rows, rows)})
