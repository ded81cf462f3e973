"""Synthetic names in configurations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from timelens_plugins.moments import load_moments
from timelens_plugins.synthetic.materialise import materialise


def test_a_training_set_and_other_names(tmp_path: Path) -> None:
    name = "synthetic:training_set,clips=1,size=64"
    annotations = Path(materialise(name, tmp_path))
    moments = load_moments(annotations, video_root=annotations.parent / "videos")
    assert len({m.video for m in moments}) == 3
    assert all(Path(m.video).is_file() for m in moments)
    assert materialise(name, tmp_path) == str(annotations)
    assert materialise("Qwen/Qwen3-VL-8B-Instruct", tmp_path) == "Qwen/Qwen3-VL-8B-Instruct"


def test_the_base_model_is_not_copied(tmp_path: Path) -> None:
    from transformers import AutoConfig

    assert AutoConfig.from_pretrained(materialise("synthetic:base", tmp_path)).model_type == "qwen3_vl"
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="unknown synthetic name"):
        materialise("synthetic:base,seed=1", tmp_path)


def test_a_checkpoint_is_made_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForImageTextToText

    name = "synthetic:qwen3_vl,seed=3"

    def other_process_was_first(source: Path, target: Path) -> None:
        monkeypatch.undo()
        assert materialise(name, tmp_path) == str(target)
        os.rename(source, target)

    monkeypatch.setattr(os, "rename", other_process_was_first)
    path = materialise(name, tmp_path)
    assert [child.name for child in tmp_path.iterdir()] == ["qwen3_vl-seed3"]
    assert AutoModelForImageTextToText.from_pretrained(path).config.model_type == "qwen3_vl"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("synthetic:qwen9", "known: qwen3_vl"),
        ("synthetic:qwen3_vl,clips=3", "seed=NUMBER"),
        ("synthetic:training_set,clips=three", "clips=NUMBER"),
        ("synthetic:training_set,seed", "clips=NUMBER"),
    ],
)
def test_unknown_names_are_refused(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        materialise(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_process_of_a_group_makes_a_whole_checkpoint(tmp_path: Path) -> None:
    """The second of two makes one while the first waits for it: as under load, where any process may be done first."""
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from transformers import AutoModelForImageTextToText\n"
        "from timelens_plugins.synthetic.materialise import materialise\n"
        "torch.distributed.init_process_group('gloo')\n"
        "for turn in (1, 0):\n"
        "    if torch.distributed.get_rank() == turn:\n"
        "        made = materialise(f'synthetic:qwen3_vl,seed={turn}', sys.argv[1])\n"
        "        AutoModelForImageTextToText.from_pretrained(made)\n"
        "    torch.distributed.barrier()\n"
        "torch.distributed.destroy_process_group()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*launch, str(tmp_path / "made")],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = ({f.name for f in (tmp_path / "made" / f"qwen3_vl-seed{n}").iterdir()} for n in (0, 1))
    assert one == other


def test_several_processes_of_one_run_get_a_whole_checkpoint(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, torch\n"
        "from transformers import AutoModelForImageTextToText\n"
        "from timelens_plugins.synthetic.materialise import materialise\n"
        "torch.distributed.init_process_group('gloo')\n"
        "AutoModelForImageTextToText.from_pretrained(materialise('synthetic:qwen3_vl', sys.argv[1]))\n"
        "torch.distributed.destroy_process_group()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*launch, str(tmp_path / "made")], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_half_a_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "qwen3_vl").mkdir()
    with pytest.raises(ValueError, match="not a whole checkpoint: delete it"):
        materialise("synthetic:qwen3_vl", tmp_path)
