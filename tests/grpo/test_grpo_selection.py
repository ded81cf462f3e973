"""Recipe settings of difficulty and early stopping, and what they make of moments and a difficulty file."""

from __future__ import annotations

import copy
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from timelens_plugins.difficulty import Estimates, Weighting, select_moments
from timelens_plugins.difficulty.rows import difficulty_row
from timelens_plugins.families.tiny import build_model
from timelens_plugins.inference.fingerprint import fingerprint
from timelens_plugins.moments import AnnotationError, Moment, moments_from_rows
from timelens_plugins.recipe import Drawing, StoppingArguments, drawing, estimates_of, parse, reward_range, training_set
from timelens_plugins.rewards import REWARD_RANGES, REWARDS

SETTINGS = {"fingerprint": "f00d", "fps": 2.0, "encoding": "native"}


@pytest.fixture
def annotated() -> list[Moment]:
    """Forty moments of twenty videos of 20 to 96 s."""
    rows = [
        {
            "source": "s",
            "video_path": f"v{v}.mp4",
            "duration": 20.0 + 4 * v,
            "events": [{"query": f"event {q}", "span": [[5.0 * q, 5.0 * q + 5]]} for q in range(2)],
        }
        for v in range(20)
    ]
    return list(moments_from_rows(rows, video_root="videos"))


def write(path: Path, moments: list[Moment], **settings: Any) -> Path:
    """Three answers a moment, that get better from moment to moment."""
    rng = np.random.default_rng(0)
    rows = []
    for i, m in enumerate(moments):
        start, end = m.spans[0]
        ends = np.clip(end + rng.normal(5 - 5 * i / len(moments), 1.0, 3), start + 0.1, None)
        answers = [f"The event happens in {start} - {e:.1f} seconds." for e in ends]
        rows.append(json.dumps(difficulty_row(m, answers, SETTINGS | settings)))
    path.write_text("\n".join(rows) + "\n")
    return path


