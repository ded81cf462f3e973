"""``timelens ground``: the answer chosen, the cut to the frame, the sheet, and the command on demo and real clips."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from timelens_plugins.answers import AnswerStatus, ParsedAnswer, parse_answer
from timelens_plugins.cli import main
from timelens_plugins.families.load import load_model
from timelens_plugins.grounding import FoundMoment, consensus, cut_clip, find_moments, moment_sheet, sheet
from timelens_plugins.grounding.calibration import (
    CALIBRATION_FILE,
    fit_calibration,
    read_calibration,
    write_calibration,
)
from timelens_plugins.grounding.sheet import MARK, title
from timelens_plugins.spans import Span, temporal_iou
from timelens_plugins.synthetic.grounder import TRAINED_CHECKPOINT
from timelens_plugins.synthetic.mp4 import write_mp4
from timelens_plugins.synthetic.world import Scene, WorldConfig, make_scene, render
from timelens_plugins.video import VideoError


def answers(*texts: str) -> list[ParsedAnswer]:
    return [parse_answer(text) for text in texts]


def test_the_answer_that_agrees_most_is_chosen() -> None:
    # 2-6 and 2-8 have IoU 4/6, 3-6 and 2-6 have 3/4, 3-6 and 2-8 have 1/2; 20-22 meets none of them.
    result = consensus(answers("20 - 22 s", "2 - 8 s", "2 - 6 s", "3 - 6 s"))
    assert result.spans == (Span(2, 6),)
    assert result.agreement == pytest.approx((0 + 4 / 6 + 3 / 4) / 3)
    assert result.votes == 3


def test_denials_agree_and_unreadable_answers_do_not() -> None:
    denied = "The event does not occur in the video."
    assert consensus(answers(denied, "1 - 2 s", denied)).status is AnswerStatus.DENIED
    assert consensus(answers(denied, "1 - 2 s", denied)).agreement == 0.5
    assert consensus(answers("1 - 2 s", "1 - 2 s", denied)).spans == (Span(1, 2),)
    unread = consensus(answers("a", "b", "7 - 3 seconds"))
    assert (unread.spans, unread.agreement, unread.votes) == ((), 0.0, 0)
    assert consensus(answers("a", "b", "4 - 9 s")) == consensus([*answers("?", "4 - 9 s"), *answers("c")])
    assert consensus(answers("4 - 9 s")).agreement is None
    with pytest.raises(ValueError, match="no answers"):
        consensus([])


def test_calibration_gives_back_the_chance_it_was_made_with(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    agreement = rng.random(20_000)
    right = rng.random(20_000) < 1 / (1 + np.exp(-(4 * agreement - 2)))
    fitted = fit_calibration(agreement.tolist(), right.tolist(), 5, 1.0)
    assert fitted.confidence(0.5) == pytest.approx(0.5, abs=0.02)
    assert fitted.confidence(1.0) == pytest.approx(1 / (1 + np.exp(-2)), abs=0.02)
    write_calibration(fitted, tmp_path)
    assert read_calibration(tmp_path) == fitted
    assert read_calibration(tmp_path / "absent") is None
    (tmp_path / CALIBRATION_FILE).write_text('{"answers": 5}')
    with pytest.raises(ValueError, match="expected an object with"):
        read_calibration(tmp_path)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        fit_calibration([0.5, 0.7], [True, True], 5, 1.0)


def read_back(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times in seconds and frames of a file, by PyAV alone."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [float(f.pts * f.time_base) for f in frames], [f.to_ndarray(format="rgb24") for f in frames]


def near(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize(("name", "spans"), [("3MSZA", [(24.3, 26.0)]), ("OHOFG", [(1.0, 2.5), (30.0, 31.05)])])
def test_a_cut_holds_the_frames_shown_during_the_spans(
    name: str, spans: list[tuple[float, float]], real_data: Path, tmp_path: Path
) -> None:
    source = real_data / "charades" / f"{name}.mp4"
    times, frames = read_back(source)
    until = [*times[1:], times[-1] + times[-1] - times[-2]]
    # By hand: a frame is in a span where it is on the screen for some of it.
    kept = [
        [i for i, (a, b) in enumerate(zip(times, until, strict=True)) if b > start + 1e-6 and a < end - 1e-6]
        for start, end in spans
    ]
    count = cut_clip(source, spans, tmp_path / "cut.mp4")
    cut_times, cut_frames = read_back(tmp_path / "cut.mp4")
    assert count == len(cut_frames) == sum(map(len, kept))
    expected, offset = [], 0.0
    for part in kept:
        expected += [times[i] - times[part[0]] + offset for i in part]
        offset += until[part[-1]] - times[part[0]]
    assert cut_times == pytest.approx(expected, abs=2e-4)
    for picture, index in zip(cut_frames, itertools.chain(*kept), strict=True):
        assert near(picture, frames[index]) < 4
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert float(container.duration / av.time_base) == pytest.approx(offset, abs=0.05)


def test_a_cut_that_shows_nothing_is_refused(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "media" / "nasa_13013.mp4"
    with pytest.raises(VideoError, match="shows no frame during"):
        cut_clip(source, [(50, 60)], tmp_path / "cut.mp4")
    with pytest.raises(ValueError, match=r"written as \.mp4"):
        cut_clip(source, [(1, 2)], tmp_path / "cut.mkv")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Scene]]:
    """Two held-out clips of the demo's kind."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for seed in range(2):
        scene = make_scene([7, seed], WorldConfig(durations=(12, 14), actors=(2, 2), noise=10.0), split="heldout")
        path = folder / f"clip{seed}.mp4"
        write_mp4(path, render(scene, size=64, fps=8.0), 8.0)
        made.append((path, scene))
    return made


