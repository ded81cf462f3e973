"""What is done is not done again, and what it cost is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from timelens_plugins.demo import DemoSettings
from timelens_plugins.demo.stages import Stages
from timelens_plugins.demo.story import Demo


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


def test_a_stage_whose_product_is_gone_is_done_again(tmp_path: Path) -> None:
    product = tmp_path / "report.html"
    for deleted in (False, False, True):
        if deleted:
            product.unlink()
        stages = Stages(tmp_path / "stages", {})
        stages.run("report", lambda: product.write_text(product.name) and None, product=product)
        assert product.exists()
        assert stages.costs["report"].starts == 1 + deleted


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
    (tmp_path / "theirs" / "results" / "sft").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"theirs is not empty and holds no run of the demo: choose another --output"):
        Stages(tmp_path / "theirs" / "stages", {"seed": 1})
    assert not (tmp_path / "theirs" / "stages").exists()
    (tmp_path / "stages" / "clips.json").write_text('{"done": tr')
    with pytest.raises(ValueError, match=r"clips\.json: not JSON.*delete it"):
        stages.run("clips", spin)


@pytest.mark.parametrize(
    ("name", "processes", "message"),
    [("a, b", 1, "cannot read a path with , in it"), ("a", 0, "0 processes cannot share"), ("a", 3, "3 processes")],
)
def test_what_cannot_work_is_refused_at_once(tmp_path: Path, name: str, processes: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Demo(tmp_path / name, DemoSettings(), 0, processes, print)
    assert not (tmp_path / name).exists()
