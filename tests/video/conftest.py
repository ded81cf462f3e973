"""Which backends can be tested here, and clips that several tests read."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_clips import write_clip

from timelens_plugins.video.backends import backend_problem


@pytest.fixture(params=["pyav", "decord", "torchcodec"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that works on this machine, one after the other."""
    if problem := backend_problem(request.param):
        pytest.skip(problem)
    return str(request.param)


@pytest.fixture(scope="session")
def plain_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames at 30 fps, H.264 in mp4, a keyframe every 16."""
    return write_clip(tmp_path_factory.mktemp("clips") / "plain.mp4")
