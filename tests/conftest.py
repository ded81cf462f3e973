"""Fixtures every test may use: the real data where it is present, tiny checkpoints, no network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: with several, the BLAS library picks how many by load, and sums come out differently from run to run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples every time: a run tells what a change broke. `--hypothesis-profile=default` looks for new ones.
with suppress(ImportError):  # some environments of the Makefile have no hypothesis
    from hypothesis import settings

    settings.register_profile("repeatable", derandomize=True)
    settings.load_profile("repeatable")

REAL_DATA = Path(os.environ.get("TIMELENS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that several processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests for a GPU say so where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real clips and annotations, which cannot be redistributed; TIMELENS_TEST_DATA says where they are."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}: set TIMELENS_TEST_DATA")
    return REAL_DATA


@pytest.fixture(scope="session", params=["qwen3_vl", "qwen2_5_vl"])
def family(request: pytest.FixtureRequest) -> str:
    """Both supported model families, one after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved tiny random checkpoint of each family, linear attention among them, and of a mixture of experts."""
    from tiny_moe import save_moe

    from timelens_plugins.families.tiny import save_checkpoint

    root = tmp_path_factory.mktemp("checkpoints")
    dense = {family: save_checkpoint(root / family, family) for family in ("qwen3_vl", "qwen2_5_vl", "qwen3_5")}
    return dense | {"qwen3_vl_moe": save_moe(root / "qwen3_vl_moe")}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window: TIMELENS_CHROMIUM, or ``chromium`` on the path."""
    program = os.environ.get("TIMELENS_CHROMIUM") or shutil.which("chromium")
    if program is None:
        pytest.skip("no Chromium: apt-get install chromium, or set TIMELENS_CHROMIUM")
    playwright = pytest.importorskip("playwright.sync_api", reason="no Chromium: pip install playwright")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = driver.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()