def test_a_video_is_seen_once_for_all_queries_and_answers(clips: list[tuple[Path, Scene]]) -> None:
    model, processor = load_model(TRAINED_CHECKPOINT, times="stream")
    seen = []
    hook = model.model.visual.register_forward_hook(lambda *_: seen.append(1))
    ious = []
    for path, scene in clips:
        found = find_moments(model, processor, str(path), [e.query for e in scene.events], answers=5)
        ious += [temporal_iou(f.spans[0], e.span) for f, e in zip(found, scene.events, strict=True)]
        assert all(len(f.answers) == 5 for f in found)
    hook.remove()
    assert len(seen) == len(clips)
    assert np.mean(ious) > 0.45, "the demo's model grounds; a constant span has 0.3"
    again = find_moments(model, processor, str(clips[1][0]), [e.query for e in clips[1][1].events], answers=5)
    assert again == found, "the same, whatever was asked before"


def test_the_sheet_marks_the_moment(clips: list[tuple[Path, Scene]]) -> None:
    model, processor = load_model(TRAINED_CHECKPOINT, times="stream")
    found = find_moments(model, processor, str(clips[0][0]), [clips[0][1].events[0].query], answers=1)[0]
    sheet = moment_sheet(found)
    marked = [c for n, c in sheet.getcolors(2**24) or [] if c == MARK]
    assert marked
    assert sheet.width > 1000


def found_in(query: str) -> FoundMoment:
    spans = (Span(2.0, 6.0),)
    return FoundMoment("clip.mp4", query, spans, AnswerStatus.PARSED, 0.74, 0.77, 5, ("",) * 5, (spans,) * 5)


