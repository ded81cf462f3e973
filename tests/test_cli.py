"""The ``timelens`` command itself: what it says where a package is not installed, and where the recipes are."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from timelens_plugins.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: timelens {name}" in capsys.readouterr().out


def test_a_command_names_the_extra_it_needs() -> None:
    without_torch = (
        "import sys; sys.modules['torch'] = None; from timelens_plugins.cli import main\n"
        "sys.exit(main(['inspect', 'clip.mp4', '--query', 'a red circle appears']))"
    )
    done = subprocess.run([sys.executable, "-c", without_torch], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert done.stderr == "timelens inspect: torch is not installed: pip install 'timelens-plugins[video]'\n"


def test_the_demo_asks_for_all_it_needs_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in {"trl", "peft"} else object())
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 2
    assert "trl, peft is not installed: pip install 'timelens-plugins[eval,train]'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_recipes_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "rlvr.py").is_file()
    assert (folder / "configs" / "timelens_8b_rlvr.yaml").is_file()
