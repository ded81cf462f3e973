"""The review page in Chromium, what it exports, and two reviewers' exports merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from timelens_plugins.cli import main
from timelens_plugins.moments import Moment, load_moments, save_moments
from timelens_plugins.quality.auditing import findings_of, wording_evidence, write_findings
from timelens_plugins.quality.findings import Evidence
from timelens_plugins.quality.reviews import Decision, Part, Review, apply_review, digest_of, merge_reviews, read_review
from timelens_plugins.spans import Span

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

HOSTILE = "<img src=x onerror=alert(1)>he does \u202eit again</script>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Eight moments of four clips, five of them with findings."""
    from timelens_plugins.synthetic.benchmark import write_training_set

    folder = tmp_path_factory.mktemp("with space")
    write_training_set(folder, {"charades": 4}, seed=3, size=64, queries=2, progress=False)
    moments = list(load_moments(folder / "timelens-100k.jsonl"))[:8]
    queries = ["he does it again", HOSTILE, "something happens", "they leave", "it", None, None, None]
    moments = [replace(m, question=m.query, answer="from 1 to 2", iou=0.5) for m in moments]
    moments = [
        Moment(**{s: getattr(m, s) for s in Moment.__slots__} | {"query": q or m.query, "id": f"m{i}"})
        for i, (m, q) in enumerate(zip(moments, queries, strict=True))
    ]
    file = folder / "mine.jsonl"
    save_moments(moments, file)
    [span] = moments[0].spans
    better = Evidence("m0", "inaccurate", "made", 0.9, "is earlier", (), ((span.start, span.end - 0.5),))
    findings = folder / "f.jsonl"
    write_findings(findings_of(moments, [*wording_evidence(moments), better]), findings)
    page = folder / "review.html"
    assert main(
        ["review", str(file), "--findings", str(findings), "--videos", str(folder / "videos"), "-o", str(page)]
    ) == 0  # fmt: skip
    return {"file": file, "findings": findings, "page": page, "moments": list(load_moments(file)), "folder": folder}


@pytest.fixture
def page(browser: Browser, made: dict[str, Any]) -> Iterator[Page]:
    """The page, opened afresh; at the end nothing was said on the console and nothing but clips was fetched."""
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    said: list[str] = []
    fetched: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: fetched.append(request.url))
    opened(page, made)
    yield page
    assert not said
    assert all(url.startswith(("file:///", "data:", "blob:")) for url in fetched), fetched
    context.close()


def opened(page: Page, made: dict[str, Any]) -> None:
    page.goto(made["page"].as_uri())
    page.locator("html[data-ready=true]").wait_for(state="attached")


def current(page: Page) -> str:
    return str(page.locator(".card").get_attribute("data-moment"))