def offline(path: Path, **options: Any) -> Drawing:
    return drawing(difficulty="offline", difficulty_file=str(path), **options)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"difficulty": "hard"}, "difficulty must be one of none, offline, online, got 'hard'"),
        ({"sampling": "gauss"}, "sampling must be one of gaussian, hard, uniform"),
        ({"strata": "query", "target_size": 5}, "strata must be one of"),
        ({"difficulty_file": "d.jsonl"}, "difficulty_file: without effect with difficulty: none"),
        ({"difficulty": "online", "difficulty_mismatch": "ignore"}, "difficulty_mismatch must be one of error, accept"),
        ({"difficulty": "offline"}, "offline needs difficulty_file"),
        ({"difficulty": "online", "target_size": 5}, "target_size: without effect with difficulty: online"),
        ({"difficulty": "online", "shrink": True}, "shrink: without effect with difficulty: online"),
        ({"difficulty": "online", "difficulty_missing": "skip"}, "difficulty_missing: without effect without"),
        ({"difficulty": "online", "sampling_mean": 0.1}, "sampling_mean: without effect with sampling: hard"),
        ({"difficulty": "offline", "difficulty_file": "d", "half_life": 3.0}, "half_life: without effect"),
        ({"difficulty": "offline", "difficulty_file": "d", "sampling_a": 1.0}, "sampling_a: without effect with sampl"),
        (
            {"difficulty": "offline", "difficulty_file": "d", "sampling": "uniform", "shrink": True},
            "shrink: without effect with sampling: uniform",
        ),
        ({"sampling": "gaussian", "target_size": 5}, "sampling: gaussian needs difficulty: offline or online"),
        ({"strata": "none"}, "strata: without effect without target_size"),
        ({"target_size": 0}, "target_size must be at least 1"),
        ({"target_size": 8}, "target_size: 8 is less than one moment for each of the 9 bins of duration"),
        ({"difficulty": "offline", "difficulty_file": "d", "target_size": 1, "strata": "duration"}, "duration_filled"),
    ],
)
def test_settings_that_cannot_work_or_would_do_nothing(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        drawing(**settings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"patience": 40}, "patience: without effect without early_stopping: true"),
        ({"early_stopping": True, "patience": 0}, "patience must be a whole number"),
        ({"early_stopping": True, "confidence": 0.4}, "confidence must lie between"),
        ({"early_stopping": True, "saved_model": "best"}, "saved_model must be 'plateau' or 'last'"),
        ({"saved_model": "last"}, "saved_model: without effect without early_stopping: true"),
    ],
)
def test_stopping_settings_that_cannot_work(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StoppingArguments(**settings)


def test_settings_reach_what_they_are_for() -> None:
    flags = ["--difficulty", "online", "--sampling", "gaussian", "--sampling_std", "0.3", "--sampling_bins", "0"]
    flags += ["--early_stopping", "--patience", "64", "--min_steps", "9"]
    difficulty, stopping = parse((Drawing, StoppingArguments), flags)
    assert difficulty.weighting() == Weighting("gaussian", 0.05, 0.3, None, uncertainty=True, a=1.0, b=1.0)
    callback = stopping.callback()
    assert (callback.patience, callback.min_steps, callback.confidence) == (64, 9, 0.995)
    assert StoppingArguments().callback() is None
    released = drawing(difficulty="offline", difficulty_file="d")
    assert released.weighting() == Weighting()
    assert drawing(difficulty="online").weighting() == Weighting("hard", a=1.0, b=1.0)
    assert drawing(difficulty="online", sampling_b=0.5).weighting() == Weighting("hard", a=1.0, b=0.5)
    timelens2 = drawing(difficulty="offline", difficulty_file="d", sampling="hard")
    assert timelens2.weighting() == Weighting("hard", a=2.0, b=0.0)
    assert drawing(difficulty="offline", difficulty_file="d", shrink=True).weighting().uncertainty


def test_reward_ranges() -> None:
    assert REWARD_RANGES.keys() == REWARDS.keys()
    answers = [
        "",
        "0 to 8 seconds",
        "2 to 6 seconds",
        "<think></think><answer>2 to 6 seconds</answer>",
        "90 to 99 seconds",
    ]
    for name, reward in REWARDS.items():
        low, high = REWARD_RANGES[name]
        values = reward([[{"role": "assistant", "content": a}] for a in answers], spans=[[(2.0, 6.0)]] * len(answers))
        assert low <= min(values) < max(values) <= high
        assert low == pytest.approx(min(values), abs=0.05)
        assert high == max(values)
    assert reward_range(["parse_penalty", "temporal_iou"]) == (0.0, 1.0)
    assert reward_range(["wasserstein", "set_iou", "parse_penalty"]) == (-1.0, 2.0)
    assert reward_range(["giou", "parse_penalty"], [2.0, -1.0]) == (-2.0, 3.0)


@pytest.mark.parametrize("names", [["giou", "parse_penalty"], ["temporal_iou", "parse_penalty"]])
def test_each_reward_has_a_weight(names: list[str]) -> None:
    for arguments in (None, drawing()):
        with pytest.raises(ValueError, match=rf"reward_weights has 1 numbers, and there are 2 rewards \({names[0]}, "):
            reward_range(names, [1.0], arguments)


def test_online_difficulty_that_starts_from_ious_goes_on_with_ious() -> None:
    online = drawing(difficulty="online", difficulty_file="d")
    with pytest.raises(ValueError, match=r"starts from IoUs, and would learn from giou \+ parse_penalty.*weight of 0"):
        reward_range(["giou", "parse_penalty"], None, online)
    assert reward_range(["giou", "temporal_iou"], [1.0, 0.0], online) == (0.0, 1.0)
    for other in (drawing(difficulty="online"), offline(Path("d"))):
        assert reward_range(["giou"], None, other) == reward_range(["giou"])


# ---------------------------------------------------------------- the file


def test_offline_selection_is_that_of_the_library(tmp_path: Path, annotated: list[Moment]) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    suitable = annotated[4:]
    for options in ({}, {"shrink": True, "strata": "none"}, {"sampling": "hard", "sampling_b": 1.0}):
        arguments = offline(path, target_size=9, **options)
        estimates = estimates_of(arguments, suitable, annotated, SETTINGS)
        assert estimates.ids == tuple(m.id for m in suitable)
        chosen, online = training_set(arguments, suitable, estimates, seed=7)
        assert online is None
        known = estimates.shrunk() if arguments.shrink else estimates.plain()
        expected = select_moments(
            suitable, known, 9, weighting=arguments.weighting(), strata=arguments.strata or "duration", seed=7
        )
        assert chosen == [suitable[i] for i in expected.indices]


def test_the_log_shows_what_was_drawn(
    tmp_path: Path, annotated: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    with caplog.at_level(logging.INFO, "timelens_plugins"):
        arguments = offline(path, target_size=10, strata="none")
        chosen, _ = training_set(arguments, annotated, estimates_of(arguments, annotated, annotated, SETTINGS), seed=0)
        assert len(chosen) == 10
        everything = offline(path)
        both, _ = training_set(everything, annotated, estimates_of(everything, annotated, annotated, SETTINGS), seed=0)
        assert both == annotated
    assert "10 of 40 moments selected (target 10)" in caplog.text
    assert "mean IoU" in caplog.text
    assert "target 2500 is larger than the data: all 40 moments are used" in caplog.text


def test_failed_videos_are_left_out_by_name(
    tmp_path: Path, annotated: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "d.jsonl", annotated[2:])
    listing = tmp_path / "d.jsonl.failed.jsonl"
    entry = {"video": "v0.mp4", "error": "moov atom not found", "moments": [m.id for m in annotated[:2]]}
    listing.write_text(json.dumps(entry) + "\n")
    arguments = offline(path)
    with caplog.at_level(logging.WARNING, "timelens_plugins"):
        estimates = estimates_of(arguments, annotated, annotated, SETTINGS)
    assert estimates.ids == tuple(m.id for m in annotated[2:])
    assert "2 of 40 moments have no estimate, as 1 videos could not be read" in caplog.text
    assert f"{annotated[0].id} (moov atom not found)" in caplog.text
    assert training_set(arguments, annotated, estimates, seed=0)[0] == annotated[2:]

    listing.write_text("{}\n")
    with pytest.raises(ValueError, match=r"failed\.jsonl: not a listing of failed videos"):
        estimates_of(arguments, annotated, annotated, SETTINGS)


def test_other_moments_without_a_row(tmp_path: Path, annotated: list[Moment], caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "d.jsonl", annotated[:-3])
    with pytest.raises(AnnotationError, match=r"3 of 40 moments have no row.*run the estimation again"):
        estimates_of(offline(path), annotated, annotated, SETTINGS)
    with caplog.at_level(logging.WARNING, "timelens_plugins"):
        skipped = offline(path, difficulty_missing="skip")
        estimates = estimates_of(skipped, annotated, annotated, SETTINGS)
    assert "no estimate for 3 of 40 moments, which are left out" in caplog.text
    assert annotated[-1].id in caplog.text
    assert training_set(skipped, annotated, estimates, seed=0)[0] == annotated[:-3]
    with pytest.raises(AnnotationError, match="has a row for none of the moments"):
        estimates_of(skipped, annotated[-3:], annotated, SETTINGS)
    # A filter that leaves them out needs no row for them.
    estimates_of(offline(path), annotated[:-3], annotated, SETTINGS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"iou": None, "ious": [0.5, None, 0.5]}, "row 4, answer 2: field 'iou': null"),
        ({"iou": float("nan"), "ious": [float("nan")] * 3}, "(row|line) 4.*must be finite"),
        ({"iou": 1.5, "ious": [1.5] * 3}, "(row|line) 4.*must lie between 0 and 1, got 1.5"),
        ({"query": "something else", "id": "x"}, "line 4.*is about a moment that is not in the data"),
        ({"settings": SETTINGS | {"fps": 1.0}}, r"line 4.*other settings than line 1 \(fps: 2\.0, here 1\.0\)"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, annotated: list[Moment], change: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3] |= change
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for mismatch in (None, "accept"):
        with pytest.raises(AnnotationError, match=says) as caught:
            estimates_of(offline(path, difficulty_mismatch=mismatch), annotated, annotated, SETTINGS)
        assert str(path) in str(caught.value)
        assert "; " in str(caught.value)


def test_a_row_that_stands_twice_and_a_last_line_that_was_cut(
    tmp_path: Path, annotated: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[5]]))
    with pytest.raises(AnnotationError, match="stands twice"):
        estimates_of(offline(path), annotated, annotated, SETTINGS)
    path.write_text("".join(lines)[:-40])
    with pytest.raises(AnnotationError, match="1 of 40 moments have no row"):
        estimates_of(offline(path), annotated, annotated, SETTINGS)
    assert "line 40 was cut off by a kill and is dropped" in caplog.text
    estimates = estimates_of(offline(path, difficulty_missing="skip"), annotated, annotated, SETTINGS)
    assert len(estimates.ids) == 39


