"""The real lmms-eval command, in every way it is started, from an editable install and from a wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.metrics import evaluate
from timelens_plugins.results import load_results

GENERATION = ("--gen_kwargs", "max_new_tokens=24")


def run(
    *command: str, python: str = sys.executable, expect: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a module with this or another interpreter, without the hub."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    } | environment
    done = subprocess.run(
        [python, "-m", *command], env=os.environ | environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-9000:]
    return done


def scores(output: Path) -> dict[str, dict[str, float]]:
    """Task and group to metric values of the one result file below ``output``."""
    [path] = output.rglob("*_results.json")
    results = json.loads(path.read_text())["results"]
    return {
        task: {
            name.split(",")[0]: value for name, value in row.items() if name.endswith(",none") and "stderr" not in name
        }
        for task, row in results.items()
    }


def samples(output: Path) -> list[dict]:
    """All logged samples, in a fixed order."""
    rows = [json.loads(line) for path in output.rglob("*_samples_*.jsonl") for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: (row["mIoU"]["subset"], row["doc_id"]))


def answers(output: Path) -> list[tuple[str, int, str]]:
    """What the model wrote, per row."""
    return [(row["mIoU"]["subset"], row["doc_id"], row["filtered_resps"]) for row in samples(output)]


def arguments(checkpoint: Path, output: Path, tasks: str = "timelens_bench", model: str = "timelens") -> list[str]:
    return [
        *("--model", model, "--model_args", f"pretrained={checkpoint},device=cpu,total_tokens=256"),
        *("--tasks", tasks, "--log_samples", "--output_path", str(output), "--batch_size", "2", *GENERATION),
    ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights large enough that answers depend on video and query."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), "qwen3_vl", initializer_range=0.4)


@pytest.fixture(scope="module")
def reference(checkpoint: Path, benchmark_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The output of ``lmms-eval --model timelens --tasks timelens_bench`` beside upstream's own ``timelens`` group."""
    output = tmp_path_factory.mktemp("reference")
    done = run("lmms_eval", *arguments(checkpoint, output), TIMELENS_BENCH_DIR=str(benchmark_folder))
    return output, done.stdout


def test_the_group_is_printed_with_its_plain_average(reference: tuple[Path, str]) -> None:
    output, printed = reference
    found = scores(output)
    subsets = [f"timelens_bench_{name}" for name in ("charades", "activitynet", "qvhighlights")]
    for metric in ("R1@0.3", "R1@0.7", "mIoU", "mIoU_exact", "parse_failures"):
        average = sum(found[task][metric] for task in subsets) / 3
        assert found["timelens_bench"][metric] == pytest.approx(average)
    assert "|timelens_bench" in printed.replace(" ", "")
    assert all(found[task]["missing_videos"] == 0 for task in [*subsets, "timelens_bench"])


def test_samples_hold_what_a_reader_needs_and_score_to_the_same_figures(reference: tuple[Path, str]) -> None:
    output, _ = reference
    rows = samples(output)
    assert len(rows) == 12
    assert len({text for _, _, text in answers(output)}) > 4  # so that equal answers elsewhere mean something
    assert {"video", "query", "span", "pred", "status", "duration", "subset", "score"} <= rows[0]["mIoU"].keys()
    for path in output.rglob("*_samples_*.jsonl"):
        task = path.stem.split("_samples_")[1]
        for reading, suffix in (("official", ""), ("exact", "_exact")):
            again = evaluate(load_results(path).samples, reading)
            assert 100 * again.miou == pytest.approx(scores(output)[task][f"mIoU{suffix}"])


