"""Which moments a task evaluates, and what happens when a video is not there."""

import json
import shutil
from pathlib import Path

import pytest
from test_shards import write_archive

from timelens_plugins.evaluation.subsets import SUBSETS, check_tasks, load_subset
from timelens_plugins.locations import shipped_folder


def test_every_subset_has_a_task_file() -> None:
    tasks = {path.stem for path in shipped_folder("tasks").rglob("*.yaml")}
    assert tasks == {*SUBSETS, "timelens_bench", "timelens_original"}


def test_moments_of_a_benchmark(benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    check_tasks(["timelens_bench", "mmmu"])
    loaded = load_subset("timelens_bench_charades")
    annotated = json.loads((benchmark_folder / "charades-timelens.json").read_text())
    assert [m.video_id for m in loaded.moments] == [v for v, a in annotated.items() for _ in a["queries"]]
    assert all(Path(m.video).is_file() for m in loaded.moments)
    assert loaded.missing == ()


def test_a_missing_video_is_named_unless_allowed(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    gone = sorted((root / "videos" / "charades").iterdir())[0]
    gone.unlink()
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(root))
    with pytest.raises(FileNotFoundError, match=rf"{gone.name}.*TIMELENS_ALLOW_MISSING=1"):
        check_tasks(["timelens_bench"])
    check_tasks(["timelens_bench_activitynet"])
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    loaded = load_subset("timelens_bench_charades")
    assert (loaded.missing, loaded.missing_moments, len(loaded.moments)) == ((str(gone),), 2, 2)
    shutil.rmtree(root / "videos" / "charades")
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    from timelens_plugins.evaluation import subsets

    subsets._load.cache_clear()
    with pytest.raises(FileNotFoundError, match="2 videos"):  # all of them: there is nothing to evaluate
        load_subset("timelens_bench_charades")


def test_an_empty_video_is_named(benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    empty = sorted((root / "videos" / "charades").iterdir())[0]
    empty.write_bytes(b"")
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(root))
    with pytest.raises(ValueError, match=rf"{empty.name}.*zero bytes"):
        load_subset("timelens_bench_charades")


def test_videos_come_out_of_their_archives(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bench"
    root.mkdir()
    shutil.copy(benchmark_folder / "charades-timelens.json", root)
    videos = sorted((benchmark_folder / "videos" / "charades").iterdir())
    for n, video in enumerate(videos):
        write_archive(root / "video_shards" / "charades" / f"{n}.tar.gz", {f"x/{video.name}": video.read_bytes()})
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(root))
    assert len(load_subset("timelens_bench_charades").moments) == 4


@pytest.mark.parametrize(
    ("task", "variable", "message"),
    [
        ("timelens_bench_charades", "", "could not be fetched"),
        ("timelens_original_charades_sta", "", "TIMELENS_ORIGINAL_DIR"),
        ("timelens_bench_charades", "absent", "not a folder"),
        ("timelens_bench_charades", ".", r"no annotations at .*charades-timelens\.json"),
    ],
)
def test_without_data_the_remedy_is_named(
    task: str, variable: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = SUBSETS[task].root
    monkeypatch.delenv(root, raising=False)
    if variable:
        monkeypatch.setenv(root, str(tmp_path / variable))
    with pytest.raises(FileNotFoundError, match=message):
        load_subset(task)


def test_the_real_clips_with_their_real_annotations(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELENS_ORIGINAL_DIR", str(real_data))
    with pytest.raises(FileNotFoundError, match="1332 videos"):
        load_subset("timelens_original_charades_sta")
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    loaded = load_subset("timelens_original_charades_sta")
    assert (len(loaded.moments), len(loaded.missing), loaded.missing_moments) == (10, 1332, 3710)
    assert {m.query: tuple(m.spans[0]) for m in loaded.moments}["person turn a light on"] == (24.3, 30.4)


@pytest.mark.parametrize("value", ["yes", "2"])
def test_a_misspelt_setting_is_an_error(value: str, benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", value)
    with pytest.raises(ValueError, match="TIMELENS_ALLOW_MISSING"):
        load_subset("timelens_bench_charades")
