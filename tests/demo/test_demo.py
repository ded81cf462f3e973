"""``timelens demo --quick`` as a user runs it: killed, continued, and its table against lmms-eval's own figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [str(Path(sys.executable).with_name("timelens")), "demo", "--quick", "--seed", "3", "--output"]
STAGES = [
    "clips",
    "evaluate base model",
    "after SFT",
    "evaluate SFT",
    "difficulty",
    "after RLVR",
    "evaluate RLVR",
    "report",
]


def start(output: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen([*COMMAND, str(output)], stdout=file, stderr=subprocess.STDOUT, start_new_session=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo that was killed in SFT, and what the command that continued it, on one process, said."""
    folder = tmp_path_factory.mktemp("demo")
    output, log = folder / "output", folder / "log"
    process = start(output, log)
    deadline = time.monotonic() + 600
    while not list((output / "sft").glob("checkpoint-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert process.poll() is None, log.read_text()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run([*COMMAND, str(output), "--processes", "1"], capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-6000:]
    return output, again.stdout


@pytest.mark.slow
def test_it_continues_where_it_was_killed(finished: tuple[Path, str]) -> None:
    output, said = finished
    assert "clips: done before in" in said
    assert "evaluate base model: done before in" in said
    assert "after SFT: continued …" in said
    assert "difficulty …" in said
    costs = json.loads((output / "demo.json").read_text())["costs"]
    assert list(costs) == STAGES[:-1]
    assert {name: cost["starts"] for name, cost in costs.items() if cost["starts"] > 1} == {"after SFT": 2}
    assert "* was interrupted" in said
    assert (output / "report.html").stat().st_size > 100_000
    begun = time.monotonic()
    third = subprocess.run([*COMMAND, str(output)], capture_output=True, text=True, timeout=300, check=True).stdout
    assert [line for line in third.splitlines() if line.endswith(" …")] == []
    assert sum("done before" in line for line in third.splitlines()) == len(STAGES)
    assert third[third.index("\n| ") :] == said[said.index("\n| ") :]
    assert time.monotonic() - begun < 120


@pytest.mark.slow
def test_the_table_has_the_figures_of_lmms_eval(finished: tuple[Path, str]) -> None:
    output, said = finished
    figures = json.loads((output / "demo.json").read_text())["scores"]
    for name, short in (("base model", "base"), ("after SFT", "sft"), ("after RLVR", "rlvr")):
        (results,) = (output / "results" / short).glob("*/*_results.json")
        group = json.loads(results.read_text())["results"]["timelens_bench"]
        assert figures[name]["n"] == 24
        assert 100 * figures[name]["miou"] == pytest.approx(group["mIoU,none"], abs=1e-6)
        for threshold, recall in figures[name]["recall"].items():
            assert 100 * recall == pytest.approx(group[f"R1@{threshold},none"], abs=1e-6)
    rows = [line for line in said.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows[1:]] == [
        "random span",
        "best constant span",
        "base model",
        "after SFT",
        "after RLVR",
    ]
    assert len({len(row) for row in rows}) == 1


@pytest.mark.slow
def test_other_settings_need_another_folder(finished: tuple[Path, str]) -> None:
    other = [*COMMAND[:3], "--seed", "4", "--output", str(finished[0])]
    done = subprocess.run(other, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "holds a run with another seed: choose another --output" in done.stderr