def test_the_leaderboard_reads_what_the_command_wrote(
    reference: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    from timelens_plugins.cli import main

    assert main(["leaderboard", str(reference[0]), "--format", "json"]) == 0
    sections = json.loads(capsys.readouterr().out)["sections"]
    rows = {row["benchmark"]: row for section in sections for row in section["rows"] if row["ours"]}
    assert list(rows) == [*(f"{name}-timelens" for name in ("charades", "activitynet", "qvhighlights")), "average"]
    found = scores(reference[0])
    for benchmark, row in rows.items():
        task = "timelens_bench" + ("" if benchmark == "average" else f"_{benchmark.removesuffix('-timelens')}")
        for name in ("R1@0.3", "R1@0.7", "mIoU", "mIoU_exact"):
            assert row[name] == pytest.approx(found[task][name])
        assert row["rank"] is None
    assert rows["charades-timelens"]["differences"] == [
        "total_tokens=256 instead of 14336",
        "max_new_tokens=24 instead of 512",
        "4 of 3363 annotations",
        "synthetic clips",
    ]


def test_tasks_are_listed_beside_upstreams() -> None:
    listed = run("lmms_eval", "--tasks", "list").stdout.split()
    assert {"timelens", "timelens_charades", "timelens_bench", "timelens_bench_charades", "timelens_original"} <= {
        *listed
    }


def test_two_processes_give_the_same_scores(
    reference: tuple[Path, str], checkpoint: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    # Not `accelerate launch --cpu --num_processes 2`: accelerate 1.15 then starts one process.
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lmms_eval"]
    journal = tmp_path / "journal"
    command = arguments(checkpoint, tmp_path)
    command[command.index("--model_args") + 1] += f",journal={journal}"
    run(*launch, *command, TIMELENS_BENCH_DIR=str(benchmark_folder))
    written = [path.read_text().split("\n\n")[:-1] for path in journal.glob("*/*.jsonl")]
    assert sorted(map(len, written)) in ([4, 8], [6, 6]), "two queries of each of six videos"
    videos = [{json.loads(line.partition(" ")[2])["video"]["digest"] for line in lines} for lines in written]
    assert not videos[0] & videos[1], "each video on one of them, though its rows are dealt to both"
    assert scores(tmp_path) == scores(reference[0])
    assert answers(tmp_path) == answers(reference[0])
    command[command.index("--output_path") + 1] = str(tmp_path / "again")
    run("lmms_eval", *command, TIMELENS_BENCH_DIR=str(benchmark_folder))
    assert answers(tmp_path / "again") == answers(reference[0])
    assert len(list(journal.glob("*/*.jsonl"))) == 2, "one process finds what two have answered"


@pytest.mark.slow
def test_two_commands_on_one_journal_killed_and_continued_by_two_processes(
    reference: tuple[Path, str], checkpoint: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"

    def command(name: str) -> list[str]:
        given = arguments(checkpoint, tmp_path / name)
        given[given.index("--model_args") + 1] += f",journal={journal}"
        return given

    def finished() -> int:
        return sum(path.read_bytes().count(b"\n\n") for path in journal.glob("*/*.jsonl"))

    environment = os.environ | {"TIMELENS_BENCH_DIR": str(benchmark_folder), "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "lmms_eval", *command(name)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("one", "other")
    ]
    while finished() < 3 and any(process.poll() is None for process in running):
        time.sleep(0.005)
    for process in running:
        process.kill()
    assert [process.wait() for process in running] == [-9, -9]
    assert 3 <= finished() < 12
    assert not list(tmp_path.rglob("*_results.json"))
    launch = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lmms_eval"]
    run(*launch, *command("last"), TIMELENS_BENCH_DIR=str(benchmark_folder))
    assert samples(tmp_path / "last") == samples(reference[0]), "byte for byte, but for the order of lines"
    assert scores(tmp_path / "last") == scores(reference[0])
    # Two writers that finish an item in the same moment both keep it; one of the two counts.
    records = {line for path in journal.glob("*/*.jsonl") for line in path.read_bytes().split(b"\n\n")[:-1]}
    kept = [json.loads(line.partition(b" ")[2]) for line in records]
    assert len({(item["key"], item["video"]["digest"]) for item in kept}) == 12, "every question has an answer"
    assert len(kept) == 12, "the same one, whoever gave it"


def test_a_wheel_gives_the_same_scores(
    reference: tuple[Path, str], checkpoint: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
    )
    [wheel] = tmp_path.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(site)], check=True)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    python = str(tmp_path / "venv" / "bin" / "python")
    where = subprocess.run(
        [python, "-c", "import timelens_plugins; print(timelens_plugins.__file__)"], capture_output=True, text=True
    )
    assert where.stdout.startswith(str(site))
    package = Path("src/timelens_plugins")
    listed = subprocess.run(
        ["git", "ls-files", package, "recipes"], cwd=root, capture_output=True, text=True, check=True
    )
    for file in map(Path, listed.stdout.splitlines()):
        in_package = file.relative_to(package) if file.is_relative_to(package) else Path("_shipped") / file
        assert (site / "timelens_plugins" / in_package).read_bytes() == (root / file).read_bytes()
    run(
        "lmms_eval",
        *arguments(checkpoint, tmp_path / "out"),
        python=python,
        TIMELENS_BENCH_DIR=str(benchmark_folder),
    )
    assert scores(tmp_path / "out") == scores(reference[0])
    assert answers(tmp_path / "out") == answers(reference[0])


def test_simple_evaluate_finds_the_group(
    reference: tuple[Path, str],
    checkpoint: Path,
    benchmark_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lmms_eval import evaluator

    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    results = evaluator.simple_evaluate(
        model="timelens",
        model_args=f"pretrained={checkpoint},device=cpu,total_tokens=256",
        tasks=["timelens_bench"],
        batch_size=2,
        gen_kwargs="max_new_tokens=24",
    )
    for task, row in scores(reference[0]).items():
        assert results["results"][task]["mIoU,none"] == row["mIoU"]


def constant_model() -> Any:
    """A model that was not written for these tasks, in lmms-eval's older 'simple' interface."""
    from lmms_eval.api.model import lmms

    class Constant(lmms):
        def generate_until(self, requests: list) -> list[str]:
            for request in requests:
                context, _, doc_to_visual, doc_id, task, split = request.args
                [video] = doc_to_visual(self.task_dict[task][split][doc_id])
                assert "The event happens in" in context
                assert Path(video).is_file()
            return ["The event happens in 2.0 - 6.4 seconds."] * len(requests)

        def loglikelihood(self, requests: list) -> list:
            return []

        def generate_until_multi_round(self, requests: list) -> list:
            return []

    return Constant()


def overlap(spans: list[list[float]], end: float) -> float:
    """IoU of [2, end] with the best of the spans, in percent."""
    return max(100 * max(0, min(e, end) - max(s, 2)) / (max(e, end) - min(s, 2)) for s, e in spans)


def test_other_models_can_run_the_tasks(benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval import evaluator

    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    results = evaluator.simple_evaluate(model=constant_model(), tasks=["timelens_bench_charades"], log_samples=True)
    rows = results["samples"]["timelens_bench_charades"]
    found = results["results"]["timelens_bench_charades"]
    for name, end in (("mIoU", 6), ("mIoU_exact", 6.4)):
        expected = [overlap(row["mIoU"]["span"], end) for row in rows]
        assert found[f"{name},none"] == pytest.approx(sum(expected) / len(rows))


def test_the_original_benchmarks_are_not_rounded_unless_the_column_says_so(
    benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lmms_eval import evaluator

    clips = sorted((benchmark_folder / "videos" / "charades").iterdir())
    shutil.copytree(clips[0].parent, tmp_path / "charades" / "videos")
    # One annotation stands twice: the field's scripts count it twice.
    annotated = {
        c.stem: {"duration": 9.0, "timestamps": [[2, 6.4]] * 2, "sentences": ["a ball rolls"] * 2} for c in clips[:1]
    }
    annotated |= {c.stem: {"duration": 9.0, "timestamps": [[1, 6]], "sentences": ["a ball rolls"]} for c in clips[1:]}
    (tmp_path / "charades" / "charades_sta_test.json").write_text(json.dumps(annotated))
    monkeypatch.setenv("TIMELENS_ORIGINAL_DIR", str(tmp_path))
    results = evaluator.simple_evaluate(model=constant_model(), tasks=["timelens_original_charades_sta"])
    found = results["results"]["timelens_original_charades_sta"]
    first, second = [[2, 6.4]], [[1, 6]]
    assert found["mIoU,none"] == pytest.approx((2 * 100 + overlap(second, 6.4)) / 3)
    assert found["mIoU_rounded,none"] == pytest.approx((overlap(first, 6) + overlap(second, 6)) / 2)
    assert found["R1@0.7,none"] == pytest.approx(100)
    assert not any("_exact" in name for name in found)


def test_the_groups_row_counts_missing_videos_too(
    benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lmms_eval import evaluator

    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    for subset in ("charades", "qvhighlights"):
        sorted((root / "videos" / subset).iterdir())[0].unlink()
    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(root))
    monkeypatch.setenv("TIMELENS_ALLOW_MISSING", "1")
    results = evaluator.simple_evaluate(model=constant_model(), tasks=["timelens_bench"])
    counts = {task: row["missing_videos,none"] for task, row in results["results"].items()}
    assert [counts[f"timelens_bench_{s}"] for s in ("charades", "activitynet", "qvhighlights")] == [1, 0, 1]
    assert counts["timelens_bench"] == 2


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl"], indirect=True)
def test_the_real_clips_through_their_original_benchmark(
    family: str, tiny_checkpoints: dict[str, Path], real_data: Path, tmp_path: Path
) -> None:
    done = run(
        "lmms_eval",
        *arguments(tiny_checkpoints[family], tmp_path, "timelens_original_charades_sta"),
        TIMELENS_ORIGINAL_DIR=str(real_data),
        TIMELENS_ALLOW_MISSING="1",
    )
    rows = samples(tmp_path)
    assert len(rows) == 10
    assert {row["mIoU"]["video"] for row in rows} == {"3MSZA", "OHOFG"}
    assert scores(tmp_path)["timelens_original_charades_sta"]["missing_videos"] == 1332
    assert "1332 videos" in done.stdout + done.stderr


def test_a_missing_video_is_named_before_a_model_is_loaded(benchmark_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    gone = sorted((root / "videos" / "charades").iterdir())[0]
    gone.unlink()
    absent = tmp_path / "no-such-checkpoint"
    done = run("lmms_eval", *arguments(absent, tmp_path / "out"), expect=1, TIMELENS_BENCH_DIR=str(root))
    assert gone.name in done.stderr
    assert "no-such-checkpoint" not in done.stderr  # the model was not looked at


def failing(tmp_path: Path, benchmark_folder: Path, *changes: str, without: str | None = None) -> tuple[str, str]:
    """stderr and stdout of the command with status 1 for a checkpoint that does not exist: it must not get that far."""
    command = [*arguments(tmp_path / "no-such-checkpoint", tmp_path / "out"), *changes]
    if without is not None:
        at = command.index(without)
        del command[at : at + 2]
    done = run("lmms_eval", *command, expect=1, TIMELENS_BENCH_DIR=str(benchmark_folder))
    assert "no-such-checkpoint" not in done.stderr
    return done.stderr, done.stdout


@pytest.mark.parametrize(
    ("changes", "without", "told"),
    [
        (("--tasks", "timelens_bensh"), None, "Tasks not found: timelens_bensh"),
        (("--tasks", "timelens_bensh*"), None, "No tasks specified"),
        ((), "--output_path", "Specify --output_path"),
        (("--offset", "-1"), None, "--offset must be >= 0"),
        ((), "--tasks", "Need to specify task to evaluate."),
        (("--output_path", "/proc/no/folder"), None, "--output_path /proc/no/folder: "),
    ],
)
def test_a_wrong_command_fails_with_status_1(
    changes: tuple[str, ...], without: str | None, told: str, benchmark_folder: Path, tmp_path: Path
) -> None:
    errors, _ = failing(tmp_path, benchmark_folder, *changes, without=without)
    assert f"timelens-plugins: the evaluation failed. {told}" in errors


def test_an_output_path_that_is_a_file_is_refused_before_a_model_is_loaded(
    benchmark_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    errors, _ = failing(tmp_path, benchmark_folder)
    assert f"--output_path {tmp_path / 'out'}: File exists; nothing was evaluated" in errors


def test_results_that_cannot_be_written_are_printed_with_status_1(
    checkpoint: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    """The folder is there when the run begins; where lmms-eval makes its own below it, a file is in the way."""
    command = arguments(checkpoint, tmp_path / "out", "timelens_bench_charades")
    (tmp_path / "out").mkdir()
    name = str(checkpoint).replace("/", "__").strip("_")
    for blocked in {name, "__".join(checkpoint.parts[-2:])}:
        (tmp_path / "out" / blocked).write_text("in the way")
    done = run("lmms_eval", *command, expect=1, TIMELENS_BENCH_DIR=str(benchmark_folder))
    assert "the results above could not be written to" in done.stderr
    assert '"mIoU,none"' in done.stdout


def test_what_could_not_be_pushed_or_compared_is_named_with_status_1(
    checkpoint: Path, benchmark_folder: Path, tmp_path: Path
) -> None:
    """After the results, which are saved and printed. The hub refuses two uploads and is there again afterwards."""
    script = tmp_path / "command.py"
    script.write_text(
        "from lmms_eval.__main__ import EvaluationTracker, cli_evaluate\n"
        "EvaluationTracker.recreate_metadata_card = lambda self: None\n"
        "cli_evaluate()\n"
    )
    push = "hub_results_org=o,push_results_to_hub=True,push_samples_to_hub=True"
    command = [*arguments(checkpoint, tmp_path / "out"), "--limit", "1", "--hf_hub_log_args", push]
    done = subprocess.run(
        [sys.executable, str(script), *command, "--baseline", "no-such-baseline"],
        env=os.environ
        | {"TIMELENS_BENCH_DIR": str(benchmark_folder), "HF_TOKEN": "hf_x", "HF_ENDPOINT": "http://127.0.0.1:9"}
        | {"HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-5000:]
    for told in (
        "[Baseline] Failed for timelens_bench_charades: ",
        "Could not save results aggregated: ",
        "Could not save sample results: ",
        "the results are there, what is named above is not",
    ):
        assert f"timelens-plugins: {told}" in done.stderr
    assert len(samples(tmp_path / "out")) == 3
    assert scores(tmp_path / "out").keys() >= {"timelens_bench", "timelens_bench_qvhighlights"}
    assert done.stdout.rstrip().endswith("|")
    assert done.stdout.count("|timelens_bench ") >= 2, "both tables"


def test_other_packages_runs_end_as_before(tmp_path: Path) -> None:
    done = run("lmms_eval", "--model", "qwen3_vl", "--tasks", "no_such_task", expect=0)
    assert "Tasks not found: no_such_task" in done.stderr
    done = run("lmms_eval", "--model", "qwen3_vl", expect=0)
    assert "Need to specify task to evaluate." in done.stdout


def test_which_runs_are_ours(tmp_path: Path) -> None:
    from lmms_eval.tasks import TaskManager

    from timelens_plugins.evaluation.command import _is_ours
    from timelens_plugins.evaluation.entry import manifests

    manifests()
    manager = TaskManager()
    (tmp_path / "other").mkdir()
    (tmp_path / "mine.yaml").write_text("task: kitchen\ninclude: timelens\ntimelens:\n  annotations: x.csv\n")
    (tmp_path / "other" / "theirs.yaml").write_text("task: theirs\noutput_type: generate_until\n")
    ours = ("timelens_bench", "mmmu_val,time*_vue_tr", str(tmp_path), f"mme,{tmp_path / 'mine.yaml'}")
    theirs = ("mmmu_val,vue*", "mme", "list", str(tmp_path / "other"), str(tmp_path / "other" / "theirs.yaml"))
    for tasks in (*ours, *theirs, None):
        assert _is_ours(SimpleNamespace(model="qwen3_vl", tasks=tasks), manager) == (tasks in ours), tasks
    assert _is_ours(SimpleNamespace(model="timelens", tasks=None), manager)
