"""Rewards and rows in the calling conventions of other trainers, and by the trainers themselves where installed."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from timelens_plugins.adapters.rewards import compute_score, easyr1_score, swift_orms, tiou_reward
from timelens_plugins.adapters.rows import rows_for
from timelens_plugins.adapters.truth import ground_truth, read_truth
from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.cli import main
from timelens_plugins.moments import Moment, load_moments
from timelens_plugins.rewards import REWARDS, temporal_iou_reward
from timelens_plugins.spans import Span

QUERY = "person opens 2 doors"
COMPLETIONS = [
    "The event happens in 2.0 - 6.0 seconds.",
    "The 2 doors are opened from 4 to 8 seconds.",
    "<think>a door</think><answer>From 1:02 to 1:10.</answer>",
    "I do not know.",
    "6 - 2 seconds",
]
SPANS = (Span(2.0, 6.0), Span(62.0, 70.0))
OURS = {name: reward(COMPLETIONS, spans=[SPANS] * 5, query=[QUERY] * 5) for name, reward in REWARDS.items()}


@pytest.fixture
def moment() -> Moment:
    return Moment("v#1", "/videos/v.mp4", "v", QUERY, SPANS, 90.0, "charades")


def test_ours_tell_the_completions_apart() -> None:
    assert OURS["temporal_iou"] == [1.0, pytest.approx(1 / 3), 1.0, 0.0, 0.0]
    assert OURS["format"] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize("name", REWARDS)
def test_each_convention_gives_the_rewards_of_our_trainer(name: str, moment: Moment) -> None:
    truth = ground_truth(moment)
    orm = swift_orms()[f"timelens_{name}"]
    reward = orm(args=SimpleNamespace())
    # ms-swift: keyword columns, batched, among them much that a reward does not ask for
    columns = {"solution": [truth] * 5, "messages": [[]] * 5, "prompt_id": ["p"] * 5, "trainer_state": None}
    assert reward(COMPLETIONS, **columns) == OURS[name]
    assert orm.__name__ in ("TimeLensTemporalIou", *(f"TimeLens{n.title().replace('_', '')}" for n in REWARDS))
    verl = [
        compute_score(data_source="charades", solution_str=c, ground_truth=truth, extra_info={}, rewards={name: 1.0})
        for c in COMPLETIONS
    ]
    assert [row["score"] for row in verl] == [row[name] for row in verl] == OURS[name]
    inputs = [{"response": c, "response_length": 9, "ground_truth": truth} for c in COMPLETIONS]
    batch = easyr1_score(inputs, rewards={name: 1.0})
    assert isinstance(batch, list)
    assert [row["overall"] for row in batch] == OURS[name]
    assert [easyr1_score(one, rewards={name: 1.0}) for one in inputs] == batch


def test_timelens_own_convention() -> None:
    completions = [[{"role": "assistant", "content": text}] for text in COMPLETIONS]
    anno = [{"span": [[2.0, 6.0], [62.0, 70.0]], "query": QUERY}] * 5
    given: dict[str, Any] = {"completion_ids": [[1]] * 5, "prompt_text": ["?"] * 5}
    assert tiou_reward(prompts=["?"] * 5, completions=completions, anno=anno, **given) == OURS["temporal_iou"]
    with pytest.raises(ValueError, match="needs anno"):
        tiou_reward(completions=completions)


def test_weights_add_up() -> None:
    text, truth = COMPLETIONS[2], [[62, 70]]
    found = compute_score(solution_str=text, ground_truth=truth, rewards={"temporal_iou": 1.0, "format": 0.5})
    assert found == {"score": 1.5, "temporal_iou": 1.0, "format": 1.0}
    for rewards, message in (({"iou": 1.0}, "unknown rewards iou"), ({"format": True}, "weight"), ({}, "no rewards")):
        with pytest.raises(ValueError, match=message):
            compute_score(solution_str=text, ground_truth=truth, rewards=rewards)
    with pytest.raises(ValueError, match="no setting weights"):
        compute_score(solution_str=text, ground_truth=truth, weights={"format": 1.0})
    with pytest.raises(ValueError, match="5 completions and 2 ground truths"):
        swift_orms()["timelens_giou"]()(COMPLETIONS, solution=["[[1, 2]]"] * 2)


def test_what_a_truth_may_be() -> None:
    same: list[Any] = [[2, 6], [[2.0, 6.0]], "[[2, 6]]", {"spans": [[2, 6]]}, {"span": [2, 6]}, '{"span": [[2, 6]]}']
    same += [np.array([[2.0, 6.0]]), ((2, 6),)]
    assert {read_truth(value).spans for value in same} == {(Span(2.0, 6.0),)}
    wrong: list[Any] = ["", "2 - 6", "{}", [], [[6, 2]], [[2]], [2, 6, 8], {"spans": [[0, float("nan")]]}, None, 5]
    for value in [*wrong, {"spans": [[2, 6]], "query": 3}, "[" * 10**5]:
        with pytest.raises(ValueError, match="a ground truth must be spans in seconds"):
            read_truth(value)


def test_the_package_alone_is_enough() -> None:
    code = (
        "import sys; import timelens_plugins.adapters.rewards, timelens_plugins.adapters.rows; "
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("trainer", ["ms-swift", "verl", "trl"])
def test_rows_hold_every_moment(trainer: str, real_data: Path, tmp_path: Path) -> None:
    """Of real annotations, through the command; what was written leads back to the moments."""
    annotations = real_data / "charades" / "charades_sta_test.json"
    output = tmp_path / "rows.jsonl"
    command = ["convert", str(annotations), "--to", trainer, "-o", str(output), "--videos", str(real_data / "charades")]
    assert main(command) == 2, "most videos are not there"
    assert not output.exists()
    assert main([*command, "--allow-missing", "--answers"]) == 0
    there = {p.stem for p in (real_data / "charades").glob("*.mp4")}
    moments = [m for m in load_moments(annotations) if m.video_id in there]
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(rows) == len(moments) > 0
    for row, moment in zip(rows, moments, strict=True):
        text = GROUNDING_PROMPT.format(query=moment.query)
        answer = f"{moment.spans[0].start:.1f} - {moment.spans[0].end:.1f} seconds."
        if trainer == "ms-swift":
            assert row["messages"][0] == {"role": "user", "content": f"<video>{text}"}
            assert row["messages"][1]["content"].endswith(answer)
            [video], truth = row["videos"], row["solution"]
            reward = swift_orms()["timelens_temporal_iou"]()
            assert reward([row["messages"][1]["content"]], solution=[truth]) == [1.0]
        elif trainer == "verl":
            assert row["prompt"] == [{"role": "user", "content": f"<video>{text}"}]
            [video], truth = [v["video"] for v in row["videos"]], row["reward_model"]["ground_truth"]
            assert compute_score(row["data_source"], row["answer"], truth, row["extra_info"])["score"] == 1.0
        else:
            [part, asked] = row["prompt"][0]["content"]
            assert asked == {"type": "text", "text": text}
            video = part["video"]
            assert temporal_iou_reward([row["completion"]], spans=[row["spans"]], query=[row["query"]]) == [1.0]
        assert Path(video).is_file()
        assert Path(video).stem == moment.video_id


def test_a_window_is_not_lost(moment: Moment) -> None:
    from dataclasses import replace

    part = replace(moment, video_start=10.0, video_end=40.0)
    [row] = rows_for("verl", [part])
    assert row["videos"] == [{"video": "/videos/v.mp4", "video_start": 10.0, "video_end": 40.0}]
    [row] = rows_for("trl", [part])
    assert row["prompt"][0]["content"][0]["video_end"] == 40.0
    with pytest.raises(ValueError, match=r"v#1: ms-swift takes whole videos"):
        rows_for("ms-swift", [part])
    with pytest.raises(ValueError, match="unknown trainer"):
        rows_for("swift", [part])


# ---------------------------------------------------------------- the trainers themselves


def needs(package: str) -> None:
    """Skip where a trainer is not installed; where it is, and does not work, the test fails."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"no {package}: make test-trainers")


