"""The page in Chromium: what it shows, how it is used, and that it says nothing on the console and fetches nothing."""

from __future__ import annotations

import dataclasses
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from report_runs import make_run, make_samples, until

from timelens_plugins.metrics import Sample, evaluate, paired_difference
from timelens_plugins.report import write_report
from timelens_plugins.results import Case, Run, load_runs
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.mp4 import write_mp4

if TYPE_CHECKING:
    from playwright.sync_api import Page

Opener = Callable[..., "Page"]

OPEN_SECONDS = 3.0  # that 10,000 moments may take to open


def written(runs: Sequence[Run], folder: Path, **options: object) -> Path:
    return write_report(runs, folder / "report.html", progress=False, **options)  # type: ignore[arg-type]


def shown(page: Page) -> int:
    """How many moments the filters leave, as the page says."""
    return int(page.locator("#count").inner_text().split(" of ")[0].replace(",", ""))


def order(page: Page) -> list[int]:
    return [int(place) for place in page.locator(".sample").evaluate_all("rows => rows.map(row => row.dataset.moment)")]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Synthetic clips with annotations in TimeLens-Bench's layout."""
    from timelens_plugins.synthetic.benchmark import write_benchmark

    return write_benchmark(tmp_path / "bench", {"charades": 2}, size=64, progress=False)


def run_on(bench: Path) -> Run:
    """Answers half a second late to every annotation of :func:`clips`."""
    annotations = json.loads((bench / "charades-timelens.json").read_text())
    samples = [
        Sample(video, query, (Span(*span),), Span(span[0] + 0.5, span[1] + 0.5), "parsed", "charades", row["duration"])
        for video, row in annotations.items()
        for span, query in zip(row["spans"], row["queries"], strict=True)
    ]
    return Run.from_samples("late", samples)


def test_two_runs_side_by_side(open_report: Opener, runs: list[Run], tmp_path: Path) -> None:
    page = open_report(written(runs, tmp_path))
    a, b = ([case.moment for case in run.cases] for run in runs)
    for i, samples in enumerate((a, b)):
        for reading in ("official", "exact"):
            row = page.locator("#results tbody").first.locator(f'tr[data-run="{i}"][data-reading="{reading}"]')
            expected = evaluate(samples, reading)
            assert row.locator('[data-metric="mIoU"] b').inner_text() == f"{100 * expected.miou:.1f}"
            assert row.locator('[data-metric="R1@0.7"] b').inner_text() == f"{100 * expected.recall[0.7]:.1f}"
            interval = expected.intervals["mIoU"]
            assert interval is not None
            shown_interval = row.locator('[data-metric="mIoU"] small').inner_text()
            assert shown_interval == f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    paired = paired_difference(b, a, "official")
    cell = page.locator('#differences tr[data-reading="official"]').first.locator('[data-metric="mIoU"]')
    assert cell.locator("b").inner_text() == f"+{100 * paired.miou:.1f}"
    assert page.locator(".warning").count() == 0
    assert shown(page) == 60
    assert page.locator(".sample").count() == 25
    page.get_by_role("button", name="Most different").click()
    gaps = [abs(evaluate([a[i]], "official").miou - evaluate([b[i]], "official").miou) for i in order(page)]
    assert gaps == pytest.approx(sorted(gaps, reverse=True))


def test_runs_over_different_moments_are_not_mixed_silently(
    open_report: Opener, runs: list[Run], tmp_path: Path
) -> None:
    page = open_report(written([Run("a", runs[0].cases[:40]), Run("b", runs[1].cases[10:])], tmp_path))
    assert "30 are in all of them, 30 are not" in page.locator(".warning").inner_text()
    assert "30 shared moments, 10 only in a, 20 only in b" in page.locator("#differences caption").inner_text()
    page.locator("#filter-run").select_option("1")
    page.locator("#filter-status").select_option("absent")
    assert shown(page) == 10
    lengths = [case.moment.target[0].length for case in runs[0].cases[:10]]
    page.locator("#filter-span_max").fill("5")
    assert 0 < shown(page) == sum(length <= 5 for length in lengths) < 10
    page.locator("#filter-span_max").fill("")
    durations = [case.moment.duration or 0 for case in runs[0].cases[:10]]
    page.locator("#filter-duration_min").fill("80")
    assert 0 < shown(page) == sum(duration >= 80 for duration in durations) < 10
    page.locator("#filter-duration_min").fill("")
    page.locator("#filter-status").select_option("unparsed")
    assert shown(page) == sum(case.moment.status == "unparsed" for case in runs[1].cases[10:])


