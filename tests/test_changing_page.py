"""docs/changing.md: its examples, taken from the page as they stand there, do what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_runs import RECIPES
from trl import ModelConfig

from timelens_plugins.recipe import DataArguments, Drawing, RewardArguments, StoppingArguments, parse
from timelens_plugins.recipe.data import load_recipe_processor
from timelens_plugins.synthetic.benchmark import write_training_set

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "changing.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
PROGRAMS = [name for name in FILES if name.startswith("try_")]
ENVIRONMENT = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files, with a clip, a checkpoint of a known family and one that states the page's own."""
    root = tmp_path_factory.mktemp("page")
    for name, content in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    annotations = write_training_set(root / "set", 1, size=64, fps=4.0, progress=False)
    clip = sorted((annotations.parent / "videos").rglob("*.mp4"))[0]
    shutil.copy(clip, root / "clip.mp4")
    (root / "tasks" / "videos").mkdir()
    shutil.copy(clip, root / "tasks" / "videos" / "clip.mp4")
    shutil.copytree(tiny_checkpoints["qwen3_vl"], root / "checkpoint")
    toy = shutil.copytree(tiny_checkpoints["qwen3_vl"], root / "toy_checkpoint")
    config = toy / "config.json"
    config.write_text(config.read_text().replace('"model_type": "qwen3_vl"', '"model_type": "toy_vl"'))
    shutil.copytree(RECIPES, root / "recipes")
    return root


def test_the_programs_run(folder: Path) -> None:
    """All in one process: they do not stand in each other's way."""
    assert len(PROGRAMS) == 4
    run = "import runpy, sys\nfor path in sys.argv[1:]:\n    runpy.run_path(path, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", run, *PROGRAMS], cwd=folder, env=ENVIRONMENT | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_family_of_ones_own_is_trained_by_a_recipe(folder: Path) -> None:
    [(program, script)] = re.findall(r'`python -c "(import toy_vl, .*?)" (--config my\.yaml)`', PAGE)
    settings = (folder / "recipes" / "configs" / "tiny_sft.yaml").read_text()
    annotations = next((folder / "set").glob("*.jsonl"))
    changes = f"model_name_or_path: toy_checkpoint\nannotations: {annotations}\nmax_steps: 1\nsave_strategy: 'no'\n"
    kept = re.sub(r"^(model_name_or_path|annotations):.*\n", "", settings, flags=re.MULTILINE)
    (folder / "my.yaml").write_text(kept + changes)
    done = subprocess.run(
        [sys.executable, "-c", program, *script.split()], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "models of the family toy_vl cannot share prompts" in done.stderr
    assert "ToyProcessor" in (folder / "build" / "tiny_sft" / "processor_config.json").read_text()


def settings_with(folder: Path, name: str) -> tuple[DataArguments, RewardArguments]:
    """The tiny recipe's settings with those of a file of the page."""
    tiny = (RECIPES / "configs" / "tiny_rlvr.yaml").read_text()
    given = (folder / name).read_text()
    replaced = "|".join(re.findall(r"^\w+", given, re.MULTILINE))
    kept = re.sub(rf"^({replaced}):.*\n", "", tiny, flags=re.MULTILINE)
    config = folder / f"whole_{name}"
    config.write_text(kept + given)
    from timelens_plugins.grpo import TimeLensGRPOConfig

    classes = (DataArguments, Drawing, StoppingArguments, RewardArguments, TimeLensGRPOConfig, ModelConfig)
    data, _, _, rewards, *_ = parse(classes, ["--config", str(config)])
    return data, rewards


def test_the_reward_and_the_prompt_are_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    monkeypatch.chdir(folder)
    _, rewards = settings_with(folder, "own_rewards.yaml")
    brevity, _ = rewards.functions()
    assert brevity([[{"content": "x" * 50}]], query=["q"]) == [-0.5]
    data, _ = settings_with(folder, "own_prompt.yaml")
    prompt = load_recipe_processor(data, str(folder / "checkpoint"), "main").prompt
    assert prompt == FILES["own_prompt.txt"].strip()


def test_the_task_is_found_with_its_video(folder: Path) -> None:
    from timelens_plugins.evaluation.hook import install
    from timelens_plugins.evaluation.specs import specs_of
    from timelens_plugins.evaluation.subsets import load_subset

    install()
    from lmms_eval.tasks import TaskManager

    [spec] = specs_of("kitchen", TaskManager(include_path=str(folder / "tasks")))
    [moment] = load_subset(spec).moments
    assert (moment.query, moment.video) == ("a red circle appears", str(folder / "tasks" / "videos" / "clip.mp4"))


def test_what_the_page_names_is_there() -> None:
    for path in re.findall(r"`((?:tests|examples|recipes|tasks)/[\w./]+|\w+/\w+\.py)`", PAGE):
        assert (ROOT / path).exists() or (ROOT / "src" / "timelens_plugins" / path).exists(), path
    for page in re.findall(r"\]\((\S+\.md)\)", PAGE):
        assert (ROOT / "docs" / page).exists(), page
