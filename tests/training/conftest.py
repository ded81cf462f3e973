"""A small synthetic training set with its moments, and tiny models, shared by the tests of training and sft."""

from __future__ import annotations

from pathlib import Path

import pytest

from timelens_plugins.moments import Moment, load_moments


@pytest.fixture(scope="session")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotation file of six synthetic clips of 12 to 20 s, with one to three queries each."""
    from timelens_plugins.synthetic.benchmark import write_training_set

    return write_training_set(tmp_path_factory.mktemp("train"), 2, size=64, fps=4.0, progress=False)


@pytest.fixture(scope="session")
def moments(training_set: Path) -> list[Moment]:
    return list(load_moments(training_set, video_root=training_set.parent / "videos"))
