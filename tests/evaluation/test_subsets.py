"""Which moments a task evaluates, and what happens when a video is not there."""

import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_shards import write_archive

from timelens_plugins.evaluation.specs import TaskSpec, specs_of
from timelens_plugins.evaluation.subsets import SubsetMoments, check_specs
from timelens_plugins.evaluation.subsets import load_subset as load
from timelens_plugins.evaluation.task_functions import mean_of_all, success_of_all
from timelens_plugins.locations import shipped_folder


@functools.cache
def manager() -> Any:
    from timelens_plugins.evaluation.hook import install

    install()
    from lmms_eval.tasks import TaskManager

    return TaskManager()


def spec(task: str) -> TaskSpec:
    [found] = specs_of(task, manager())
    return found


def load_subset(task: str) -> SubsetMoments:
    return load(spec(task))


def check_tasks(tasks: list[str]) -> None:
    check_specs(specs_of(tasks, manager()))


def test_every_task_file_has_a_spec() -> None:
    tasks = {path.stem for path in shipped_folder("tasks").rglob("*.yaml")}
    groups = {"timelens_bench", "timelens_bench_sets", "timelens_original"}
    assert [s.task for s in specs_of("timelens_bench", manager())] == [
        f"timelens_bench_{name}" for name in ("charades", "activitynet", "qvhighlights")
    ]
    assert {spec(task).task for task in tasks - groups} == tasks - groups
    assert specs_of(["mmmu_val", "timelens", "no such task"], manager()) == []


def test_moments_of_a_benchmark(benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    check_tasks(["timelens_bench", "mmmu_val"])
    loaded = load_subset("timelens_bench_charades")
    annotated = json.loads((benchmark_folder / "charades-timelens.json").read_text())
    assert [m.video_id for m in loaded.moments] == [v for v, a in annotated.items() for _ in a["queries"]]
    assert all(Path(m.video).is_file() for m in loaded.moments)
    assert loaded.missing == ()


def test_a_limit_or_an_offset_that_leaves_nothing_is_refused(
    benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmms_eval import evaluator

    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    told = "limit must be above 0, or -1 for all 4 moments of timelens_bench_charades"
    run = {"model": "timelens", "model_args": "pretrained=absent", "tasks": ["timelens_bench"]}
    with pytest.raises(ValueError, match=told):  # before the model is looked for
        evaluator.simple_evaluate(**run, limit=0, task_manager=manager())
    specs = specs_of(["timelens_bench"], manager())
    for limit in (0.0, -2, math.nan, math.inf):
        with pytest.raises(ValueError, match=told):
            check_specs(specs, limit)
    check_specs(specs, -1, 3)
    check_specs(specs, 0.01)
    with pytest.raises(ValueError, match="timelens_bench_charades: an offset of 4 leaves none of its 4 moments"):
        check_specs(specs, 2, 4)


def test_a_share_of_tasks_of_different_sizes_is_refused(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lmms-eval's ``--limit 0.5``: two of the first task's four moments, and of the next task's two moments two."""
    from lmms_eval import evaluator

    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    file = root / "activitynet-timelens.json"
    file.write_text(json.dumps(dict(list(json.loads(file.read_text()).items())[:1])))
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(root))
    run = {"model": "timelens", "model_args": "pretrained=absent", "tasks": ["timelens_bench"]}
    told = "limit 0.5 is 2 of timelens_bench_charades and 1 of timelens_bench_activitynet, but lmms-eval"
    with pytest.raises(ValueError, match=told):
        evaluator.simple_evaluate(**run, limit=0.5, task_manager=manager())
    check_specs(specs_of(["timelens_bench"], manager()), 1.0)
    check_specs(specs_of(["timelens_bench_activitynet"], manager()), 0.5)


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
    assert (loaded.missing, sum(loaded.missing_moments), len(loaded.moments)) == ((str(gone),), 2, 2)
    shutil.rmtree(root / "videos" / "charades")
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    from timelens_plugins.evaluation import subsets

    subsets._load.cache_clear()
    with pytest.raises(FileNotFoundError, match="2 videos"):  # all of them: there is nothing to evaluate
        load_subset("timelens_bench_charades")


def test_the_first_moments_of_a_task_have_the_missing_ones_of_their_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--limit 1`` on a set of spans: the ten annotations that lack a video further on are no part of it."""
    videos = [*"axbb", *["x"] * 10, "c", "x"]
    rows = [{"video": f"{v}.mp4", "query": f"q{i}", "start": 0, "end": 4} for i, v in enumerate(videos)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_bytes(b"a video")
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    loaded = load(TaskSpec("own", str(tmp_path / "own.yaml"), ("rows.jsonl",), (".",)))
    assert loaded.missing_moments == (0, 1, 0, 11)
    items = [{"score": 100.0, "missing": missing} for missing in loaded.missing_moments]
    assert [mean_of_all(items[:limit]) for limit in (1, 2, 3)] == pytest.approx([100.0, 200 / 3, 75.0])
    assert mean_of_all(items) == pytest.approx(400 / len(videos))
    assert success_of_all(items[:2]) == pytest.approx(2 * 99.5 / 3)


def test_an_empty_video_is_named(benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    empty = sorted((root / "videos" / "charades").iterdir())[0]
    empty.write_bytes(b"")
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(root))
    with pytest.raises(ValueError, match=rf"{empty.name}.*zero bytes; fetch again.*TIMELENS_ALLOW_MISSING=1"):
        load_subset("timelens_bench_charades")
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    loaded = load_subset("timelens_bench_charades")
    assert (loaded.missing, sum(loaded.missing_moments), len(loaded.moments)) == ((str(empty),), 2, 2)


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
    root = (spec(task).root or "").removeprefix("$")
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
    assert (len(loaded.moments), len(loaded.missing), sum(loaded.missing_moments)) == (10, 1332, 3710)
    assert {m.query: tuple(m.spans[0]) for m in loaded.moments}["person turn a light on"] == (24.3, 30.4)


@pytest.mark.parametrize("value", ["yes", "2"])
def test_a_misspelt_setting_is_an_error(value: str, benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", value)
    with pytest.raises(ValueError, match="TIMELENS_ALLOW_MISSING"):
        load_subset("timelens_bench_charades")
