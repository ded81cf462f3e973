"""The file as text: nothing from data can become markup, and nothing in it points to the network."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timelens_plugins.cli import main
from timelens_plugins.metrics import Sample
from timelens_plugins.report import write_report, writing
from timelens_plugins.report.page import json_for_script, render_page
from timelens_plugins.results import Run
from timelens_plugins.spans import Span

NASTY = [
    "</script><script>window.broken = true</script>",
    "<!--<script>",
    "]]>",
    "\u2028\u2029",
    "quotes \" ' ` & &amp; \\",
    "🎬🏽‍♀️ emoji",
    "\u202eright to left שלום",
    "\x00\x07",
    "lone \ud800 surrogate",
    "{braces} %s",
]


class Elements(HTMLParser):
    """The start tags of a page, and the texts of its style and scripts, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.policy = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""
        self._inside = tag in ("script", "style")
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def page_of(title: str) -> str:
    return render_page({"title": title})


@given(
    st.recursive(st.text() | st.sampled_from(NASTY), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_data_survives_and_cannot_end_its_element(value: object) -> None:
    text = json_for_script(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_numbers_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_for_script([float("nan")])


@pytest.mark.parametrize("text", NASTY)
def test_any_title_leaves_the_elements_of_the_page_as_they_are(text: str) -> None:
    assert Elements(page_of(text)).tags == Elements(page_of("plain")).tags


def test_nasty_queries_and_answers_come_back_from_the_file(tmp_path: Path) -> None:
    samples = [
        Sample(f"clip{i}", text, (Span(0, 5),), Span(1, 4), "parsed", "", 10.0, text) for i, text in enumerate(NASTY)
    ]
    page = write_report([Run.from_samples("<b>run</b>", samples)], tmp_path / "r.html", progress=False).read_text()
    found = Elements(page)
    assert found.tags.count("script") == 2
    data = json.loads(found.scripts[1])
    assert data["moments"]["query"] == NASTY
    assert data["runs"][0]["name"] == "<b>run</b>"


def test_policy_allows_this_style_and_script_and_no_network() -> None:
    found = Elements(page_of("plain"))
    style, _, script = found.scripts
    rules = dict(rule.strip().split(" ", 1) for rule in found.policy.split(";"))
    for name, text in (("style-src", style), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["media-src"] == "'self' file:"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", "".join(found.scripts))


def test_script_never_makes_markup_of_text() -> None:
    script = Elements(page_of("plain")).scripts[2]
    for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser"):
        assert name not in script


def test_report_replaces_a_file_in_one_step_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "r.html"
    for query in ("first", "second"):
        sample = Sample("clip", query, (Span(0, 5),), None, "missing")
        assert write_report([Run.from_samples("run", [sample])], path, progress=False) == path
    assert "second" in path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["r.html"]


def test_page_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(writing, "tabulate", lambda _: pytest.fail("worked before it looked where to write"))
    for path, message in ((tmp_path, "a folder; name the page in it"), (tmp_path / "file" / "r.html", "is a file")):
        with pytest.raises(OSError, match=message):
            write_report(runs, path, progress=False)
        assert main(["report", "/no/such/results.json", "-o", str(path)]) == 2
        assert f"timelens report: --output {path}: " in capsys.readouterr().err


def test_failure_of_writing_is_told_of_the_page(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"r\.html: the page cannot be written: No space left") as caught:
        write_report(runs, tmp_path / "r.html", progress=False)
    assert ".partial" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_same_runs_give_the_same_bytes(tmp_path: Path, runs: list[Run]) -> None:
    a, b = (
        write_report(runs, tmp_path / name, title="t", progress=False).read_bytes() for name in ("a.html", "b.html")
    )
    assert a == b
