"""Rewards and prompts of one's own: by name in the configuration, checked before a model is loaded, saved with it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from recipe_runs import RECIPES, run
from trl import ModelConfig

from timelens_plugins.answers import GROUNDING_PROMPT, PROMPTS, ask, read_prompt
from timelens_plugins.difficulty import load_estimates
from timelens_plugins.encodings import load_processor
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.grpo import TimeLensGRPOConfig
from timelens_plugins.moments import load_moments
from timelens_plugins.recipe import DataArguments, Drawing, RewardArguments, StoppingArguments, parse, reward_range
from timelens_plugins.recipe.drawing import OnlineDraws
from timelens_plugins.rewards import format_reward, temporal_iou_reward
from timelens_plugins.synthetic.benchmark import write_training_set

SETTINGS = (DataArguments, Drawing, StoppingArguments, RewardArguments, TimeLensGRPOConfig, ModelConfig)

OWN = """
import functools

def brevity(completions, query, **columns):
    assert len(query) == len(completions)
    return [-len(completion[0]["content"]) / 100 for completion in completions]

def narrow(completions):
    return [0.0] * len(completions)

number = 3
half = functools.partial(brevity, scale=0.5)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a configuration and a module beside it, and a working folder elsewhere."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_rewards", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    beside = tmp_path / "config"
    beside.mkdir()
    (beside / "own_rewards.py").write_text(OWN)
    (beside / "broken_rewards.py").write_text("import nothing_of_this_name")
    return beside


def parsed(folder: Path, text: str = "", *flags: str) -> tuple[Any, ...]:
    config = folder / "my.yaml"
    config.write_text((RECIPES / "configs" / "tiny_rlvr.yaml").read_text() + "\n" + text)
    return parse(SETTINGS, ["--config", str(config), *flags])


def test_a_reward_beside_the_configuration(folder: Path) -> None:
    rewards = parsed(folder, "", "--rewards", "own_rewards:brevity", "temporal_iou")[3]
    own, known = rewards.functions()
    assert own([[{"content": "x" * 50}]], query=["q"]) == [-0.5]
    assert known is temporal_iou_reward


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        ("own_rewards:nothing", r"own_rewards:nothing: cannot be imported \(AttributeError: .*PYTHONPATH"),
        ("not_there:f", r"not_there:f: cannot be imported \(ModuleNotFoundError"),
        ("broken_rewards:f", "No module named 'nothing_of_this_name'"),
        ("own_rewards:number", "own_rewards:number is a int, not a function"),
        ("own_rewards:narrow", r"own_rewards:narrow cannot be called as rewards are .*\(completions, \*\*columns\)"),
        ("iou", "unknown rewards iou; known: temporal_iou, .*module:function"),
        (":f", "cannot be imported"),
    ],
)
def test_rewards_that_cannot_work(reward: str, told: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=told):
        parsed(folder, "", "--rewards", reward)


def test_bounds_of_own_rewards_are_not_known() -> None:
    assert reward_range(["own:f", "temporal_iou"], None, OnlineDraws("online")) == (0.0, 1.0)
    with pytest.raises(ValueError, match="those of own:f are not known: add temporal_iou"):
        reward_range(["own:f"], None, OnlineDraws("online"))


@pytest.mark.parametrize(
    ("text", "flags", "told"),
    [
        ("snap_targets: true", [], r"my.yaml: snap_targets is now called snap_spans"),
        ("", ["--decoder_threads=3"], "decoder_threads is now called clip_workers"),
        ("learning_rte: 3", [], "learning_rte"),
        ("half_life: 3", [], "half_life: without effect with difficulty: none"),
        ("difficulty: hard", [], "difficulty must be one of none, offline, online"),
        ("prompt: find it", [], "prompt must be grounding or thinking or span_set, contain {query}"),
    ],
)
def test_names_and_values_that_are_not_known(text: str, flags: list[str], told: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=told):
        parsed(folder, text, *flags)


def test_prompts(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text('When? {query}\nAs {"start": 1, "end": 2}\n')
    template = read_prompt(str(file))
    assert ask(template, "a {light}") == 'When? a {light}\nAs {"start": 1, "end": 2}'
    assert read_prompt("thinking") == PROMPTS["thinking"]
    assert read_prompt("now: {query}") == "now: {query}"
    file.write_text("When?")
    with pytest.raises(ValueError, match=r"must contain {query}, which"):
        read_prompt(str(file))
    wanted = PROMPTS["thinking"].partition("be: ")[2].replace("<start time>", "1").replace("<end time>", "2")
    assert format_reward([wanted]) == [1.0]


def test_the_prompt_goes_through_training_difficulty_and_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    annotations = write_training_set(tmp_path / "set", 1, size=64, fps=4.0, progress=False)
    (tmp_path / "own.txt").write_text("Say when {query} is seen.")
    few: dict[str, Any] = {"annotations": str(annotations), "save_strategy": "no", "max_steps": 1}
    run("sft", output_dir="sft", prompt="own.txt", **few)
    (tmp_path / "own.txt").unlink()
    assert load_processor("sft").prompt == "Say when {query} is seen."

    for name, prompt in (("saved", None), ("asked", "grounding")):
        settings = {"model_name_or_path": "sft", "annotations": str(annotations), "samples": None, "temperature": None}
        assert run("difficulty", output=f"{name}.jsonl", prompt=prompt, max_new_tokens=4, **settings) == 0
    [saved, asked] = (json.loads(Path(f"{name}.jsonl").read_text().splitlines()[0]) for name in ("saved", "asked"))
    assert saved["settings"]["prompt"] != asked["settings"]["prompt"]
    assert load_estimates("saved.jsonl", list(load_moments(annotations, video_root=annotations.parent / "videos")))

    few |= {"max_completion_length": 4, "model_name_or_path": "sft"}
    run("rlvr", output_dir="rlvr", rewards=["format", "temporal_iou"], **few)
    assert "reward format pays for <think>" in caplog.text
    assert load_processor("rlvr").prompt == "Say when {query} is seen."
    caplog.clear()
    run("rlvr", output_dir="thinking", rewards=["format", "temporal_iou"], prompt="thinking", **few)
    assert "reward format pays for" not in caplog.text

    model = TimeLens(pretrained="thinking", device="cpu")
    assert model._template({"query": "a light"}, "task") == PROMPTS["thinking"]
    assert model._template({"query": "a light", "question": "When?"}, "task") is None, "rows with words of their own"
    assert "asked as it was trained" in caplog.text
    official = TimeLens(pretrained="thinking", device="cpu", prompt="grounding")
    assert official._template({"query": "a light"}, "task") == GROUNDING_PROMPT