def exported(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def decide_all(page: Page, made: dict[str, Any]) -> dict[str, str]:
    """Every way to decide, by mouse and by keyboard; returns what was done to which moment."""
    done = {}
    done[current(page)] = "accept"
    page.keyboard.press("a")
    done[current(page)] = "reject"
    page.keyboard.press("x")
    done[current(page)] = "edit"
    page.fill(".ask", "a white square appears")
    page.locator(".times input").first.fill("0.5")
    page.locator(".times input").first.press("Tab")
    page.click("#edit")
    done[current(page)] = "split"
    page.click("#split")
    assert page.locator(".part").count() == 2
    page.locator(".ask").nth(1).fill("the second half")
    page.locator(".ask").nth(1).press("Tab")
    page.keyboard.press("Escape")
    page.locator("#edit").click()
    return done


def test_everything_is_decided_exported_and_read_back(page: Page, made: dict[str, Any], tmp_path: Path) -> None:
    assert page.locator("#progress").inner_text() == "0 of 5 moments decided"
    assert "onerror" in page.locator(".queue").inner_text(), "markup in data is text"
    done = decide_all(page, made)
    assert page.locator("#progress").inner_text() == "4 of 5 moments decided"
    opened(page, made)
    assert page.locator("#progress").inner_text() == "4 of 5 moments decided", "kept in the browser"
    page.fill("#reviewer", "Ann")
    page.locator("#reviewer").press("Tab")
    review = read_review(exported(page, "#save-review", tmp_path), made["moments"])
    assert (review.reviewer, review.faults) == ("Ann", ())
    assert {name: decision.action for name, decision in review.decisions.items()} == done
    corrected = load_moments(exported(page, "#save-corrected", tmp_path))
    by_hand = apply_review(made["moments"], review.decisions)
    assert [m.to_row() for m in corrected] == [m.to_row() for m in by_hand], "the page and the command do the same"
    edited = next(name for name, action in done.items() if action == "edit")
    [moment] = [m for m in corrected if m.id == edited]
    assert moment.query == "a white square appears"
    assert moment.spans[0].start == 0.5
    assert len(corrected) == 8 - 1 + 1
    path = tmp_path / "mine.review.json"
    out = tmp_path / "corrected.jsonl"
    assert main(["review", str(made["file"]), "--apply", str(path), "-o", str(out)]) == 0
    assert [m.to_row() for m in load_moments(out)] == [m.to_row() for m in by_hand]


def test_undo_filters_and_a_loaded_review(page: Page, made: dict[str, Any], tmp_path: Path) -> None:
    first = current(page)
    page.keyboard.press("x")
    assert current(page) != first
    page.keyboard.press("u")
    assert current(page) == first
    assert page.locator(".state").inner_text() == "Not decided yet"
    page.select_option("#kind", "inaccurate")
    assert page.locator(".queue li").count() == 1
    page.locator(".queue button").click()
    assert current(page) == "m0"
    page.get_by_role("button", name="take").first.click()
    before = made["moments"][0].spans[0]
    assert page.locator(".times input").nth(1).input_value() == f"{before.end - 0.5:g}"
    page.keyboard.press("s")
    page.select_option("#kind", "")
    page.check("#left")
    assert page.locator(".queue li").count() == 4
    saved = exported(page, "#save-review", tmp_path)
    page.evaluate("localStorage.clear()")
    opened(page, made)
    assert page.locator("#progress").inner_text() == "0 of 5 moments decided"
    page.set_input_files("#load", saved)
    page.locator("#progress", has_text="1 of 5").wait_for()
    other = json.loads(saved.read_text()) | {"digest": "another"}
    by_hand = tmp_path / "by hand.json"
    part = {"query": "q", "spans": [[1, 2]]}
    rows = [
        {"moment": "m1", "action": "reject"},
        {"moment": "m1", "action": "accept"},
        {"moment": "m2", "action": "edit"},
        {"moment": "m2", "action": "edit", "parts": [part, part]},
        {"moment": "m2", "action": "edit", "parts": [part | {"spans": [[1, 1000]]}]},
        {"moment": "m2", "action": "edit", "parts": [part | {"spans": [3]}]},
        {"moment": "m2", "action": "edit", "parts": [None]},
        {"moment": "m2", "action": "split", "parts": [part]},
        {"moment": "m2", "action": "accept", "parts": [part]},
        None,
    ]
    by_hand.write_text(json.dumps(json.loads(saved.read_text()) | {"decisions": rows}))
    page.set_input_files("#load", by_hand)
    page.locator("#progress", has_text="2 of 5").wait_for()
    assert len(load_moments(exported(page, "#save-corrected", tmp_path))) == 7
    assert read_review(exported(page, "#save-review", tmp_path), made["moments"]).decisions["m1"].action == "reject"
    read = read_review(by_hand, made["moments"])
    assert (list(read.decisions), len(read.faults)) == (["m1"], 9), "the command takes the same"
    foreign = tmp_path / "foreign.json"
    foreign.write_text(json.dumps(other))
    page.set_input_files("#load", foreign)
    page.locator("#said", has_text="other annotations").wait_for()


def test_ends_are_dragged_and_moved_by_keys_and_wrong_ones_refused(page: Page, made: dict[str, Any]) -> None:
    track = page.locator(".track.edited")
    box = track.bounding_box()
    assert box is not None
    end = float(page.locator(".times input").nth(1).input_value())
    handle = page.locator(".handle").first
    handle.hover()
    page.mouse.down()
    page.mouse.move(box["x"] + 2, box["y"] + 5)
    page.mouse.up()
    assert float(page.locator(".times input").first.input_value()) < 0.3
    page.locator(".handle").nth(1).focus()
    page.keyboard.press("ArrowLeft")
    assert float(page.locator(".times input").nth(1).input_value()) == pytest.approx(end - 0.1)
    page.locator(".times input").nth(1).fill("0")
    page.locator(".times input").nth(1).press("Tab")
    page.click("#edit")
    assert "must end after its start" in page.locator("#said").inner_text()
    page.locator(".times input").nth(1).fill("500")
    page.locator(".times input").nth(1).press("Tab")
    page.click("#edit")
    assert "ends after the end of the clip" in page.locator("#said").inner_text()
    assert page.locator("#progress").inner_text().startswith("0 of")


def test_clips_are_played_from_the_given_folder_only(made: dict[str, Any], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = made["moments"][0].video
    (elsewhere / first).parent.mkdir(parents=True)
    (elsewhere / first).symlink_to(made["folder"] / "videos" / first)
    words = ["review", str(made["file"]), "--findings", str(made["findings"])]
    assert main([*words, "--videos", str(elsewhere), "-o", str(page)]) == 0
    assert "data:image" not in page.read_text()
    assert "clips are not in" in page.read_text()


def moments() -> list[Moment]:
    return [Moment(f"m{i}", f"v{i}.mp4", f"v{i}", f"query {i}", (Span(1, 5),), 20.0, "made") for i in range(6)]


def review(**decisions: Decision) -> Review:
    return Review("f", digest_of(moments()), "r", decisions)


def edit(name: str, *spans: tuple[float, float], query: str | None = None) -> Decision:
    return Decision(name, "edit", (Part(query or f"query {name[1:]}", tuple(Span(*s) for s in spans)),))


def test_two_reviews_are_merged() -> None:
    """Kappa by hand: of five moments four alike; labels keep, keep, change, reject, change against keep, keep, change,
    reject, keep: expected agreement (2*3 + 2*1 + 1*1) / 25."""
    first = review(
        m0=Decision("m0", "accept"),
        m1=Decision("m1", "accept"),
        m2=edit("m2", (2, 12)),
        m3=Decision("m3", "reject"),
        m4=edit("m4", (8, 9)),
        m5=edit("m5", (0, 1)),
    )
    second = review(
        m0=Decision("m0", "accept"),
        m1=Decision("m1", "accept"),
        m2=edit("m2", (2, 12.5)),
        m3=Decision("m3", "reject"),
        m4=Decision("m4", "accept"),
    )
    merged, agreement = merge_reviews(moments(), first, second)
    assert agreement.both == 5
    assert agreement.same == 4
    expected = (2 * 3 + 2 * 1 + 1 * 1) / 25
    assert agreement.kappa == pytest.approx((0.8 - expected) / (1 - expected))
    assert agreement.iou == pytest.approx((1 + 1 + 10 / 10.5 + 0) / 4)
    assert agreement.conflicts == ("m4",)
    assert merged["m2"] == first.decisions["m2"]
    assert merged["m5"].action == "edit", "what one alone decided counts"
    after = {m.id: m for m in apply_review(moments(), merged)}
    assert after.keys() == {"m0", "m1", "m2", "m4", "m5"}
    assert after["m4"] == moments()[4]
    alone, nothing = merge_reviews(moments(), first, review())
    assert (nothing.both, nothing.kappa, nothing.iou) == (0, None, None)
    assert alone == first.decisions


def test_a_review_edited_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What does not fit is named and counted; the rest counts."""
    file = tmp_path / "a.jsonl"
    save_moments(moments(), file)
    rows = [
        {"moment": "m0", "action": "reject"},
        {"moment": "m0", "action": "accept"},
        {"moment": "gone", "action": "accept"},
        {"moment": "m1", "action": "delete"},
        {"moment": "m2", "action": "edit", "parts": [{"query": "q", "spans": [[5, 2]]}]},
        {"moment": "m3", "action": "edit", "parts": []},
        {"moment": "m4", "action": "edit", "parts": [{"query": " ", "spans": [[1, 2]]}]},
        {"moment": "m5", "action": "edit", "parts": [{"query": "q", "spans": [[30, 40]]}]},
        "nonsense",
        {"moment": "m5", "action": "edit", "parts": [{"query": "q", "spans": [[1, 10**400]]}]},
        {"moment": "m5", "action": "edit", "parts": [{"query": "q", "spans": [[1, 1000]]}]},
        {"moment": "m5", "action": "edit", "parts": [{"query": "q\ud800", "spans": [[1, 2]]}]},
    ]
    content = {"format": "timelens-review", "version": 1, "digest": digest_of(moments()), "decisions": rows}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    out = tmp_path / "out.jsonl"
    assert main(["review", str(file), "--apply", str(path), "-o", str(out)]) == 1
    err = capsys.readouterr().err
    assert err.count("left out:") == 11
    assert "decided twice" in err
    assert [m.id for m in load_moments(out)] == ["m1", "m2", "m3", "m4", "m5"]
    for broken, message in (
        ("[]", "not a review"),
        ("{", "not JSON"),
        (json.dumps(content | {"digest": "x"}), "other annotations"),
        (json.dumps(content | {"decisions": 3}), "no list of decisions"),
    ):
        path.write_text(broken)
        assert main(["review", str(file), "--apply", str(path), "-o", str(out)]) == 2
        assert message in capsys.readouterr().err


def test_bad_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jsonl"
    save_moments(moments(), file)
    findings = tmp_path / "f.jsonl"
    findings.write_text("")
    words = ["review", str(file), "--findings", str(findings), "-o", str(tmp_path / "r.html")]
    assert main(words) == 2
    assert "no finding is left" in capsys.readouterr().err
    assert main([*words, "--kind", "odd"]) == 2
    assert "unknown; known: absent" in capsys.readouterr().err
    write_findings(findings_of(moments(), [Evidence("m0", "unclear", "s", 1.0, "r")]), findings)
    assert main([*words, "--videos", str(tmp_path / "none")]) == 2
    assert "no folder of videos" in capsys.readouterr().err
    assert main([*words, "--strips", "3"]) == 2
    assert "--strips needs --videos" in capsys.readouterr().err
    applied = ["review", str(file), "--apply", str(findings)]
    assert main([*applied, "-o", str(tmp_path / "o.jsonl"), "--kind", "unclear"]) == 2
    assert "--kind: without effect with --apply" in capsys.readouterr().err
    assert main([*applied, str(findings), "-o", str(tmp_path / "o.jsonl")]) == 2
    assert "given twice" in capsys.readouterr().err
    save_moments([replace(moments()[0], query="another"), *moments()[1:]], file)
    assert main(words) == 2
    assert "such as 'm0': the file was edited since" in capsys.readouterr().err
    save_moments(moments()[1:], file)
    assert main(words) == 2
    assert "not in" in capsys.readouterr().err


def test_nothing_is_left_that_was_said_of_the_former_label(tmp_path: Path) -> None:
    said = replace(moments()[0], question="when?", answer="1 - 5", iou=0.3, flags=frozenset({"duplicate"}))
    [same] = apply_review([said], {"m0": edit("m0", (1, 5))})
    assert same == said
    [moved] = apply_review([said], {"m0": edit("m0", (2, 25))})
    assert moved == replace(
        moments()[0], question="when?", spans=(Span(2, 25),), flags=frozenset({"span_beyond_duration"})
    )
    [reworded] = apply_review([said], {"m0": edit("m0", (1, 5), query="where?")})
    assert reworded == replace(moments()[0], query="where?", question="where?")
    named = [said, replace(moments()[1], id="m0/2")]
    parts = edit("m0", (1, 2)).parts + edit("m0", (3, 4)).parts
    with pytest.raises(ValueError, match="its part 'm0/2' has the id of another moment"):
        apply_review(named, {"m0": Decision("m0", "split", parts)})


def test_a_film_strip_is_that_of_the_window(made: dict[str, Any], tmp_path: Path) -> None:
    first = made["moments"][0]
    windows = [
        replace(first, id=f"w{i}", video_start=float(i), video_end=i + 4.0, duration=4.0, spans=(Span(1, 2),))
        for i in (0, 3)
    ]
    file, findings, page = (tmp_path / name for name in ("w.jsonl", "f.jsonl", "r.html"))
    save_moments(windows, file)
    write_findings(findings_of(windows, [Evidence(m.id, "unclear", "s", 1.0, "r") for m in windows]), findings)
    videos = str(made["folder"] / "videos")
    assert main(["review", str(file), "--findings", str(findings), "--videos", videos, "-o", str(page)]) == 0
    assert page.read_text().count("data:image/jpeg") == 2
