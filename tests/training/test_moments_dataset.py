"""Rows of moments, and the recipe's filters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from timelens_plugins.moments import Moment
from timelens_plugins.spans import Span
from timelens_plugins.timestamps import build_messages
from timelens_plugins.training.dataset import filter_moments, find_videos, moments_dataset


def test_rows_hold_paths_and_prompts_without_empty_keys(moments: list[Moment]) -> None:
    window = replace(moments[1], video_start=1 / 3, video_end=9.1, duration=8.8)
    dataset = moments_dataset([moments[0], window], "interleaved_timestamp")
    assert dataset.column_names == [
        *("id", "video", "video_start", "video_end", "query", "spans", "duration", "source", "prompt")
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


def test_filters_say_what_they_dropped(moments: list[Moment]) -> None:
    good = replace(moments[0], duration=20.0)
    cases = {
        "video too short": replace(good, duration=4.9),
        "video too long": replace(good, duration=500.1),
        "query too long": replace(good, query="word " * 201),
        "audio query": replace(good, query="when can a dog be heard?"),
        "span of zero length": replace(good, spans=(Span(2, 2),)),
    }
    unknown = replace(good, duration=None)
    edges = [replace(good, duration=5.0), replace(good, duration=500.0), replace(good, query="word " * 200)]
    kept, report = filter_moments([good, *cases.values(), unknown, *edges])
    assert kept == [good, unknown, *edges]
    assert report.dropped == {reason: [moment] for reason, moment in cases.items()}
    assert (report.kept, report.unknown_duration) == (5, 1)
    assert report.summary().startswith("5 moments kept, 5 dropped (1 video too short")
    assert filter_moments([cases["audio query"]], audio_queries=True)[1].counts == {}
    with pytest.raises(ValueError, match="min <= max"):
        filter_moments([good], min_duration=10, max_duration=5)


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
