"""What reinforcement learning gains in the demo comes from the reward: by halves of the demo's own training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import timelens_plugins.demo.story as story
from timelens_plugins.demo import DemoSettings
from timelens_plugins.demo.story import Demo
from timelens_plugins.demo.table import READING
from timelens_plugins.metrics import paired_difference
from timelens_plugins.results import load_run

STEPS = 150


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """Fine-tuned and evaluated."""
    demo = Demo(tmp_path_factory.mktemp("demo"), DemoSettings(rl_steps=STEPS), 77, 1, lambda line: None)
    demo.make_clips()
    demo.fine_tune(demo.sft, "--max_steps", demo.settings.sft_steps)
    demo.evaluate(demo.sft, "sft")
    return demo


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.long
def test_no_learning_rate_no_change(demo: Demo) -> None:
    target = demo.output / "rate_0"
    demo.reinforce(target, "--learning_rate", 0, "--max_steps", 2)
    assert weights(target) == weights(demo.sft)


@pytest.mark.long
def test_shuffled_rewards_remove_the_gain(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--difficulty", "none", "--min_steps", 10 * STEPS)  # no stop: both take all steps
    demo.reinforce(demo.output / "honest", *flags)
    run_command: Callable[..., None] = story.run_command

    def with_shuffled_rewards(command: list[str], *args: object, **options: object) -> None:
        script = str(Path(__file__).with_name("shuffled_rewards.py"))
        run_command([script if part.endswith("rlvr.py") else part for part in command], *args, **options)

    monkeypatch.setattr(story, "run_command", with_shuffled_rewards)
    demo.reinforce(demo.output / "shuffled", *flags)
    monkeypatch.undo()
    for name in ("honest", "shuffled"):
        demo.evaluate(demo.output / name, name)
    runs = [load_run(demo.results(name), name) for name in ("sft", "honest", "shuffled")]
    start, honest, mixed = ([case.moment for case in run.cases] for run in runs)
    gain, none = paired_difference(honest, start, READING), paired_difference(mixed, start, READING)
    apart = paired_difference(honest, mixed, READING)
    print(f"gain {gain.miou:+.3f} {gain.intervals['mIoU']}, shuffled {none.miou:+.3f} {none.intervals['mIoU']}")
    assert gain.n == 300
    assert gain.intervals["mIoU"] is not None
    assert gain.intervals["mIoU"].low > 0
    assert none.miou < 0.01
    assert apart.intervals["mIoU"] is not None
    assert apart.intervals["mIoU"].low > 0