def test_no_letter_of_a_title_is_an_empty_box(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ":   2.00 - 6.00 s   agreement 0.77   confidence 0.74"
    assert title(found_in("a red circle"), 1200)[1] == f"a red circle{result}"
    with monkeypatch.context() as patch:
        patch.setattr(sheet, "FONTS", ("no-such-font.ttf",))
        assert title(found_in("öffnet die 门"), 1200)[1] == f"\\xf6ffnet die \\u95e8{result}"
    font, text = title(found_in("öffnet die 门"), 1200)
    assert not [c for c in text if sheet._glyph(font, c) == sheet._glyph(font, sheet.NO_LETTER)]
    font, text = title(found_in("a man opens the door " * 20), 1200)
    assert text.startswith("a man opens the door a man")
    assert text.endswith(f"...{result}")
    assert 1150 < font.getlength(text) <= 1200


def test_the_command_on_a_demo_clip(
    clips: list[tuple[Path, Scene]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, scene = clips[0]
    out = [str(tmp_path / "moment.mp4"), str(tmp_path / "moment.png")]
    assert main(["ground", str(path), scene.events[0].query, "--clip", out[0], "--sheet", out[1]]) == 0
    said = capsys.readouterr()
    assert "knows coloured shapes" in said.err
    assert re.search(r"s   agreement [01]\.\d\d \(\d of 5 answers\)   confidence 0\.\d\d\n", said.out)
    assert main(["ground", str(path), scene.events[0].query, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    (start, end), times = row["spans"][0], read_back(Path(out[0]))[0]
    assert len(times) == sum(start < (i + 1) / 8 - 1e-6 and i / 8 < end - 1e-6 for i in range(8 * 14))
    assert len(row["answers"]) == 5
    assert main(["ground", str(path), scene.events[0].query, "-n", "3"]) == 0
    assert "confidence" not in capsys.readouterr().out, "measured for 5 answers only"
    with Image.open(out[1]) as picture:
        assert picture.width > 1000


def test_a_folder_with_a_broken_video(
    clips: list[tuple[Path, Scene]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    (videos / "sub").mkdir(parents=True)
    shutil.copy(clips[0][0], videos / "a.mp4")
    shutil.copy(clips[1][0], videos / "sub" / "b.mp4")
    (videos / "broken.mp4").write_bytes(clips[0][0].read_bytes()[:900])
    queries = ["a red circle appears", "a blue square appears"]
    command = ["ground", str(videos), *queries, "-n", "1", "--clip", str(tmp_path / "cut"), "--json"]
    assert main(command) == 1
    said = capsys.readouterr()
    rows = json.loads(said.out)
    assert "broken.mp4" in said.err
    assert [Path(row["video"]).name for row in rows] == ["a.mp4", "a.mp4", "broken.mp4", "b.mp4", "b.mp4"]
    assert [bool(row.get("error")) for row in rows] == [False, False, True, False, False]
    written = sorted(str(p.relative_to(tmp_path / "cut")) for p in (tmp_path / "cut").rglob("*.mp4"))
    assert written == sorted(str(Path(row["clip"]).relative_to(tmp_path / "cut")) for row in rows if "clip" in row)
    assert "sub/b.mp4-1-a-red-circle-appears.mp4" in written
    assert all(row["confidence"] is None for row in rows if "error" not in row)


def test_a_real_clip(
    tiny_checkpoints: dict[str, Path], real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = str(real_data / "media" / "nasa_13013.mp4")
    assert main(["ground", video, "a rocket part"]) == 2
    assert "480x270; the demo's model knows only its own square clips: give --model" in capsys.readouterr().err
    # A random model: what it writes means nothing, and that is said.
    sheet = tmp_path / "sheet.png"
    command = ["ground", video, "a rocket part", "--model", str(tiny_checkpoints["qwen3_vl"]), "-n", "2"]
    assert main([*command, "--sheet", str(sheet), "--clip", str(tmp_path / "c.mp4")]) == 0
    assert "not found: no readable answer" in capsys.readouterr().out
    assert sheet.is_file()
    assert not (tmp_path / "c.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent.mp4", "a"], "absent.mp4"),
        (["VIDEO", "..."], "has no words"),
        (["VIDEO", "a", "-n", "1", "--seed", "3"], "--seed: without effect with -n 1"),
        (["VIDEO", "a", "--device", "gpu"], "device gpu cannot be used here, which has cpu"),
        (["VIDEO", "a", "--clip", "x.avi"], "ends in .mp4"),
        (["VIDEO", "a", "b", "--clip", "x.mp4"], "need a folder"),
        (["VIDEO", "a", "--sheet", "/dev/null/x.png"], "/dev/null is a file and no folder"),
        (["VIDEO", "a", "--clip", "VIDEO"], "would replace a file that is read"),
    ],
)
def test_faults_end_in_one_line(
    arguments: list[str], said: str, clips: list[tuple[Path, Scene]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ground", *[str(clips[0][0]) if a == "VIDEO" else a for a in arguments]]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "demo's model answers" not in told or "device" in said, "said before a model is loaded"