def test_filters_order_and_address(open_report: Opener, runs: list[Run], tmp_path: Path) -> None:
    samples = [case.moment for case in runs[-1].cases]  # the list shows the last run first
    ious = [evaluate([sample], "official").miou for sample in samples]
    path = written(runs, tmp_path)
    page = open_report(path)
    assert [ious[i] for i in order(page)] == sorted(ious)[:25]
    page.locator("#filter-subset").select_option("1")
    assert shown(page) == sum(sample.subset == "activitynet" for sample in samples)
    page.locator("#filter-iou_min").fill("30")
    page.locator("#filter-iou_max").fill("70")
    expected = [s.subset == "activitynet" and 0.3 <= iou <= 0.7 for s, iou in zip(samples, ious, strict=True)]
    assert shown(page) == sum(expected)
    page.locator("#filter-sort").select_option("best")
    kept, kept_address = order(page), page.url
    assert [ious[i] for i in kept] == sorted((ious[i] for i in kept), reverse=True)
    again = open_report(path)
    again.goto(kept_address)
    again.reload()
    until(again, "document.documentElement.dataset.ready === 'true'")
    assert order(again) == kept
    page.locator("#reset").click()
    assert shown(page) == 60
    page.locator("#filter-duration_min").fill("60")
    page.locator("#filter-span_max").fill("5")
    lengths = [(s.duration or 0, s.target[0].length) for s in samples]
    assert shown(page) == sum(duration >= 60 and length <= 5 for duration, length in lengths)
    page.locator("#reset").click()
    page.locator("#filter-status").select_option("unparsed")
    assert shown(page) == sum(sample.status == "unparsed" for sample in samples)
    page.locator("#reset").click()
    page.locator("#filter-q").fill("NUMBER 17")
    found = [f"{s.query} {s.video} {s.answer} {runs[0].cases[i].moment.answer}" for i, s in enumerate(samples)]
    assert 1 <= shown(page) == sum("number" in text and "17" in text for text in found)
    page.locator("#filter-q").fill("no such words")
    assert shown(page) == 0
    assert "No moment matches" in page.locator(".samples").inner_text()


def on_round_values(name: str, seed: int) -> Run:
    """IoUs of whole twentieths, 0 and 1 among them, some without a span or an answer: 8 moments of each."""
    values = [*(i / 20 for i in range(21)), None, -1] * 8
    random.Random(seed).shuffle(values)
    spans = [None if v is None or v < 0 else Span(0.0, 20 * v) if v else Span(25.0, 30.0) for v in values]
    samples = [
        Sample(
            f"v{i}",
            f"query {i}",
            (Span(0.0, 20.0),),
            span,
            "parsed" if span else "missing" if value == -1 else "unparsed",
            duration=30.0 + i % 2,
        )
        for i, (value, span) in enumerate(zip(values, spans, strict=True))
    ]
    return Run.from_samples(name, samples)


def bar_of(sample: Sample) -> int:
    """By whole seconds, which are twentieths here: a bar holds its lower end, the last one 1 as well."""
    if sample.predicted is None:
        return 0
    overlap = max(0, min(20, round(sample.predicted.end)) - round(sample.predicted.start))
    return 1 if overlap == 0 else 2 + min(19, overlap)


def listed(page: Page) -> set[int]:
    """The moments on all pages of the list."""
    found = set(order(page))
    while page.locator(".pager.top button").last.is_enabled():
        page.locator(".pager.top button").last.click()
        found |= set(order(page))
    return found


def pick(page: Page, run: int, bar: int) -> None:
    page.locator(f'[data-bar="{run}.{bar}"]').click()


def test_a_bar_lists_exactly_the_moments_it_counts(open_report: Opener, tmp_path: Path) -> None:
    runs = [on_round_values("A", 1), on_round_values("B", 2)]
    path = written(runs, tmp_path)
    page = open_report(path)
    for run, bar in [(1, 11), (0, 11), (0, 0), (1, 1), (0, 2), (0, 20), (1, 21)]:
        expected = {i for i, case in enumerate(runs[run].cases) if bar_of(case.moment) == bar}
        name = page.locator(f'[data-bar="{run}.{bar}"]').get_attribute("aria-label") or ""
        assert name.endswith(f", {'AB'[run]}: {len(expected)} of 184 answers"), (run, bar)
        pick(page, run, bar)
        assert listed(page) == expected, (run, bar)
        assert page.locator("#filter-run").input_value() == str(run)
        assert page.locator("#bar").is_visible()
    again = open_report(path)
    again.goto(page.url)
    again.reload()
    until(again, "document.documentElement.dataset.ready === 'true'")
    assert listed(again) == expected
    pick(again, 1, 21)
    assert shown(again) == 184
    pick(page, 0, 0)
    page.locator("#bar").click()
    assert shown(page) == 184
    assert not page.locator("#bar").is_visible()


