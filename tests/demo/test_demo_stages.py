"""What is done is not done again, and what it cost is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from timelens_plugins.demo.stages import Stages


def spin() -> None:
    sum(i * i for i in range(300_000))


def test_a_stage_is_done_once(tmp_path: Path) -> None:
    done: list[str] = []
    said: list[str] = []
    for _ in range(2):
        stages = Stages(tmp_path / "stages", {"seed": 1})
        cost = stages.run("clips", lambda: (done.append("clips"), spin())[1], said.append)
    assert done == ["clips"]
    assert cost.starts == 1
    assert 0 < cost.cpu_seconds <= cost.seconds * 1.5
    assert said[-1].startswith("clips: done before")


def test_what_was_interrupted_is_begun_again_and_counted(tmp_path: Path) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    stages = Stages(tmp_path / "stages", {})
    with pytest.raises(KeyboardInterrupt):
        stages.run("train", interrupted)
    assert "train" not in stages.costs
    assert Stages(tmp_path / "stages", {}).run("train", spin).starts == 2


def test_other_settings_and_damage_are_errors(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "stages", {"seed": 1, "moments": 8})
    stages.run("clips", spin)
    with pytest.raises(ValueError, match=r"another moments, seed: choose another --output"):
        Stages(tmp_path / "stages", {"seed": 2, "moments": 9})
    (tmp_path / "stages" / "clips.json").write_text('{"done": tr')
    with pytest.raises(ValueError, match=r"clips\.json: not JSON.*delete it"):
        stages.run("clips", spin)
