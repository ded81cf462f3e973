"""``timelens annotate``: right spans come out, wrong ones are mended or dropped, nothing is lost or asked twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoints import Body, question_of
from scripted_annotator import Annotator, Truth
from serving import serving

from timelens_plugins.answers import AnswerStatus, ParsedAnswer, parse_answer
from timelens_plugins.cli import main
from timelens_plugins.inference.engines import ENGINES
from timelens_plugins.moments import load_moments
from timelens_plugins.quality import validate
from timelens_plugins.quality.annotate import AnnotateSettings, Candidate, annotate
from timelens_plugins.quality.annotate.candidates import drop_doubles, fault_of_query, judge, spread
from timelens_plugins.quality.annotate.prompting import FOLDER, NEEDED, read_prompts
from timelens_plugins.quality.annotate.replies import Declined, ReplyFault, Said, read_events, read_query
from timelens_plugins.quality.asking import _OPENERS, ModelChoice, parse_choice
from timelens_plugins.spans import Span, temporal_iou
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.synthetic.grounder import TRAINED_CHECKPOINT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    """A folder of clips with three events each, and what happens in them."""
    root = tmp_path_factory.mktemp("made")
    file = write_training_set(root, 4, queries=3, size=64, progress=False)
    truths: dict[str, Truth] = {}
    for line in file.read_text().splitlines():
        row = json.loads(line)
        events = {event["query"]: tuple(event["span"][0]) for event in row["events"]}
        if len(events) == 3 and len(truths) < 3:
            truths[str(root / "videos" / row["video_path"])] = events
    assert len(truths) == 3
    folder = root / "three"
    for path in list(truths):
        target = folder / Path(path).name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
        truths[str(target)] = truths.pop(path)
    return folder, truths


@pytest.fixture
def scripted(made: tuple[Path, dict[str, Truth]]) -> Iterator[tuple[Annotator, ModelChoice]]:
    endpoint = Annotator(made[1])
    with endpoint.running() as url:
        yield endpoint, ModelChoice("api", "scripted", {"base_url": url, "preset": "gpt", "concurrency": 2})


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


SETTINGS = AnnotateSettings(events=7)


def test_right_spans_come_out_and_wrong_ones_do_not(
    made: tuple[Path, dict[str, Truth]],
    scripted: tuple[Annotator, ModelChoice],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder, truths), (endpoint, choice) = made, scripted
    output = tmp_path / "out.jsonl"
    report = annotate([folder], output, choice, settings=SETTINGS)
    said = capsys.readouterr().out
    rows = rows_of(output)
    assert [row["video_path"] for row in rows] == sorted(Path(path).name for path in truths)
    for row in rows:
        truth = truths[str(folder / row["video_path"])]
        first, second, _ = truth
        assert {e["query"]: tuple(e["span"][0]) for e in row["events"]} == {q: truth[q] for q in (first, second)}
        repaired = {event["query"]: event["provenance"]["repairs"] for event in row["events"]}
        assert repaired[first] == []
        assert [repair["for"] for repair in repaired[second]] == ["inaccurate"]
        for event in row["events"]:
            [grounding] = event["provenance"]["groundings"]
            assert (grounding["grounder"], grounding["iou"]) == ("scripted", 1.0)
        assert row["provenance"]["annotator"] == "scripted"
    assert (report.confirmed, report.repaired, report.proposals, report.unasked) == (3, 3, 27, 0)
    reasons = {"inaccurate": 3, "audio query": 3, "declined": 6, "duplicate": 3, "unreadable answer": 6}
    assert report.dropped == reasons
    dropped = rows_of(tmp_path / "out.jsonl.dropped.jsonl")
    assert Counter(row["reason"] for row in dropped) == reasons
    assert len(dropped) + 6 == report.proposals, "every proposal is somewhere"
    late = [row["detail"] for row in dropped if "too late" in row["detail"]]
    assert len(late) == 3
    assert "lies outside the" in late[0]
    assert not (tmp_path / "out.jsonl.failed.jsonl").exists()
    assert validate(output, folder).problems == ()
    loaded = load_moments(output, video_root=folder)
    assert loaded.report.format == "timelens_100k"
    # Counted as the engine counts: every question once, none twice.
    asked = Counter(json.dumps(body["messages"]) for body in endpoint.requests)
    assert set(asked.values()) == {1}
    assert report.asked == {"scripted": (len(asked), 0, 10 * len(asked))}
    assert f"{1000 * len(asked)} prompt and {10 * len(asked)} output tokens" in said
    written = output.read_bytes()
    again = annotate([folder], output, choice, settings=SETTINGS)
    assert len(endpoint.requests) == len(asked)
    assert again.asked == {"scripted": (0, len(asked), 0)}
    assert output.read_bytes() == written


def test_two_grounders_have_to_agree_and_ends_are_refined(
    made: tuple[Path, dict[str, Truth]], scripted: tuple[Annotator, ModelChoice], tmp_path: Path
) -> None:
    """The demo's trained model is the second grounder: it errs, so less is confirmed, and what is, is right."""
    (folder, truths), (endpoint, choice) = made, scripted
    trained = parse_choice(f"model={TRAINED_CHECKPOINT},prompt=grounding,fps=2,min_tokens=1,total_tokens=1,device=cpu")
    strict = AnnotateSettings(events=7, min_iou=0.6, refine=True)
    report = annotate([folder], tmp_path / "out.jsonl", choice, [choice, trained], settings=strict)
    assert 0 < report.annotations <= 6
    assert report.annotations + sum(report.dropped.values()) == report.proposals
    for row in rows_of(tmp_path / "out.jsonl"):
        truth = truths[str(folder / row["video_path"])]
        for event in row["events"]:
            was = event["provenance"].get("before_refinement", event["span"][0])
            assert tuple(was) == truth[event["query"]]
            assert [g["grounder"] for g in event["provenance"]["groundings"]] == ["scripted", str(TRAINED_CHECKPOINT)]
            assert all(g["iou"] >= 0.6 for g in event["provenance"]["groundings"])
            assert temporal_iou(was, event["span"][0]) >= 0.5
    parts = [question_of(b) for b in endpoint.requests if question_of(b).startswith("This is a part")]
    assert len(parts) == report.annotations + report.dropped.get("duplicate", 0)