def test_a_bar_is_exact_beside_other_filters(open_report: Opener, tmp_path: Path) -> None:
    runs = [on_round_values("A", 1), on_round_values("B", 2)]
    page = open_report(written(runs, tmp_path))
    page.locator("#filter-run").select_option("0")
    page.locator("#filter-iou_max").fill("30")
    page.locator("#filter-duration_max").fill("30")
    kept = [i for i in range(184) if i % 2 == 0 and bar_of(runs[0].cases[i].moment) <= 8]  # both ends of the filter
    assert listed(page) == set(kept)
    expected = {i for i in kept if bar_of(runs[1].cases[i].moment) == 0}
    page.locator(f'[data-bar="1.0"][aria-label$=": {len(expected)} of {len(kept)} answers"]').wait_for()
    pick(page, 1, 0)
    assert listed(page) == expected
    assert page.locator("#filter-run").input_value() == "0"


def test_a_bar_of_several_answers_lists_moments_with_one_there(open_report: Opener, tmp_path: Path) -> None:
    target = (Span(0, 20),)
    half, none, miss = (
        Sample("v", "q", target, span, "parsed" if span else "unparsed") for span in (Span(0, 9), None, Span(21, 22))
    )
    answers = [(half, dataclasses.replace(none, failure="swapped"), miss), (none, none, none), (half, half, miss)]
    cases = [
        Case(tuple(dataclasses.replace(s, video=f"v{i}", query=f"q{i}") for s in of_moment))
        for i, of_moment in enumerate(answers)
    ]
    page = open_report(written([Run("k", tuple(cases))], tmp_path))
    row = page.locator('#results tr[data-reading="exact"]').first
    names = ("unparsed", "swapped", "answers", "n")
    counts = {key: row.locator(f'[data-count="{key}"]').inner_text() for key in names}
    assert counts == {"unparsed": "4", "swapped": "1", "answers": "9", "n": "3"}
    assert [text.split() for text in page.locator("#results thead .minor").all_inner_texts()] == [
        ["No", "span", "answers"],
        ["Swapped", "of", "these"],
        ["Missing", "answers"],
        ["Answers", "given"],
        ["Moments"],
        ["Videos"],
    ]
    assert page.locator('[data-bar="0.11"]').get_attribute("aria-label") == (
        "IoU 0.45–0.50, k: 3 of 9 answers, 2 moments"
    )
    pick(page, 0, 11)
    assert listed(page) == {0, 2}


def test_reading_changes_ious_and_is_kept(open_report: Opener, runs: list[Run], tmp_path: Path) -> None:
    page = open_report(written(runs, tmp_path))
    page.locator("label", has_text="exact").click()
    assert "reading=exact" in page.url
    exact = evaluate([case.moment for case in runs[-1].cases], "exact").miou
    assert page.locator("#count").inner_text() == f"60 of 60 moments; mIoU {100 * exact:.1f} (RLVR, exact)"


def test_clip_is_played_at_the_span(open_report: Opener, clips: Path, tmp_path: Path) -> None:
    run = run_on(clips)
    page = open_report(written([run], tmp_path, videos=[clips / "videos"]))
    assert page.locator(".strip img").count() == len(run.cases)
    sample = page.locator(".sample").first
    target = run.cases[int(sample.get_attribute("data-moment") or 0)].moment.target[0]
    sample.locator("button").first.click()
    sample.locator(".play").first.click()
    until(page, "document.querySelector('video')?.readyState >= 2")
    assert page.locator("video").evaluate("v => v.error") is None
    assert page.locator("video").evaluate("v => v.currentTime") >= target.start - 0.05
    until(page, f"document.querySelector('video').currentTime > {target.start + 0.2}")
    page.locator("video").evaluate(f"v => {{ v.currentTime = {target.end - 0.2}; v.play(); }}")
    until(page, "document.querySelector('video').paused")
    assert page.locator("video").evaluate("v => v.currentTime") == pytest.approx(target.end, abs=0.3)
    assert page.locator(".open .playhead").is_visible()


