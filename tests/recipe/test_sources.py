"""Names in a configuration that another package makes files for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from timelens_plugins.recipe import files_of


def install(root: Path, package: str) -> None:
    """A package with a function for names that begin with ``kitchen:``, as pip leaves it."""
    (root / f"{package}.py").write_text("def make(name, folder):\n    return f'{folder}/{name.partition(\":\")[2]}'\n")
    info = root / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[timelens_plugins.files]\nkitchen = {package}:make\n")


def test_names_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ValueError, match="no installed package makes files for names that begin with 'kitchen:'"):
        files_of("kitchen:breakfast", "made")
    install(tmp_path, "own_kitchen")
    assert files_of("kitchen:breakfast", "made") == "made/breakfast"
    for path in ("kitchen", "data/kitchen.json", "Qwen/Qwen3-VL-8B-Instruct", "C:/kitchen.json"):
        assert files_of(path, "made") == path
    install(tmp_path, "other_kitchen")
    with pytest.raises(
        ValueError, match=r"kitchen:breakfast: (own|other)_kitchen:make and (own|other)_kitchen:make both"
    ):
        files_of("kitchen:breakfast", "made")


def test_the_demos_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown synthetic name 'synthetic:qwen9'; known: qwen3_vl"):
        files_of("synthetic:qwen9", str(tmp_path))