def test_estimates_of_another_model_or_other_frames(
    tmp_path: Path, annotated: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    for here, says in (({"fingerprint": "beef"}, "fingerprint: 'f00d', here 'beef'"), ({"fps": 1.0}, "fps: 2.0, here")):
        settings = SETTINGS | here
        with pytest.raises(AnnotationError) as caught:
            estimates_of(offline(path), annotated, annotated, settings)
        for part in (
            str(path),
            "line 1",
            says,
            "estimate with the model that will be trained",
            "difficulty_mismatch: accept",
        ):
            assert part in str(caught.value)
        caplog.clear()
        estimates = estimates_of(offline(path, difficulty_mismatch="accept"), annotated, annotated, settings)
        assert len(estimates.ids) == 40
        assert "accepted all the same" in caplog.text
        assert says in caplog.text


def test_a_file_that_says_nothing_about_its_model(tmp_path: Path, annotated: list[Moment]) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "settings"}) + "\n" for r in rows))
    with pytest.raises(AnnotationError, match=r"does not say which model answered.*\(difficulty_mismatch: accept\)"):
        estimates_of(offline(path), annotated, annotated, SETTINGS)
    assert len(estimates_of(offline(path, difficulty_mismatch="accept"), annotated, annotated, SETTINGS).ids) == 40