def test_clip_is_played_from_where_the_timeline_is_clicked(open_report: Opener, clips: Path, tmp_path: Path) -> None:
    run = run_on(clips)
    page = open_report(written([run], tmp_path, videos=[clips / "videos"]))
    sample = page.locator(".sample").first
    duration = run.cases[int(sample.get_attribute("data-moment") or 0)].moment.duration
    assert duration is not None
    box = sample.locator(".timeline").bounding_box()
    assert box is not None
    sample.locator(".timeline").click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    until(page, "document.querySelector('video')?.readyState >= 2")
    page.locator("video").evaluate("v => v.pause()")
    assert page.locator("video").evaluate("v => v.currentTime") == pytest.approx(duration / 2, abs=1.5)


def test_clip_that_was_moved_away_is_told(open_report: Opener, clips: Path, tmp_path: Path) -> None:
    path = written([run_on(clips)], tmp_path, videos=[clips / "videos"])
    for file in (clips / "videos").rglob("*.mp4"):
        file.rename(file.with_suffix(".gone"))
    page = open_report(path, says="ERR_FILE_NOT_FOUND")
    page.locator(".sample button").first.click()
    page.locator(".play").first.click()
    told = page.get_by_text("cannot play the clip, or it was moved")
    told.wait_for()
    assert told.count() == 1


