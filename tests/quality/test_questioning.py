"""``timelens audit --model``: what a model's own answers say of labels, asked once and kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_annotator import Annotator

from timelens_plugins.cli import main
from timelens_plugins.moments import load_moments, save_moments
from timelens_plugins.quality.auditing import read_findings
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.benchmark import write_training_set


def test_absent_events_and_wrong_spans_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_training_set(tmp_path, 2, queries=2, size=64, progress=False)
    videos = tmp_path / "videos"
    moments = list(load_moments(file, video_root=videos))
    truths: dict[str, dict[str, tuple[float, float]]] = {}
    for m in moments:
        truths.setdefault(m.video, {})[m.query] = (m.spans[0].start, m.spans[0].end)
    absent = replace(moments[0], query="a green dragon flies over a castle")
    start, end = moments[3].spans[0]
    moved = replace(moments[3], spans=(Span(end, end + 2.0) if start < 3 else Span(0.0, start - 1.0),))
    (videos / "broken.mp4").write_text("no video")
    broken = replace(moments[1], id="broken", video=str(videos / "broken.mp4"), video_id="broken")
    gone = replace(moments[1], id="gone", video=str(videos / "gone.mp4"), video_id="gone")
    mine = tmp_path / "mine.jsonl"
    save_moments([absent, *moments[1:3], moved, *moments[4:], broken, gone], mine)
    endpoint = Annotator(truths)
    with endpoint.running() as url:
        command = ["audit", str(mine), "--videos", str(videos), "-o", str(tmp_path / "found.jsonl")]
        command += ["--engine", "api", "--model", "scripted", "--engine-args", f"base_url={url},preset=gpt"]
        assert main([*command, "--samples", "4"]) == 0
        printed = capsys.readouterr().out
        asked = len(endpoint.requests)
        found = read_findings(tmp_path / "found.jsonl")
        assert main([*command, "--samples", "4"]) == 0
        assert len(endpoint.requests) == asked
        assert read_findings(tmp_path / "found.jsonl") == found
    assert asked == 2 * len(moments), "where it is, and whether"
    assert {body["n"] for body in endpoint.requests} == {4}
    signals = {(f.moment, e.signal): e for f in found for e in f.evidence}
    of_model = ("said not to happen", "answers agree elsewhere")
    assert {key for key in signals if key[1] in of_model} == {
        (absent.id, "said not to happen"),
        (absent.id, "answers agree elsewhere"),
        (moved.id, "answers agree elsewhere"),
    }
    assert signals[absent.id, "said not to happen"].strength == 1.0
    assert signals[moved.id, "answers agree elsewhere"].spans == ((start, end),)
    assert f"scripted: {len(moments)} of {len(moments) + 2} moments were asked about" in printed
    assert "2 videos could not be looked at" in printed
    rows = [json.loads(line) for line in (tmp_path / "found.jsonl.journal" / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == asked


def test_answers_with_other_ends_of_lines_and_questions_of_chat_rows(tmp_path: Path) -> None:
    """The check asks for the query alone, not for its prompt, and U+2028 in an answer is no end of a row."""
    file = write_training_set(tmp_path, 1, queries=1, size=64, progress=False)
    moment = load_moments(file, video_root=tmp_path / "videos")[0]
    truths = {moment.video: {moment.query: (moment.spans[0].start, moment.spans[0].end)}}
    mine = tmp_path / "mine.jsonl"
    question = f'Find "{moment.query}" in the video.\u2028Give the answer in seconds.'
    chat = replace(moment, id="a", query=question, question=question, answer="[1, 2]")
    save_moments([chat, replace(moment, id="a?", spans=(Span(0, 0.5),))], mine)
    endpoint = Annotator(truths)
    with endpoint.running() as url:
        command = ["audit", str(mine), "--videos", str(tmp_path / "videos"), "--journal", str(tmp_path / "j")]
        command += ["--engine", "api", "--model", "scripted", "--engine-args", f"base_url={url},preset=gpt"]
        assert main([*command, "--samples", "2"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "j" / "answers.jsonl").open(encoding="utf-8")]
    assert {row["id"] for row in rows} == {"a", "a?", "a??", "a???"}
    asked = json.dumps(endpoint.requests)
    assert f"Does this happen in the video: {moment.query}?" in asked
    assert "Does this happen in the video: Find" not in asked


def test_options_that_cannot_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("video,query,start,end\nv.mp4,a dog barks,1,2\n")
    for options, message in (
        (["--engine", "api"], "--engine needs --model"),
        (["--model", "m"], "--model needs --videos"),
        (["--model", "m", "--videos", str(tmp_path)], "--model needs -o or --journal"),
        (["--model", "m", "--videos", str(tmp_path), "--journal", str(tmp_path / "j")], "none of 1 videos is there"),
    ):
        assert main(["audit", str(mine), *options]) == 2
        assert message in capsys.readouterr().err
