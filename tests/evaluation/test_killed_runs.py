"""``kill -9`` at five points of an evaluation by two processes: what is written in the end is that of a whole run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_lmms_eval import arguments, run

from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.synthetic.benchmark import write_benchmark

QUERIES, POINTS = 60, (1, 14, 27, 40, 53)  # answers in the journal when everything is killed
LAUNCH = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "lmms_eval")
TIMES = {"date", "start_time", "end_time", "total_evaluation_time_seconds", "throughput"}


def finished(journal: Path) -> int:
    return sum(path.read_bytes().count(b"\n\n") for path in journal.glob("*/*.jsonl"))


def written(output: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The samples files as they are, and the results without times, addresses in memory and the folder's name."""
    samples = {path.name.partition("_samples_")[2]: path.read_bytes() for path in output.rglob("*_samples_*.jsonl")}
    [path] = output.rglob("*_results.json")
    text = re.sub(r" at 0x[0-9a-f]+", "", path.read_text()).replace(f"/{output.name}", "/OUTPUT")
    return samples, {name: value for name, value in json.loads(text).items() if name not in TIMES}


def kill_at(point: int, command: list[str], journal: Path, environment: dict[str, str], one: bool) -> int:
    """Start, wait for so many answers, kill all processes, or only one of the two that work; how many there were."""
    launcher = subprocess.Popen(
        [sys.executable, "-m", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while finished(journal) < point and launcher.poll() is None:
        time.sleep(0.002)
    assert launcher.poll() is None, "it was at work"
    children = psutil.Process(launcher.pid).children(recursive=True)
    workers = [child for child in children if "lmms_eval" in child.cmdline()]
    assert len(workers) == 2
    at = finished(journal)
    for process in workers[:1] if one else [*children, psutil.Process(launcher.pid)]:
        process.kill()
    assert launcher.wait(timeout=120) != 0
    for process in children:
        process.wait(timeout=120)
    return at


@pytest.mark.long
def test_five_kills_of_two_processes_leave_no_trace(tmp_path: Path) -> None:
    """``make test`` has kills of several processes on one journal, in ``test_journal_runs`` and ``test_lmms_eval``."""
    bench = write_benchmark(tmp_path / "bench", moments=QUERIES // 3, size=64, progress=False)
    checkpoint = save_checkpoint(tmp_path / "checkpoint", "qwen3_vl", initializer_range=0.4)
    environment = os.environ | {"TIMELENS_BENCH_DIR": str(bench), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def command(name: str) -> list[str]:
        given = arguments(checkpoint, tmp_path / name)
        given[given.index("--model_args") + 1] += f",journal={tmp_path / 'journal' / name}"
        return [*LAUNCH, *given]

    run(*command("whole"), TIMELENS_BENCH_DIR=str(bench))
    assert finished(tmp_path / "journal" / "whole") == QUERIES
    journal = tmp_path / "journal" / "killed"
    stopped = [
        kill_at(point, command("killed"), journal, environment, one=number == 2) for number, point in enumerate(POINTS)
    ]
    print("killed at", stopped)
    assert all(point <= at < QUERIES for point, at in zip(POINTS, stopped, strict=True))
    assert not list((tmp_path / "killed").rglob("*_results.json"))
    run(*command("killed"), TIMELENS_BENCH_DIR=str(bench))
    assert finished(journal) == QUERIES, "every answer once"
    (samples, results), (expected, expected_results) = written(tmp_path / "killed"), written(tmp_path / "whole")
    assert samples.keys() == {f"timelens_bench_{name}.jsonl" for name in ("charades", "activitynet", "qvhighlights")}
    assert samples == expected, "byte for byte"
    assert results == expected_results
    assert len({line for content in samples.values() for line in content.splitlines()}) == QUERIES