def test_a_killed_run_goes_on(
    made: tuple[Path, dict[str, Truth]], scripted: tuple[Annotator, ModelChoice], tmp_path: Path
) -> None:
    (folder, _), (endpoint, choice) = made, scripted
    whole, output = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    arguments = f"base_url={choice.options['base_url']},preset=gpt,concurrency=1"
    one_by_one = ModelChoice("api", "scripted", choice.options | {"concurrency": 1})
    annotate([folder], whole, one_by_one, settings=SETTINGS)
    needed = len(endpoint.requests)
    endpoint.requests.clear()
    endpoint.delay = 0.05
    command = [
        sys.executable,
        "-c",
        "import sys, timelens_plugins.cli as c; sys.exit(c.main())",
        "annotate",
        str(folder),
        "-o",
        str(output),
    ]
    command += ["--engine", "api", "--model", "scripted", "--engine-args", arguments, "--events", "7"]
    for least in (5, needed // 2):
        process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while len(endpoint.requests) < least:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not output.exists()
    report = annotate([folder], output, one_by_one, settings=SETTINGS)
    assert output.read_bytes() == whole.read_bytes()
    [(asked, earlier, _)] = report.asked.values()
    assert asked + earlier == needed
    assert earlier >= needed // 2 - 2
    assert len(endpoint.requests) <= needed + 2, "twice at most what was under way when it was killed"


def test_what_cannot_be_read_is_named_and_counted(
    made: tuple[Path, dict[str, Truth]],
    tiny_checkpoints: dict[str, Path],
    real_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real server, a real model that writes garbage, real clips, one that breaks in the middle, one that is none."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("3MSZA.mp4", "OHOFG.mp4"):
        shutil.copy(real_data / "charades" / name, folder)
    content = bytearray((real_data / "charades" / "3MSZA.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 4] = bytes(len(content) // 4)
    (folder / "broken.mp4").write_bytes(content)
    (folder / "none.mp4").write_text("this is no video")
    output = tmp_path / "out.jsonl"
    with serving(tiny_checkpoints["qwen2_5_vl"], tmp_path / "serve.log") as url:
        model = str(tiny_checkpoints["qwen2_5_vl"])
        command = ["annotate", str(folder), "-o", str(output), "--engine", "api", "--model", model]
        command += ["--engine-args", f"base_url={url},preset=gpt,concurrency=1", "--max-new-tokens", "8"]
        assert main(command) == 1
        first = capsys.readouterr().out
        assert main(command) == 1
        second = capsys.readouterr().out
    assert "4 videos, 2 events proposed" in first
    assert "2 dropped: unreadable answer" in first
    assert "2 videos with questions that have no answer" in first
    named = [line.count(name) for name in ("none.mp4", "broken.mp4") for line in first.splitlines() if name in line]
    assert named == [1, 1], first
    assert "2 questions answered, 0 by earlier runs" in first
    assert "0 questions answered, 2 by earlier runs" in second
    assert output.read_text() == ""
    failed = {row["video_path"]: row["error"] for row in rows_of(tmp_path / "out.jsonl.failed.jsonl")}
    assert sorted(failed) == ["broken.mp4", "none.mp4"]
    dropped = rows_of(tmp_path / "out.jsonl.dropped.jsonl")
    assert sorted(row["video_path"] for row in dropped) == ["3MSZA.mp4", "OHOFG.mp4"]
    assert all("no object in the answer" in row["detail"] for row in dropped), "with what was written"


def test_an_endpoint_that_cannot_be_asked(
    made: tuple[Path, dict[str, Truth]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One refused request costs its event, and is asked again; a wrong key ends the run in one line."""
    folder, truths = made
    output = tmp_path / "out.jsonl"
    refused = next(iter(next(iter(truths.values()))))
    ill = [True]

    class Faulty(Annotator):
        def reply(self, body: Body) -> tuple[int, dict[str, str], bytes, str]:
            text = question_of(body)
            if ill[0] and text.startswith("Find every moment") and f"happens: {refused}\n" in text:
                return 400, {}, json.dumps({"error": {"message": "too sharp"}}).encode(), ""
            return super().reply(body)

    endpoint = Faulty(truths, key="right")
    with endpoint.running() as url:
        command = ["annotate", str(folder), "-o", str(output), "--events", "7", "--engine", "api", "--model", "m"]
        command += ["--engine-args", f"base_url={url},preset=gpt,key_variable=TIMELENS_TEST_KEY"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TIMELENS_TEST_KEY", "wrong")
            assert main(command) == 2
            error = capsys.readouterr().err
            assert "HTTP 401" in error
            assert "the same command goes on" in error
            assert "wrong" not in error
            patch.setenv("TIMELENS_TEST_KEY", "right")
            assert main(command) == 1
            assert "1 not decided: a question about them has no answer" in capsys.readouterr().out
            [failed] = rows_of(tmp_path / "out.jsonl.failed.jsonl")
            assert (failed["query"], "too sharp" in failed["error"]) == (refused, True)
            ill[0] = False
            assert main(command) == 0
    assert not (tmp_path / "out.jsonl.failed.jsonl").exists()
    assert sum(len(row["events"]) for row in rows_of(output)) == 6


# ---------------------------------------------------------------- what decides without a model


def test_answers_are_read_strictly() -> None:
    events, faults = read_events('[{"event": "a", "start": 1, "end": "0:05"}, {"event": "b", "start": 5, "end', 30.0)
    assert (events, faults) == ([Said("a", Span(1.0, 5.0))], [])
    events, faults = read_events('{"events": [{"event": "a", "start": "1 s", "end": 30.4}]}', 30.0)
    assert (events, faults) == ([Said("a", Span(1.0, 30.0))], [])
    for text, fault in (
        ("", "no object"),
        ("[]", "no object"),
        ("{" * 100_000, "no object"),
        ('{"event": "", "start": 1, "end": 2}', "no text under 'event'"),
        ('{"event": "\\ud83d", "start": 1, "end": 2}', "half a character under 'event'"),
        ('{"event": " . ", "start": 1, "end": 2}', "no text under 'event'"),
        ('{"event": "a", "start": true, "end": 2}', "no time under 'start'"),
        ('{"event": "a", "start": NaN, "end": 2}', "no time under 'start'"),
        ('{"event": "a", "start": 5, "end": 2}', "5 to 2 s is no span"),
        ('{"event": "a", "start": 5, "end": 31}', "outside the 30 s"),
        ('{"event": "a\\u0000b", "start": 1, "end": 2}', "a NUL under 'event'"),
        ('{"event": "a", "start": 1, "end": ' + "9" * 400 + "}", "no time under 'end'"),
        ('{"event": "a", "start": 1, "end": "' + "9" * 400 + ':00"}', "no time under 'end'"),
        ('{"event": "a", "start": 1, "end": "' + "9" * 5000 + ':00"}', "no time under 'end'"),
        ('{"event": "a", "start": 1.001, "end": 1.004}', "covers no hundredth"),
        ('{"event": "a", "start": 29.998, "end": 30}', "covers no hundredth"),
    ):
        events, [said] = read_events(text, 30.0)
        assert (events, fault in said) == ([], True), said
    assert read_query('{"query": "a man", "start": 1, "end": 13}', 12.996).span == Span(1.0, 12.996)
    assert read_query('{"query": "A  man\\n runs.", "start": 1, "end": 2}', 30.0).text == "A man runs"
    with pytest.raises(Declined):
        read_query('{"query": null}', 30.0)
    with pytest.raises(ReplyFault, match="no text under 'query'"):
        read_query('{"query": 3, "start": 1, "end": 2}', 30.0)


def test_what_is_kept_of_too_many_is_spread() -> None:
    said = [Said(str(at), Span(at, at + 1.0)) for at in (0.0, 0.1, 0.2, 0.3, 10.0, 20.0)]
    assert [said[i].span.start for i in spread(said, 3)] == [0.0, 10.0, 20.0]
    assert spread(said, 6) == list(range(6))


def test_groundings_are_held_against_the_label() -> None:
    def against(*texts: str, min_iou: float = 0.5) -> str | None:
        found = judge(Span(10, 20), [parse_answer(text, duration=60.0) for text in texts], min_iou)
        return None if found is None else found[0]

    assert against("[[10, 20]]") is None
    assert against("[[11, 20]]", min_iou=0.9) is None
    assert against("[[11.1, 20]]", min_iou=0.9) == "inaccurate"
    assert against("[[10, 20], [40, 50]]", min_iou=0.6) == "several"
    assert against("[[30, 50]]") == "inaccurate"
    assert against("[]") == "absent"
    assert against("blue") == "unreadable grounding"
    assert against("[[10, 20]]", "[[30, 50]]") == "inaccurate"
    assert judge(Span(1, 2), [ParsedAnswer([], AnswerStatus.EMPTY)], 0.5) is not None


def test_every_engine_can_be_opened() -> None:
    assert set(_OPENERS) == set(ENGINES), "a new engine needs its line there"


def test_sentences_are_judged_by_themselves() -> None:
    assert fault_of_query("a man opens a door") is None
    assert (fault_of_query("a dog barks and the sound of rain") or "")[0] == "audio query"
    assert (fault_of_query("he does it again") or "")[0] == "unclear query"


def test_one_of_equal_annotations_stays() -> None:
    def candidate(number: int, text: str, start: float, end: float, video: str = "v") -> Candidate:
        return Candidate(video, number, said=Said(text, Span(start, end)))

    others = [
        candidate(9, f"a {who} {what} a {thing}", 1, 5, f"{who}{what}{thing}")
        for who in ("man", "dog")
        for what in ("washes", "paints", "lifts")
        for thing in ("box", "cup", "wall", "shoe")
    ]
    same = [candidate(1, "a person opens the door", 2, 6), candidate(2, "person opens a door", 2, 6.5)]
    twice = [candidate(1, "a girl throws a ball", 2, 6, "w"), candidate(2, "a girl throws the ball", 20, 26, "w")]
    other = [candidate(1, "a person turns on a light", 2, 6, "x"), candidate(2, "person turns off a light", 2, 6, "x")]
    drop_doubles([*others, *same[::-1], *twice, *other])
    assert [c.dropped for c in same] == [None, "duplicate"]
    assert [c.dropped for c in twice] == ["several", "several"], "neither is true of one time alone"
    assert [c.dropped for c in (*other, *others)] == [None] * (len(others) + 2)


def test_texts_can_be_replaced(tmp_path: Path) -> None:
    shipped = read_prompts()
    assert set(shipped.texts) == set(NEEDED) == {path.stem for path in FOLDER.glob("*.txt")}
    for name, needed in NEEDED.items():
        assert all("{" + value + "}" in shipped.texts[name] for value in needed)
    (tmp_path / "verify.txt").write_text("Wann? {query} {other}\n")
    own = read_prompts(tmp_path)
    assert own.ask("verify", query="a {duration} b") == "Wann? a {duration} b {other}"
    assert own.texts["propose"] == shipped.texts["propose"]
    (tmp_path / "verify.txt").write_text("When?")
    with pytest.raises(ValueError, match=r"verify\.txt does not say \{query\}"):
        read_prompts(tmp_path)
    (tmp_path / "verify.txt").rename(tmp_path / "verfiy.txt")
    with pytest.raises(ValueError, match=r"verfiy\.txt is none of propose\.txt"):
        read_prompts(tmp_path)
    with pytest.raises(ValueError, match="holds no text file"):
        read_prompts(FOLDER.parent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine-args", "fsp=2"], "unknown fsp"),
        (["--engine", "api", "--engine-args", "persona=x"], "unknown persona"),
        (["--grounder", "fps=2"], "names no model"),
        (["--prompts", "nowhere"], "--prompts nowhere: there is no such file or folder"),
        (["--prompts", "/"], "holds no text file"),
        (["--video-root", "nowhere"], "--video-root nowhere: there is no folder of videos"),
        (["--video-root", "/dev"], "do not lie in video_root"),
        (["-o", "/dev/null/o.jsonl"], "/dev/null is a file and no folder"),
    ],
)
def test_settings_that_cannot_work(
    options: list[str],
    message: str,
    made: tuple[Path, dict[str, Truth]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = made
    assert main(["annotate", str(folder), "-o", str(tmp_path / "o.jsonl"), "--model", "m", *options]) == 2
    assert message in capsys.readouterr().err
    assert main(["annotate", str(tmp_path / "nothing.mp4"), "-o", str(tmp_path / "o.jsonl"), "--model", "m"]) == 2
    assert "there is no such video" in capsys.readouterr().err