def test_a_fingerprint_does_not_depend_on_the_precision() -> None:
    model = build_model("qwen3_vl")
    whole = fingerprint(model)
    assert fingerprint(copy.deepcopy(model).to(torch.bfloat16)) == whole
    with torch.no_grad():
        model.model.language_model.embed_tokens.weight.mul_(1.02)
    assert fingerprint(model) != whole


# ---------------------------------------------------------------- the training set


def test_without_difficulty_a_uniform_draw_or_everything(annotated: list[Moment]) -> None:
    assert training_set(drawing(), annotated, None, seed=0) == (annotated, None)
    arguments = drawing(target_size=18, strata="duration_filled")
    chosen, online = training_set(arguments, annotated, None, seed=0)
    assert online is None
    assert len(chosen) == len({m.id for m in chosen}) == 18
    assert chosen != training_set(arguments, annotated, None, seed=1)[0]


def test_nothing_drawn_is_an_error(annotated: list[Moment]) -> None:
    solved = Estimates.from_ious([m.id for m in annotated], [[1.0]] * 40)
    arguments = drawing(difficulty="offline", difficulty_file="d", sampling="hard", target_size=9)
    with pytest.raises(
        ValueError, match=r"none of 40 moments was drawn: all moments have the IoU 1, and none has a we"
    ):
        training_set(arguments, annotated, solved, seed=0)


def test_online_starts_from_the_file(tmp_path: Path, annotated: list[Moment]) -> None:
    path = write(tmp_path / "d.jsonl", annotated)
    arguments = drawing(difficulty="online", difficulty_file=str(path), half_life=5.0)
    estimates = estimates_of(arguments, annotated[::-1], annotated, SETTINGS)
    chosen, online = training_set(arguments, annotated, estimates, seed=0)
    assert chosen == annotated
    assert online is not None
    assert online.ids == tuple(m.id for m in annotated)
    assert online.half_life == 5.0
    known = estimates.take([m.id for m in annotated])
    # Three answers each, beside a common mean that counts like four.
    np.testing.assert_allclose(online.difficulty().mean, (4 * known.mean.mean() + 3 * known.mean) / 7)
    assert np.ptp(known.mean) > 0.3
    fresh = training_set(drawing(difficulty="online"), annotated, None, seed=0, rewards=(-1.0, 2.0))[1]
    assert fresh is not None
    assert fresh.reward_range == (-1.0, 2.0)
    assert np.ptp(fresh.weights()) == 0
    for settings, says in (({"sampling_b": -1.0}, "exponents"), ({"half_life": 0.0}, "half_life")):
        wrong = drawing(difficulty="online", **settings)
        with pytest.raises(ValueError, match=says):
            training_set(wrong, annotated, None, seed=0)


def test_one_answer_a_moment_has_no_spread(annotated: list[Moment]) -> None:
    estimates = Estimates.from_ious([m.id for m in annotated], [[0.5]] * 40)
    arguments = drawing(difficulty="offline", difficulty_file="d", sampling="hard", sampling_b=1.0, target_size=9)
    with pytest.raises(ValueError, match="estimate with samples >= 2"):
        training_set(arguments, annotated, estimates, seed=0)
