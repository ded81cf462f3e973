"""A small benchmark in TimeLens-Bench's layout, written once."""

from __future__ import annotations

from pathlib import Path

import pytest

from timelens_plugins.evaluation import subsets


@pytest.fixture(scope="session")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subsets of two synthetic clips with two queries each."""
    from timelens_plugins.synthetic.benchmark import write_benchmark

    return write_benchmark(tmp_path_factory.mktemp("benchmark"), 2, queries=2, size=64, progress=False)


@pytest.fixture(autouse=True)
def _forget_loaded_subsets() -> None:
    subsets._load.cache_clear()
