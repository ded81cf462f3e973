"""The journal survives a kill at any byte, and belongs to one run only."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from timelens_plugins.inference.journal import Journal, JournalError

SETTINGS = {"model": "m", "fps": 2.0}


def test_items_come_back_after_any_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        for n in range(3):
            journal.add(f"k{n}", {"text": f"é{n}\n"})
    whole = path.read_bytes()
    starts = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        with Journal(path, SETTINGS) as journal:
            complete = sum(start <= cut for start in starts) - 1  # lines, the settings line included
            assert len(journal) == max(0, complete - 1)
            for n in range(len(journal), 3):
                journal.add(f"k{n}", {"text": f"é{n}\n"})
        assert path.read_bytes() == whole


def test_a_killed_process_loses_nothing_it_added(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = (
        "import sys, itertools\n"
        "from timelens_plugins.inference.journal import Journal\n"
        f"journal = Journal({str(path)!r}, {SETTINGS!r})\n"
        "for n in itertools.count():\n"
        "    journal.add(str(n), {'n': n}); print(n, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    added = [int(process.stdout.readline()) for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    journal = Journal(path, SETTINGS)
    assert [journal[str(n)]["n"] for n in added] == added


def test_another_runs_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path, SETTINGS).close()
    with pytest.raises(JournalError, match=r"fps: 2\.0 there, 4\.0 here"):
        Journal(path, SETTINGS | {"fps": 4.0})


def test_damage_before_the_end_is_an_error_that_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, SETTINGS) as journal:
        journal.add("a", {})
        journal.add("b", {})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-3], lines[2], ""]))
    with pytest.raises(JournalError, match="line 2"):
        Journal(path, SETTINGS)


def test_an_item_is_recorded_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal.jsonl", SETTINGS) as journal:
        journal.add("a", {"x": 1})
        with pytest.raises(ValueError, match="recorded already"):
            journal.add("a", {"x": 2})
        assert json.loads(json.dumps(dict(journal))) == {"a": {"key": "a", "x": 1}}
