"""Clips found, linked and shown in strips; training curves; static charts."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from report_runs import make_run

from timelens_plugins.metrics import Sample
from timelens_plugins.plateau import PlateauRule, PlateauSettings
from timelens_plugins.report import StripBudget, write_report
from timelens_plugins.report.clips import ClipFinder, link_to
from timelens_plugins.report.strips import film_strip, make_strips
from timelens_plugins.report.table import Row, tabulate
from timelens_plugins.report.training import training_curves
from timelens_plugins.results import Run
from timelens_plugins.spans import Span
from timelens_plugins.synthetic.mp4 import write_mp4

RESULTS = Path(__file__).parents[1] / "data" / "results" / "timelens.json"


def row_of(path: str, subset: str = "") -> Row:
    return Row(subset, path, "query", (), None, None, path, ())


def clip_of_bars(path: Path, seconds: int = 8) -> Path:
    """A clip of one grey level a second, 20 times the second: the level tells the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.repeat(np.arange(seconds) * 20 + 40, 8).astype(np.uint8)
    write_mp4(path, np.broadcast_to(levels[:, None, None, None], (len(levels), 48, 64, 3)).copy(), 8.0)
    return path


def levels_of(strip: dict[str, object]) -> list[float]:
    """Grey level in the middle of every cell."""
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(str(strip["src"]).split(",")[1]))).convert("L"))
    cells = np.array_split(picture[20:56].mean(axis=0), int(str(strip["frames"])))
    return [float(cell[len(cell) // 2]) for cell in cells]


def test_cells_show_the_clip_at_the_middle_of_their_time(tmp_path: Path) -> None:
    clip = clip_of_bars(tmp_path / "clip.mp4")
    assert levels_of(film_strip(clip, None, 8, 90)) == pytest.approx([20 * i + 40 for i in range(8)], abs=4)
    assert levels_of(film_strip(clip, (2.0, 6.0), 4, 90)) == pytest.approx([20 * i + 40 for i in range(2, 6)], abs=4)


def test_strips_keep_to_their_budget_and_say_what_is_left_out(tmp_path: Path) -> None:
    clips = [(clip_of_bars(tmp_path / f"{i}.mp4", 3), None) for i in range(4)]
    size = len(film_strip(clips[0][0], None, None, 62)["src"])
    few = make_strips(clips, StripBudget(clips=2), progress=False)
    assert (list(few.images), few.skipped) == (clips[:2], 2)
    small = make_strips(clips, StripBudget(megabytes=2.5 * size / 1e6), progress=False)
    assert (list(small.images), small.skipped) == (clips[:2], 2)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = make_strips([(tmp_path / "broken.mp4", None), *clips], StripBudget(), progress=False)
    assert list(broken.images) == clips
    assert "broken.mp4" in broken.faults[0]


def test_page_holds_no_more_than_the_budget(tmp_path: Path) -> None:
    run = make_run("run", 12)
    for case in run.cases:
        clip_of_bars(tmp_path / "videos" / f"{case.moment.video}.mp4", 2)
    options = {"videos": [tmp_path / "videos"], "progress": False}
    bare = write_report([run], tmp_path / "a.html", strips=StripBudget(0), **options)  # type: ignore[arg-type]
    assert "data:image/jpeg" not in bare.read_text()
    full = write_report([run], tmp_path / "b.html", **options)  # type: ignore[arg-type]
    assert full.read_text().count("data:image/jpeg") == 4
    budget = StripBudget(megabytes=0.01)
    held = write_report([run], tmp_path / "c.html", strips=budget, **options)  # type: ignore[arg-type]
    assert held.stat().st_size - bare.stat().st_size < 0.01e6 + 500


def test_clips_are_found_by_path_then_by_name(tmp_path: Path) -> None:
    charades, activitynet = (tmp_path / "videos" / s / "x.mp4" for s in ("charades", "activitynet"))
    alone = tmp_path / "videos" / "deep" / "down" / "v_1.5_3.0.mkv"
    for path in (charades, activitynet, alone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    finder = ClipFinder([tmp_path / "videos"])
    assert finder.find(row_of("charades/x.mp4")) == charades
    assert finder.find(row_of("activitynet/x")) == activitynet
    assert finder.find(row_of("x", "timelens_bench_charades")) == charades
    assert finder.find(row_of("v_1.5_3.0")) == alone
    assert finder.find(row_of("elsewhere/v_1.5_3.0.mp4")) == alone
    assert finder.find(row_of("nowhere")) is None
    assert not finder.ambiguous
    assert finder.find(row_of("x")) is None
    assert finder.ambiguous == {"x"}


def test_links_are_followed_as_far_as_the_given_folders_go_and_loops_of_them_end(tmp_path: Path) -> None:
    data, videos = tmp_path / "data", tmp_path / "videos"
    for name in ("c/deep/x", "a/x", "c/only"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / f"{name}.mp4").touch()
    videos.mkdir()
    (videos / "charades").symlink_to(data / "c" / "deep")
    (videos / "activitynet").symlink_to(data / "a")
    (videos / "also_charades").symlink_to(data / "c")
    for place in (data / "c", data / "c" / "deep", videos):
        (place / "loop").symlink_to(tmp_path)
    alone = ClipFinder([videos])
    assert alone.find(row_of("activitynet/x")) is None
    assert alone.find(row_of("activitynet/x.mp4")) is None
    assert {path.name for path in alone.outside} == {"x.mp4", "only.mp4"}
    finder = ClipFinder([videos, data])
    assert finder.find(row_of("activitynet/x")) == videos / "activitynet" / "x.mp4"
    assert finder.find(row_of("x", "timelens_bench_charades")) == videos / "charades" / "x.mp4"
    found = finder.find(row_of("only"))
    assert found is not None
    assert found.resolve() == data / "c" / "only.mp4"
    assert finder.find(row_of("nowhere")) is None


def test_links_lead_from_the_page_to_the_clip(tmp_path: Path) -> None:
    clip = tmp_path / "my videos" / "50% #1?.mp4"
    clip.parent.mkdir()
    clip.touch()
    link = link_to(clip, tmp_path / "out" / "r.html")
    assert not set("#? ") & set(link)
    assert (tmp_path / "out" / unquote(link)).resolve() == clip


@pytest.mark.parametrize("video", ["{private}", "../private/secret.mp4", "link/secret.mp4", "secret", "file.mp4"])
@pytest.mark.parametrize("given", [True, False])
def test_no_clip_outside_the_given_folders_is_shown_or_linked(video: str, given: bool, tmp_path: Path) -> None:
    private, videos = tmp_path / "private" / "secret.mp4", tmp_path / "videos"
    clip_of_bars(private, 2)
    videos.mkdir()
    (videos / "link").symlink_to(private.parent)
    (videos / "file.mp4").symlink_to(private)
    run = Run.from_samples("r", [Sample(video.format(private=private), "q", (Span(0, 1),), Span(0, 1), "parsed")])
    page = write_report([run], tmp_path / "r.html", videos=[videos] if given else [], progress=False).read_text()
    data = json.loads(page.split('id="data">', 1)[1].split("</script>", 1)[0])
    assert "data:image/jpeg" not in page
    assert data["media"] == []
    assert any("outside of the given folders" in note for note in data["notes"]) == given


@pytest.mark.parametrize("video", ["nul\0.mp4", "\ud800.mp4", "x" * 5000 + ".mp4", "a/../b.mp4"])
def test_names_that_no_file_can_have_are_no_clips(video: str, tmp_path: Path) -> None:
    run = Run.from_samples("\ud800", [Sample(video, "q\0\ud800", (Span(0, 1),), Span(0, 1), "parsed", subset=video)])
    page = write_report([run], tmp_path / "r.html", videos=[tmp_path], progress=False)
    assert "data:image/jpeg" not in page.read_text()


_WITH_NUMPY_ALONE = """
import sys
from dataclasses import replace
class Missing:
    def find_spec(self, name, *_):
        if name.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "timelens_plugins"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from timelens_plugins.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_base_install_writes_a_report_and_names_the_extra_for_frames(tmp_path: Path) -> None:
    state = write_state(tmp_path / "run", [{"step": i, "reward": 0.1 * i} for i in range(1, 6)])
    page = tmp_path / "r.html"

    def report(*options: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _WITH_NUMPY_ALONE, "report", RESULTS, "-o", page, *options]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)

    refused = report("--videos", tmp_path)
    assert refused.returncode == 2
    assert "film strips need" in refused.stderr
    assert "pip install -c constraints.txt '.[video]'" in refused.stderr
    assert "--no-frames" in refused.stderr
    assert not page.exists()
    for options in ([], ["--videos", tmp_path, "--no-frames"], ["--training", state]):
        done = report(*options)
        assert done.returncode == 0
        assert "note" in done.stderr
        assert page.exists()
        page.unlink()


def write_state(folder: Path, history: list[dict[str, float]], **state: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history, "max_steps": len(history), **state}))
    return path


def test_curves_are_what_was_logged(tmp_path: Path) -> None:
    history = [
        {"step": i, "reward": 0.3 + 0.01 * i, "reward_within_group_std": 0.2, "parse_failures": 0.1, "loss": 0.0}
        for i in range(1, 11)
    ]
    write_state(tmp_path / "run" / "checkpoint-5", history[:5])
    write_state(tmp_path / "run" / "checkpoint-10", history)
    found = training_curves(tmp_path / "run")
    curves = {curve["key"]: curve for curve in found["curves"]}
    assert list(curves) == ["reward", "reward_within_group_std", "parse_failures"]
    assert curves["reward"]["steps"] == list(range(1, 11))
    assert curves["reward"]["values"] == pytest.approx([entry["reward"] for entry in history])
    assert (curves["parse_failures"]["unit"], curves["parse_failures"]["values"][0]) == ("%", 10.0)
    assert found["name"] == "run"
    assert "does not count samples" in found["plateau"]["summary"]


def test_plateau_is_replayed_where_it_was_not_recorded_and_is_the_rules_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = [0.3 + 0.3 * min(1.0, i / 60) + rng.normal(0, 0.01) for i in range(1, 301)]
    history = [{"step": i, "samples": 8.0 * i, "reward": level} for i, level in enumerate(levels, 1)]
    callback = {"RewardPlateauCallback": {"args": {"patience": 100, "min_steps": 50, "confidence": 0.995}}}
    rule = PlateauRule(PlateauSettings(100, 50, 0.995))
    decisions = (rule.update(i, 8.0 * i, level) for i, level in enumerate(levels, 1))
    expected = next(d for d in decisions if d)
    replayed = training_curves(write_state(tmp_path / "a", history, stateful_callbacks=callback))["plateau"]
    assert replayed["decision"] == {"reason": "plateau", "step": expected.step, "start_step": expected.start_step}
    assert "replayed" in replayed["how"]
    other = [
        {"step": e["step"], "samples": e["samples"], "rewards/iou/mean": e["reward"], "reward": 0} for e in history
    ]
    callback["RewardPlateauCallback"]["args"]["reward_key"] = "rewards/iou/mean"  # type: ignore[assignment]
    watched = training_curves(write_state(tmp_path / "other", other, stateful_callbacks=callback))["plateau"]
    assert watched["decision"] == replayed["decision"]
    history[expected.step - 1]["plateau"] = expected.to_dict()  # type: ignore[assignment]
    recorded = training_curves(write_state(tmp_path / "b", history[: expected.step]))["plateau"]
    assert recorded["decision"] == replayed["decision"]
    assert recorded["how"] == "recorded by the run"


def test_logs_without_curves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw; logged are epoch, step"):
        training_curves(write_state(tmp_path, [{"step": 1, "epoch": 0.1}]))
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"not the trainer_state\.json"):
        training_curves(tmp_path / "x.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither trainer_state"):
        training_curves(tmp_path / "empty")


def test_charts_without_matplotlib_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: list[Run]
) -> None:
    from timelens_plugins.report.charts import write_charts

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ValueError, match=r"pip install -c constraints.txt '.\[report\]'"):
        write_charts(runs, tmp_path)


def test_charts_are_the_same_for_the_same_runs(tmp_path: Path, runs: list[Run]) -> None:
    pytest.importorskip("matplotlib")
    from timelens_plugins.report.charts import write_charts

    first, second = (write_charts(runs, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    svg = (tmp_path / "a" / "miou.svg").read_text()
    assert "RLVR" in svg
    assert "best constant span" in svg


def test_table_of_windows_keeps_them_apart() -> None:
    run = make_run("a", 2)
    shifted = [
        replace(case, samples=tuple(replace(sample, window=(10.0, 40.0)) for sample in case.samples))
        for case in run.cases
    ]
    assert len(tabulate([run, Run("b", tuple(shifted))]).rows) == 4
