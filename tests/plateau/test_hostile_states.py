"""State files that a trainer did not write as they are: one line names what is wrong, whatever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.cli import main
from timelens_plugins.plateau.history import read_reward_log, replay_run

RESULTS = Path(__file__).parents[1] / "data" / "results" / "timelens.json"
GOOD = [{"step": i, "reward": 0.1 * (i % 3), "samples": 8 * i, "reward_within_group_std": 0.1} for i in range(1, 60)]


def callback(**recorded: Any) -> dict[str, Any]:
    return {"stateful_callbacks": {"RewardPlateauCallback": recorded}}


STATES: dict[str, Any] = {
    "deep": "[" * 90_000,
    "deep value": '{"log_history": [{"step": 1, "reward": ' + "[" * 90_000,
    "digits": '{"log_history": [{"step": 1, "reward": 1' + "0" * 5000 + "}]}",
    "not UTF-8": b'{"log_history": [], "a": "\xff"}',
    "list": [],
    "null": None,
    "no list": {"log_history": {}},
    "no objects": {"log_history": [1]},
    "large number": {"log_history": [{"step": 1, "reward": 10**400, "samples": 8}]},
    "large step": {"log_history": [{"step": 10**400, "reward": 1, "samples": 8}]},
    "step 0 alone": {"log_history": [{"step": 0, "reward": 0.5}] * 3},
    "negative step": {"log_history": [{"step": -1, "reward": 0.5, "samples": 8}]},
    "text": {"log_history": [{"step": "1", "reward": "high", "samples": "8"}]},
    "half characters": {"log_history": [{"step": 1, "\ud800": 1, "loss": 0.5}]},
    "no samples": {"log_history": [{"step": 1, "reward": 0.5, "samples": None}]},
    "infinite samples": '{"log_history": [{"step": 1, "reward": 0.5, "samples": Infinity}]}',
    "no finite reward": '{"log_history": [{"step": 1, "reward": NaN}, {"step": 2, "reward": Infinity}]}',
    "objects for numbers": {"log_history": [{"step": 1, "reward": {}, "samples": []}]},
}
RECORDED: dict[str, Any] = {
    "callbacks are a list": {"stateful_callbacks": [1]},
    "callback is text": {"stateful_callbacks": {"RewardPlateauCallback": "x"}},
    "empty list": {"stateful_callbacks": {"RewardPlateauCallback": []}},
    "arguments are text": callback(args="x"),
    "patience is text": callback(args={"patience": "long"}),
    "key is a number": callback(args={"reward_key": 7}),
    "confidence is large": callback(args={"confidence": 10**400}),
    "decision is text": callback(attributes={"decision": "stop"}),
    "decision is empty": callback(attributes={"decision": {"step": 1}}),
    "attributes are text": callback(attributes="x"),
    "steps are text": {"max_steps": "many", "global_step": "x"},
}


def write(path: Path, content: Any) -> Path:
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_none_is_named_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "trainer_state.json", STATES[name])
    assert main(["plateau", str(path), "--samples-per-step", "8"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("timelens plateau: ")
    assert str(path) in error
    assert error.count("\n") == 1
    status = main(["report", str(RESULTS), "-o", str(tmp_path / "r.html"), "--training", str(path)])
    assert status in (0, 2)
    assert status == 0 or str(path) in capsys.readouterr().err


@pytest.mark.parametrize("name", RECORDED)
def test_what_a_callback_cannot_have_recorded_is_named_or_not_used(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "trainer_state.json", {"log_history": GOOD} | RECORDED[name])
    for command in (["plateau", path], ["report", RESULTS, "-o", tmp_path / "r.html", "--training", path]):
        status = main([str(word) for word in command])
        assert status in (0, 2)
        assert status == 0 or str(path) in capsys.readouterr().err


def test_an_evaluation_before_the_first_step_is_no_part_of_the_training(tmp_path: Path) -> None:
    whole = {"log_history": GOOD}
    before = {"log_history": [{"step": 0, "reward": 0.9, "samples": 0}, *GOOD]}
    logs = [read_reward_log(write(tmp_path / f"{i}.json", state))[0] for i, state in enumerate((whole, before))]
    assert logs[0] == logs[1]


def test_a_document_of_very_many_values_is_refused_before_it_is_built(tmp_path: Path) -> None:
    path = write(tmp_path / "trainer_state.json", '{"log_history": [' + "[]," * 5_000_001 + "[]]}")
    with pytest.raises(ValueError, match="more than 5,000,000 values"):
        read_reward_log(path)


def layout(**changes: int) -> dict[str, int]:
    return {
        "processes": 2,
        "per_device_train_batch_size": 64,
        "steps_per_generation": 1,
        "num_iterations": 1,
        "num_generations": 16,
    } | changes


@pytest.mark.parametrize(
    ("saved", "steps", "expected"),
    [
        # 2 * 64 rows are 8 prompts of 16 completions; a generation a step.
        ({"generation": 50, "used": 0, "layout": layout()}, 50, 8.0),
        # Each batch of 2 * 64 * 4 rows, 32 prompts, is used for 4 micro-steps twice; one micro-step an optimizer step.
        ({"generation": 4, "used": 4, "layout": layout(steps_per_generation=4, num_iterations=2)}, 36, 4.0),
        # The same with two micro-steps accumulated: 40 micro-steps are 20 steps.
        ({"generation": 5, "used": 0, "layout": layout(steps_per_generation=4, num_iterations=2)}, 20, 8.0),
    ],
)
def test_samples_per_step_are_those_our_trainer_saved(
    saved: dict[str, Any], steps: int, expected: float, tmp_path: Path
) -> None:
    history = [{k: v for k, v in entry.items() if k != "samples"} for entry in GOOD]
    folder = tmp_path / "run" / f"checkpoint-{steps}"
    write(folder / "trainer_state.json", {"log_history": history, "global_step": steps})
    with pytest.raises(ValueError, match="does not count samples"):
        replay_run(tmp_path / "run")
    write(folder / "timelens_state.json", saved | {"format": 1})
    replay = replay_run(tmp_path / "run")
    assert replay.log.samples == tuple(expected * entry["step"] for entry in GOOD)
    assert replay_run(tmp_path / "run", samples_per_step=3).log.samples[0] == 3
    write(folder / "timelens_state.json", {"layout": {"processes": "x"}})
    with pytest.raises(ValueError, match=r"timelens_state\.json: not the state of a run"):
        replay_run(tmp_path / "run")


def test_steps_without_a_finite_reward_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = [entry | {"reward": float("nan")} if entry["step"] % 10 == 0 else entry for entry in GOOD]
    assert main(["plateau", str(write(tmp_path / "trainer_state.json", {"log_history": history}))]) == 0
    assert "5 of these steps have no finite reward" in capsys.readouterr().out