def test_by_ms_swift_itself(moment: Moment) -> None:
    """Its own registry and its own call of rewards."""
    needs("swift")
    from swift.rewards import orms
    from swift.rl_core import grpo_algorithm as algorithm

    orms.update(swift_orms())
    names = list(swift_orms())

    def sample(text: str) -> Any:
        row = {"messages": [{"role": "assistant", "content": text}], "solution": ground_truth(moment)}
        return SimpleNamespace(messages=row["messages"], to_reward_row=lambda: row)

    funcs = [orms[name](args=None) for name in names]
    found = algorithm.compute_rewards_per_func([sample(text) for text in COMPLETIONS], funcs, None, device="cpu")
    np.testing.assert_allclose(found.numpy().T, [OURS[name.removeprefix("timelens_")] for name in names], rtol=1e-6)


def test_ms_swift_reads_our_rows(moment: Moment) -> None:
    needs("swift")
    from datasets import Dataset
    from swift.dataset import AutoPreprocessor

    [row] = rows_for("ms-swift", [moment])
    [read] = AutoPreprocessor()(Dataset.from_list([row]), num_proc=1)
    assert read["messages"] == row["messages"]
    assert read["videos"] == ["/videos/v.mp4"]
    assert read["solution"] == ground_truth(moment)


def test_by_verl_itself(moment: Moment) -> None:
    """Its own loading of a reward by ``pkg://``, and its own reward manager, on ids of a tiny tokenizer."""
    needs("verl")
    import omegaconf
    import torch
    from verl import DataProto
    from verl.experimental.reward_loop.reward_manager import naive
    from verl.trainer.ppo.reward import get_custom_reward_fn

    from timelens_plugins.families.tiny import build_tokenizer

    where = {"path": "pkg://timelens_plugins.adapters.rewards", "name": "compute_score"}
    where["reward_kwargs"] = {"rewards": {"temporal_iou": 1.0, "format": 0.5}}  # type: ignore[assignment]
    score = get_custom_reward_fn(omegaconf.OmegaConf.create({"reward": {"custom_reward_function": where}}))
    tokenizer = build_tokenizer()

    async def rewards() -> list[dict[str, Any]]:
        manager = naive.NaiveRewardManager(SimpleNamespace(), tokenizer, score)
        found = []
        for text in COMPLETIONS:
            ids = torch.tensor([tokenizer.encode(text)])
            [row] = rows_for("verl", [moment])
            data = DataProto.from_dict(
                tensors={
                    "prompts": ids[:, :1],
                    "responses": ids,
                    "attention_mask": torch.ones(1, ids.shape[1] + 1, dtype=torch.long),
                },
                non_tensors={
                    key: np.array([row[key]], dtype=object) for key in ("data_source", "reward_model", "extra_info")
                },
            )
            found.append(await manager.run_single(data))
        return found

    found = asyncio.run(rewards())
    expected = [iou + 0.5 * form for iou, form in zip(OURS["temporal_iou"], OURS["format"], strict=True)]
    assert [row["reward_score"] for row in found] == pytest.approx(expected)
    assert [row["reward_extra_info"]["temporal_iou"] for row in found] == OURS["temporal_iou"]
