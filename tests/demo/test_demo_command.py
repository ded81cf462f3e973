"""Commands of the demo: everything in the log, progress on the terminal, failures with the end of the output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from timelens_plugins.demo.command import CommandError, run_command

BARS = """
import os, sys
print("a line"); sys.stdout.flush()
sys.stderr.write("\\r  5%|▌    | 1/20 [00:01<00:19]"); sys.stderr.write("\\r 10%|█    | 2/20"); sys.stderr.flush()
sys.stderr.write("\\rLoading weights: 50%|##  |\\n")
print(os.environ["DEMO_WORD"], end="")
"""


def test_output_goes_to_the_log_and_bars_to_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs" / "x.log"
    command = [sys.executable, "-c", BARS]
    run_command(command, log, label="sft", environment={"DEMO_WORD": "naïve"}, bars="^(?!Loading)")
    text = log.read_text()
    assert text.startswith(f"$ DEMO_WORD=naïve {sys.executable} -c")
    assert "\na line\n" in text
    assert text.endswith("naïve\n")
    shown = capsys.readouterr().err
    assert shown == "  sft: 5%|▌    | 1/20 [00:01<00:19]\n"  # not a terminal: one line now and then
    run_command(command, log, label="sft", environment={"DEMO_WORD": "again"})
    assert log.read_text().startswith(text), "a second start adds to the log"


def test_a_failure_shows_the_end_of_the_output(tmp_path: Path) -> None:
    code = "import sys; print('first'); [print(i) for i in range(40)]; print('why', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandError, match=r"(?s)^rlvr failed with status 3; the end of .*why$") as caught:
        run_command([sys.executable, "-c", code], tmp_path / "log", label="rlvr")
    assert "first" not in str(caught.value)


def test_a_command_ends_with_the_demo(tmp_path: Path) -> None:
    """Killed without a chance to clean up, the demo leaves no training behind that a second start would run into."""
    child = "import time\nwhile True:\n print('working', flush=True); time.sleep(0.1)"
    script = (
        "import sys; from pathlib import Path; from timelens_plugins.demo.command import run_command\n"
        f"run_command([sys.executable, '-c', {child!r}], Path({str(tmp_path / 'log')!r}), label='x')"
    )
    demo = subprocess.Popen([sys.executable, "-c", script])
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() or "working\n" not in (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    assert len(children) == 1
    os.kill(demo.pid, signal.SIGKILL)
    demo.wait()
    while Path(f"/proc/{children[0]}").exists() and "Z" not in Path(f"/proc/{children[0]}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
