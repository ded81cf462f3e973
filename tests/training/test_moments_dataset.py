"""Rows of moments, and the files behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset, Features, Json, List, Value

from timelens_plugins.encodings import ENCODINGS, build_messages
from timelens_plugins.moments import Moment, moments_from_rows
from timelens_plugins.training.dataset import check_prompts, find_videos, moments_dataset


def test_rows_hold_paths_and_prompts_without_empty_keys(moments: list[Moment]) -> None:
    window = replace(moments[1], video_start=1 / 3, video_end=9.1, duration=8.8)
    dataset = moments_dataset([moments[0], window], "interleaved_timestamp")
    assert dataset.column_names == [
        *("id", "video", "video_start", "video_end", "query", "spans", "duration", "source", "prompt", "answer")
    ]
    for moment, row in zip((moments[0], window), dataset, strict=True):
        assert row["spans"] == [list(span) for span in moment.spans]
        for name in ("id", "video", "video_start", "video_end", "query", "duration", "source"):
            assert row[name] == getattr(moment, name)
        expected = build_messages(
            moment.video,
            moment.query,
            "interleaved_timestamp",
            video_start=moment.video_start and pytest.approx(moment.video_start, abs=1e-10),
            video_end=moment.video_end,
        )
        assert row["prompt"] == expected
    assert dataset["prompt"][0] == dataset[0]["prompt"]
    assert dataset.shuffle(seed=0).select(range(1))[0]["prompt"][0]["content"][1].keys() == {"type", "text"}
    with pytest.raises(ValueError, match="no moments"):
        moments_dataset([])


def test_rows_survive_saving(moments: list[Moment], tmp_path: Path) -> None:
    from datasets import load_from_disk

    moments_dataset(moments).save_to_disk(tmp_path / "rows")
    assert load_from_disk(tmp_path / "rows")[0] == moments_dataset(moments)[0]


def test_missing_videos_are_named_at_once(moments: list[Moment]) -> None:
    other = replace(moments[0], video=moments[0].video.replace(".mp4", ".mkv"))
    assert find_videos([other, moments[1]]) == [moments[0], moments[1]]
    with pytest.raises(FileNotFoundError, match=r"1 of 2 videos are missing, such as nowhere/x\.mp4"):
        find_videos([moments[0], replace(moments[0], video="nowhere/x.mp4")])


def test_who_skips_videos_still_reads_those_with_another_extension(
    moments: list[Moment], caplog: pytest.LogCaptureFixture
) -> None:
    other = replace(moments[0], video=moments[0].video.replace(".mp4", ".mkv"))
    gone = replace(moments[1], video="nowhere/x.mp4")
    assert find_videos([other, gone], "keep", "the/root") == [moments[0], gone]
    assert "1 of 2 videos are missing under the/root, such as nowhere/x.mp4" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"1 of 1 videos are missing under the/root, such as nowhere/x\.mp4"):
        find_videos([gone, gone], "keep", "the/root")
    with pytest.raises(ValueError, match="'raise' or 'keep', got 'skip'"):
        find_videos([other], "skip")  # type: ignore[arg-type]


VIDEO = {"type": "video", "video": "a.mp4"}
TEXT = {"type": "text", "text": "When?"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([TEXT], "holds no video"),
        ("When?", "holds no video"),
        ([VIDEO, VIDEO, TEXT], "holds video and video"),
        ([{"type": "image", "image": "a.jpg"}, VIDEO, TEXT], "holds image and video"),
        ([{"type": "video", "video": ["1.jpg", "2.jpg"]}, TEXT], "its video is not a path: ['1.jpg', '2.jpg']"),
        ([{"type": "video_url", "video_url": {"url": "a.mp4"}}, TEXT], "holds video_url"),
    ],
)
def test_rows_that_no_model_could_be_shown_are_named_at_the_start(content, reason):
    rows = [{"id": f"m{i}", "prompt": [{"role": "user", "content": [VIDEO, TEXT]}]} for i in range(3)]
    check_prompts(rows)
    rows[1] = rows[1] | {"prompt": [{"role": "user", "content": content}]}
    for dataset in (rows, Dataset.from_list(rows, features=Features({"id": Value("string"), "prompt": List(Json())}))):
        with pytest.raises(ValueError, match=r"1 of 3 rows cannot be used: row 1 \(id 'm1'\): ") as caught:
            check_prompts(dataset)
        assert reason in str(caught.value)


def test_chat_rows_are_asked_and_answered_in_their_own_words():
    turns = [("user", "<video>When does a cat sleep? Say [[start, end]]."), ("assistant", "[[1.5, 4]]")]
    messages = [{"role": role, "content": text} for role, text in turns]
    row = {"messages": messages, "videos": ["x.mp4"]}
    own = moments_from_rows([row], video_root="clips")
    plain = moments_from_rows([{"video": "x.mp4", "query": "a cat sleeps", "start": 1.5, "end": 4}])
    for encoding in ("native", "interleaved_timestamp"):
        dataset = moments_dataset([*own, *plain], encoding)
        texts = [prompt[0]["content"][1]["text"] for prompt in dataset["prompt"]]
        assert texts[0] == ENCODINGS[encoding].preamble + "When does a cat sleep? Say [[start, end]]."
        assert texts[1] == ENCODINGS[encoding].question("a cat sleeps")
        assert list(dataset["answer"]) == ["[[1.5, 4]]", None]
        assert dataset["prompt"][0][0]["content"][0]["video"] == "clips/x.mp4"