def test_keyboard_alone(open_report: Opener, runs: list[Run], tmp_path: Path) -> None:
    page = open_report(written(runs, tmp_path))
    focused = "document.activeElement.closest('.sample')?.dataset.moment"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-q"
    page.keyboard.type("door")
    page.keyboard.press("ArrowDown")
    rows = order(page)
    assert page.evaluate(focused) == str(rows[0])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator(".sample.open").get_attribute("data-moment") == str(rows[1])
    assert page.locator(".sample.open > button").get_attribute("aria-expanded") == "true"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    assert page.locator(".pager.top").inner_text().split("\n")[1] == "Page 2 of 3"
    assert page.evaluate(focused) == str(order(page)[0])
    page.keyboard.press("ArrowUp")
    assert page.evaluate(focused) == str(order(page)[-1])
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    assert page.locator("#filter-q").input_value() == ""
    page.locator('[data-bar][tabindex="0"]').focus()
    in_focus = "document.activeElement.dataset.bar"
    moves = [("ArrowRight", "0.1"), ("ArrowDown", "1.1"), ("End", "1.21"), ("Home", "1.0"), ("ArrowLeft", "1.0")]
    for key, bar in moves:
        page.keyboard.press(key)
        assert page.evaluate(in_focus) == bar
    assert page.evaluate("getComputedStyle(document.activeElement).strokeWidth") == "2.5px"
    assert page.locator('[data-bar][tabindex="0"]').count() == 1
    failed = sum(case.moment.predicted is None for case in runs[1].cases)
    page.keyboard.press("Enter")
    assert shown(page) == failed
    until(page, "document.activeElement.getAttribute('aria-pressed') === 'true'")  # drawn anew, still in focus
    assert page.evaluate(in_focus) == "1.0"
    page.keyboard.press(" ")
    assert shown(page) == 60
    exposed = page.locator("#samples figure").first.get_by_role("button").all()
    assert len(exposed) == 44
    assert "no span, RLVR: " in (exposed[1].get_attribute("aria-label") or "")
    scatter = page.locator(".scatter svg").first.get_attribute("aria-label") or ""
    assert "the list below holds the same moments" in scatter
    controls = "[...document.querySelectorAll('button, input, select')]"
    named = "node.labels?.length || node.getAttribute('aria-label') || node.textContent.trim()"
    assert page.evaluate(f"{controls}.filter(node => !({named})).length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_light_and_dark_wide_and_narrow(
    open_report: Opener, runs: list[Run], tmp_path: Path, scheme: str, width: int
) -> None:
    page = open_report(written(runs, tmp_path), color_scheme=scheme, viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    brightness = "(n => getComputedStyle(n).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
    paper = f"{brightness}(document.documentElement)"
    assert (page.evaluate(paper) > 384) == (scheme == "light")
    page.locator("#theme").click()
    assert (page.evaluate(paper) > 384) == (scheme == "dark")


def test_markup_and_emoji_in_data_are_text(open_report: Opener, tmp_path: Path) -> None:
    queries = [
        "<script>window.broken = 1</script>",
        "</script><img src=x onerror='window.broken = 1'>",
        "🎬 שלום <b>x</b>",
    ]
    samples = [Sample(q, q, (Span(0, 5),), None, "unparsed", q, 10.0, q) for q in queries]
    page = open_report(written([Run.from_samples(queries[0], samples)], tmp_path, title=queries[1]))
    assert page.evaluate("window.broken") is None
    assert sorted(page.locator(".query").all_inner_texts()) == sorted(queries)
    assert page.locator("h1").inner_text() == queries[1]
    assert page.locator("#report script, #report img, #report b:not(.number b)").count() == 0
    page.locator(".sample button").first.click()
    assert page.locator(".answers .text").first.inner_text() in queries


def test_policy_lets_nothing_out(open_report: Opener, runs: list[Run], tmp_path: Path) -> None:
    page = open_report(written(runs[:1], tmp_path), says="Content Security Policy")
    refused = """what => new Promise(done => {
        document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
        if (what === 'fetch') fetch('http://127.0.0.1:9/').catch(() => {});
        else document.body.append(Object.assign(document.createElement(what), {src: 'http://127.0.0.1:9/'}));
    })"""
    assert page.evaluate(refused, "fetch") == "connect-src"
    assert page.evaluate(refused, "img") == "img-src"
    assert page.evaluate(refused, "video") == "media-src"


def test_events_that_are_not_in_the_video_have_a_table_of_their_own(open_report: Opener, tmp_path: Path) -> None:
    absent = [
        Sample(f"clip{i}", "a cat flies", (), predicted, status, "charades", 30.0, failure=failure)
        for i, (predicted, status, failure) in enumerate(
            [(None, "unparsed", "denied"), (None, "unparsed", "denied"), (Span(2, 5), "parsed", "")]
        )
    ]
    plain, run = make_run("plain", 6), Run.from_samples("rejects", [*make_samples(6), *absent])
    page = open_report(written([plain, run], tmp_path))
    [row] = page.locator("#rejections tbody tr").all()
    assert row.locator("th").inner_text() == "rejects"
    assert [cell.inner_text() for cell in row.locator("td").all()[:2]] == ["charades", "3"]
    assert row.locator("td b").all_inner_texts() == ["66.7", "33.3", "0.0"]
    assert row.locator("td small").all_inner_texts() == ["2 of 3", "1 of 3", "0 of 3"]
    figures = [page.locator(f'#results tr[data-run="{i}"] [data-metric="mIoU"] b').first.inner_text() for i in (0, 1)]
    assert figures[0] == figures[1], "mIoU is of the other moments alone"
    assert shown(page) == 6


def test_empty_run(open_report: Opener, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("")
    page = open_report(written(load_runs([tmp_path / "samples.jsonl"]), tmp_path))
    assert "There are no samples" in page.locator("#results").inner_text()
    assert "holds no rows" in page.locator("#notes").inner_text()


def test_empty_run_beside_another(open_report: Opener, runs: list[Run], tmp_path: Path) -> None:
    page = open_report(written([Run("empty", ()), runs[0]], tmp_path))
    assert "No moment is in both runs" in page.locator("#differences").inner_text()
    assert shown(page) == 60


def test_run_of_which_no_answer_could_be_parsed(open_report: Opener, tmp_path: Path) -> None:
    samples = [dataclasses.replace(s, predicted=None, status="unparsed") for s in make_samples(30)]
    page = open_report(written([Run.from_samples("failed", samples)], tmp_path))
    cells = page.locator('#results tr[data-reading="official"]').first
    assert cells.locator('[data-metric="mIoU"] b').inner_text() == "0.0"
    assert cells.locator(".notable").inner_text() == "30"
    assert page.locator(".track .nothing").count() == 25


def test_several_targets_answers_windows_and_no_duration(open_report: Opener, tmp_path: Path) -> None:
    targets = Span(0, 4), Span(10, 14)
    one = Sample("v", "several", targets, Span(9, 12), "parsed", "", None, "a", window=(30.0, 60.0))
    other = dataclasses.replace(one, predicted=None, status="unparsed", answer="b")
    page = open_report(written([Run("k", (Case((one, other, one)),))], tmp_path))
    assert page.locator(".span.truth").count() == 2
    assert page.locator(".span.predicted").count() == 2
    assert "duration unknown" in page.locator(".meta").inner_text()
    page.locator(".sample button").first.click()
    assert page.locator(".answers tbody tr").count() == 4
    assert "A window of a longer video, 30–60 s" in page.locator(".detail").inner_text()


@pytest.mark.parametrize(("duration", "share"), [(12.0, 1.0), (24.0, 0.5), (None, 1.0), (6.0, 1.0)])
def test_frames_stand_at_their_own_time(
    open_report: Opener, tmp_path: Path, duration: float | None, share: float
) -> None:
    """Whatever duration is stated: the clip lasts 12 s, and its truth begins in the middle."""
    write_mp4(tmp_path / "v.mp4", np.zeros((48, 48, 64, 3), dtype=np.uint8), 4.0)
    sample = Sample("v", "q", (Span(6, 9),), None, "unparsed", "", duration)
    page = open_report(written([Run.from_samples("run", [sample])], tmp_path, videos=[tmp_path]))
    box, frames, truth = (page.locator(name).bounding_box() for name in (".timeline", ".strip img", ".span.truth"))
    assert box is not None
    assert frames is not None
    assert truth is not None
    assert frames["width"] / box["width"] == pytest.approx(share, abs=0.01)
    assert (truth["x"] - box["x"]) / frames["width"] == pytest.approx(0.5, abs=0.01)


def test_real_clips(open_report: Opener, real_data: Path, tmp_path: Path) -> None:
    samples = [
        Sample(
            "3MSZA", "person turn a light on.", (Span(24.3, 30.4),), Span(22, 31), "parsed", "charades", 31.0, "22 - 31"
        ),
        Sample("OHOFG", "person sitting down in a chair.", (Span(1.0, 7.5),), None, "unparsed", "charades", 35.1, "?"),
    ]
    page = open_report(written([Run.from_samples("real", samples)], tmp_path, videos=[real_data / "charades"]))
    assert page.locator(".strip img").count() == 2
    until(page, "[...document.images].every(image => image.complete && image.naturalWidth > 1000)")
    item = page.locator('[data-moment="0"]')
    item.locator("button").first.click()
    item.locator(".play").first.click()
    until(page, "document.querySelector('video')?.currentTime >= 24.3")
    assert page.locator("video").evaluate("v => [v.videoWidth, v.videoHeight]") == [480, 270]


def test_ten_thousand_moments_open_in_time(open_report: Opener, tmp_path: Path) -> None:
    runs = [make_run(name, 10_000, seed=i, subsets=("all",)) for i, name in enumerate("ab")]
    path = written(runs, tmp_path)
    open_report(written([Run("warm", runs[0].cases[:2])], tmp_path / "warm"))  # the browser's own start is not ours
    taken = []
    for _ in range(3):  # the least disturbed of three: other tests run beside this one
        begin = time.perf_counter()
        page = open_report(path)
        until(page, "document.querySelectorAll('.sample').length === 25")
        taken.append(time.perf_counter() - begin)
    assert min(taken) < OPEN_SECONDS
    assert shown(page) == 10_000
    begin = time.perf_counter()
    page.locator("#filter-q").fill("number 9999")
    until(page, "document.querySelectorAll('.sample').length === 1")
    assert time.perf_counter() - begin < OPEN_SECONDS


def test_runs_on_the_benchmark_stand_among_the_published_results(open_report: Opener, tmp_path: Path) -> None:
    row = {"video": "v", "query": "q", "span": [[0, 10]], "pred": [0, 6], "status": "parsed", "duration": 20}
    file = tmp_path / "m" / "20260101_000000_samples_timelens_bench_charades.jsonl"
    file.parent.mkdir()
    file.write_text(json.dumps({"doc_id": 0, "filtered_resps": "0 - 6 s", "mIoU": row}) + "\n")
    page = open_report(written(load_runs([file], ["<b>mine</b>"]), tmp_path))
    board = page.locator("#leaderboard")
    assert board.locator("summary").all_inner_texts() == ["Charades-TimeLens: 3363 annotations, 1313 videos"]
    [mine] = board.locator("tr[data-run]").all()
    cells = mine.locator("td").all_inner_texts()
    assert cells[1:6] == ["<b>mine</b>", "100.0", "100.0", "0.0", "60.0"]
    assert board.locator("tbody").nth(0).locator("tr").count() == 19  # a heading and the paper's 18 models
    assert "settings not recorded, 1 of 3363 annotations" in board.inner_text()
