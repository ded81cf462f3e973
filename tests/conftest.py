"""Fixtures every test may use: the real data where it is present, tiny checkpoints, no network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# One thread: with several, the BLAS library picks how many by load, and sums come out differently from run to run.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REAL_DATA = Path(os.environ.get("TIMELENS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))


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
    """A saved tiny random checkpoint of each family."""
    from timelens_plugins.synthetic.tiny import save_checkpoint

    root = tmp_path_factory.mktemp("checkpoints")
    return {family: save_checkpoint(root / family, family) for family in ("qwen3_vl", "qwen2_5_vl")}
