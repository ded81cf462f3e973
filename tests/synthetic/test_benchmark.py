"""Synthetic data on disk: both layouts, real mp4 files, resumption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from timelens_plugins.synthetic import benchmark
from timelens_plugins.synthetic.benchmark import SUBSETS, write_benchmark, write_training_set
from timelens_plugins.synthetic.mp4 import write_mp4
from timelens_plugins.synthetic.world import make_scene, render


def decode(path: Path) -> tuple[NDArray[np.uint8], float, list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        rate = container.streams.video[0].average_rate
    return np.stack([f.to_ndarray(format="rgb24") for f in frames]), float(rate), [float(f.time) for f in frames]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_benchmark_has_the_layout_of_timelens_bench(tmp_path: Path) -> None:
    write_benchmark(tmp_path, {"charades": 2, "qvhighlights": 1}, seed=4, queries=2, size=64, progress=False)
    assert not (tmp_path / "activitynet-timelens.json").exists()
    for subset, count in (("charades", 2), ("qvhighlights", 1)):
        rows = json.loads((tmp_path / f"{subset}-timelens.json").read_text())
        assert len(rows) == count
        for name, row in rows.items():
            assert row.keys() == {"duration", "spans", "queries"}
            assert len(row["spans"]) == len(row["queries"]) == 2
            assert all(isinstance(t, int) for span in row["spans"] for t in span)
            frames, rate, times = decode(tmp_path / "videos" / subset / f"{name}.mp4")
            assert rate == 8
            assert np.allclose(np.diff(times), 1 / 8)
            assert len(frames) == row["duration"] * 8
            assert frames.shape[1:] == (64, 64, 3)


def test_a_number_of_moments_takes_whole_clips_and_a_part_of_the_last(tmp_path: Path) -> None:
    def rows(folder: Path) -> dict[str, dict[str, list[object]]]:
        return json.loads((folder / "qvhighlights-timelens.json").read_text())

    counts = {"qvhighlights": 3}
    full = rows(write_benchmark(tmp_path / "clips", counts, size=64, progress=False))
    some = rows(write_benchmark(tmp_path / "moments", counts, moments=7, size=64, progress=False))
    assert sum(len(row["queries"]) for row in some.values()) == 7
    assert list(some) == list(full)  # 3 queries a clip
    assert [len(row["spans"]) for row in some.values()] == [3, 3, 1]
    assert list(some.values())[:2] == list(full.values())[:2]
    with pytest.raises(ValueError, match="at least one moment"):
        write_benchmark(tmp_path / "none", counts, moments=0, progress=False)


def test_training_set_has_the_layout_of_timelens_100k(tmp_path: Path) -> None:
    path = write_training_set(tmp_path, 2, size=64, progress=False)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["source"] for r in rows] == [f"synthetic_{s}" for s in SUBSETS] * 2
    for row in rows:
        assert row.keys() == {"source", "video_path", "duration", "events"}
        assert (tmp_path / "videos" / row["video_path"]).stat().st_size > 1000
        for event in row["events"]:
            ((start, end),) = event["span"]
            assert isinstance(start, float)
            assert 0 < start < end < row["duration"]


def test_the_file_shows_the_scene(tmp_path: Path) -> None:
    """What a decoder returns is what was drawn, up to compression."""
    scene = make_scene(1)
    drawn = render(scene)
    write_mp4(tmp_path / "clip.mp4", drawn, 8)
    frames, _, _ = decode(tmp_path / "clip.mp4")
    assert frames.shape == drawn.shape
    assert abs(frames.astype(int) - drawn).mean() < 4
    write_mp4(tmp_path / "again.mp4", drawn, 8)
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "again.mp4").read_bytes()


def test_interrupted_writing_continues_and_equals_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = {"charades": 3}
    whole = write_benchmark(tmp_path / "whole", clips, size=64, progress=False)
    written: list[str] = []
    original = benchmark.write_mp4

    def failing(path: Path, *arguments: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        original(path, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(benchmark, "write_mp4", failing)
    with pytest.raises(KeyboardInterrupt):
        write_benchmark(tmp_path / "parts", clips, size=64, progress=False)
    assert not (tmp_path / "parts" / "charades-timelens.json").exists()
    first = dict(contents(tmp_path / "parts"))
    monkeypatch.setattr(benchmark, "write_mp4", lambda p, *a: (written.append(p.name), original(p, *a)))
    write_benchmark(tmp_path / "parts", clips, size=64, progress=False)
    assert len(written) == len(set(written)) == 3  # nothing was drawn twice
    assert first.items() <= contents(tmp_path / "parts").items()
    assert contents(whole) == contents(tmp_path / "parts")


def test_other_data_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    write_benchmark(tmp_path, {"charades": 1}, size=64, progress=False)
    with pytest.raises(ValueError, match="another seed"):
        write_benchmark(tmp_path, {"charades": 1}, size=64, seed=1, progress=False)
    with pytest.raises(ValueError, match="another kind"):
        write_training_set(tmp_path, {"charades": 1}, size=64, progress=False)
    with pytest.raises(ValueError, match=r"unknown subset \['kinetics'"):
        write_benchmark(tmp_path / "x", {"kinetics": 1})
    with pytest.raises(ValueError, match="at least one clip"):
        write_benchmark(tmp_path / "x", 0)


def test_frames_of_a_wrong_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="uint8 frames"):
        write_mp4(tmp_path / "x.mp4", np.zeros((2, 8, 8, 3), np.float32), 8)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="even sides"):
        write_mp4(tmp_path / "x.mp4", np.zeros((2, 9, 8, 3), np.uint8), 8)
    assert list(tmp_path.iterdir()) == []


def test_several_processes_write_the_same(tmp_path: Path) -> None:
    one = write_training_set(tmp_path / "one", 2, size=64, fps=4.0, progress=False)
    two = write_training_set(tmp_path / "two", 2, size=64, fps=4.0, processes=2, progress=False)
    assert contents(two.parent) == contents(one.parent)
    (tmp_path / "bad" / "videos").mkdir(parents=True)
    (tmp_path / "bad" / "videos" / "synthetic_charades").write_text("in the way")
    with pytest.raises(FileExistsError, match="synthetic_charades"):
        write_training_set(tmp_path / "bad", 2, size=64, fps=4.0, processes=2, progress=False)
    assert not (tmp_path / "bad" / "timelens-100k.jsonl").exists()


def test_bytes_do_not_depend_on_what_the_memory_held(tmp_path: Path) -> None:
    write = (
        "import sys; from timelens_plugins.synthetic.benchmark import SUBSETS\n"
        "from timelens_plugins.synthetic.mp4 import write_mp4\n"
        "from timelens_plugins.synthetic.world import make_scene, render\n"
        "scene = make_scene([0, 2, 1, 2], SUBSETS['activitynet'], split='train')\n"
        "write_mp4(sys.argv[1], render(scene, size=64), 8.0)"
    )
    seen = set()
    for held in ("85", "170"):  # glibc fills new memory with it; with x264's macroblock tree this clip's bytes differed
        environment = os.environ | {"MALLOC_PERTURB_": held}
        subprocess.run([sys.executable, "-c", write, str(tmp_path / held)], env=environment, check=True, timeout=300)
        seen.add((tmp_path / held).read_bytes())
    assert len(seen) == 1
