"""The real lmms-eval command, in every way it is started, from an editable install and from a wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from timelens_plugins.metrics import evaluate, load_results
from timelens_plugins.synthetic.tiny import save_checkpoint

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
    assert all(found[task]["missing_videos"] == 0 for task in subsets)


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
    assert sorted(path.name for path in journal.iterdir()) == ["answers-0-of-2.jsonl", "answers-1-of-2.jsonl"]
    assert scores(tmp_path) == scores(reference[0])
    assert answers(tmp_path) == answers(reference[0])


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


def test_other_models_can_run_the_tasks(benchmark_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was not written for these tasks, in lmms-eval's older 'simple' interface."""
    from lmms_eval import evaluator
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

    monkeypatch.setenv("TIMELENS_BENCH_DIR", str(benchmark_folder))
    results = evaluator.simple_evaluate(model=Constant(), tasks=["timelens_bench_charades"], log_samples=True)
    rows = results["samples"]["timelens_bench_charades"]
    official, exact = [], []
    for row in rows:
        [[start, end]] = row["mIoU"]["span"]
        for ends, found in ((6, official), (6.4, exact)):
            found.append(max(0, min(end, ends) - max(start, 2)) / (max(end, ends) - min(start, 2)))
    assert results["results"]["timelens_bench_charades"]["mIoU,none"] == pytest.approx(100 * sum(official) / len(rows))
    assert results["results"]["timelens_bench_charades"]["mIoU_exact,none"] == pytest.approx(
        100 * sum(exact) / len(rows)
    )


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
    import shutil

    root = shutil.copytree(benchmark_folder, tmp_path / "bench")
    gone = sorted((root / "videos" / "charades").iterdir())[0]
    gone.unlink()
    absent = tmp_path / "no-such-checkpoint"
    done = run("lmms_eval", *arguments(absent, tmp_path / "out"), expect=1, TIMELENS_BENCH_DIR=str(root))
    assert gone.name in done.stderr
    assert "no-such-checkpoint" not in done.stderr  # the model was not looked at
