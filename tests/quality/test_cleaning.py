"""Findings taken at their word: what is left out, what is mended, and that nothing else changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from timelens_plugins.cli import main
from timelens_plugins.moments import Moment, load_moments, save_moments
from timelens_plugins.quality.cleaning import clean
from timelens_plugins.quality.findings import Evidence, Finding, Kind
from timelens_plugins.spans import Span


def moment(name: str) -> Moment:
    return Moment(name, "v.mp4", "v", f"query {name}", (Span(1, 5),), 30.0, "made")


def finding(name: str, kind: Kind, score: float, *signs: Evidence) -> Finding:
    return Finding(name, "v.mp4", f"query {name}", ((1.0, 5.0),), kind, score, signs)


def sign(name: str, signal: str, *spans: tuple[float, float]) -> Evidence:
    return Evidence(name, "inaccurate", signal, 0.9, "", (), spans)


def test_what_is_likely_wrong_goes_or_is_mended() -> None:
    moments = [moment(name) for name in ("right", "doubtful", "absent", "moved", "both", "unknown")]
    findings = [
        finding("doubtful", "several", 0.4),
        finding("absent", "absent", 0.8),
        # what it is compared with is no better span; the place that changes is
        finding(
            "moved",
            "inaccurate",
            0.9,
            sign("moved", "spans disagree", (9, 9.5)),
            sign("moved", "no change at its ends", (7, 9)),
        ),
        finding("both", "inaccurate", 0.9, sign("both", "no change at its ends", (7, 9))),
        finding("both", "unclear", 0.7),
        finding("unknown", "inaccurate", 0.9, sign("unknown", "whole clip")),
    ]
    kept, changes = clean(moments, findings, 0.5)
    assert [m.id for m in kept] == ["right", "doubtful", "moved"]
    assert kept[2].spans == (Span(7, 9),)
    assert kept[:2] == moments[:2]
    told = replace(moments[3], question="where?", answer="1 - 5", iou=0.1, flags=frozenset({"zero_length_span"}))
    assert clean([told], findings[2:3], 0.5)[0] == [replace(kept[2], question="where?")]
    said = {(c.moment, c.field, c.check) for c in changes}
    assert said == {
        ("absent", "moment", "absent"),
        ("moved", "spans", "inaccurate"),
        ("both", "moment", "inaccurate"),
        ("unknown", "moment", "inaccurate"),
    }
    assert {c.moment for c in changes if c.after is None} == {"absent", "both", "unknown"}
    assert [m.id for m in clean(moments, findings, 0.5, mend=False)[0]] == ["right", "doubtful"]
    assert [m.id for m in clean(moments, findings, 0.3)[0]] == ["right", "moved"]
    assert clean(moments, [], 0.5) == (moments, [])
    for outside in ((100, 200), (20, 31), (7, 7)):  # what a model said, though the clip lasts 30 s
        said = finding("right", "inaccurate", 0.9, sign("right", "answers agree elsewhere", outside))
        assert clean(moments[:1], [said], 0.5)[0] == []
    with pytest.raises(ValueError, match="threshold must lie between"):
        clean(moments, [], 1.5)
    with pytest.raises(ValueError, match="'other', which the annotations do not hold"):
        clean(moments, [finding("other", "absent", 0.1)])


def test_the_command_writes_a_cleaned_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, out = tmp_path / "mine.jsonl", tmp_path / "clean.jsonl"
    texts = ("a dog catches a red ball", "he does it again", "a girl opens a wooden door")
    moments = [Moment(str(i), f"{i}.mp4", str(i), text, (Span(1, 5),), 30.0, "made") for i, text in enumerate(texts)]
    save_moments(moments, mine)
    assert main(["audit", str(mine), "--clean", str(out)]) == 0
    assert "2 moments; 0 spans replaced, 1 left out (clean.jsonl.changes.jsonl)" in capsys.readouterr().out
    assert list(load_moments(out)) == [moments[0], moments[2]]
    [change] = [json.loads(line) for line in (tmp_path / "clean.jsonl.changes.jsonl").read_text().splitlines()]
    assert (change["moment"], change["check"], change["before"]["query"]) == ("1", "unclear", "he does it again")
    assert main(["audit", str(mine), "--clean", str(mine)]) == 2
    assert "would replace a file that is read" in capsys.readouterr().err
