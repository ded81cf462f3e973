"""The recipe's filters say what they dropped; what is held out shares no video with the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from timelens_plugins.cli import main
from timelens_plugins.moments import Moment, filter_moments, load_moments, split_by_video
from timelens_plugins.quality import validate
from timelens_plugins.spans import Span


@pytest.fixture
def moments() -> list[Moment]:
    return [Moment("a#1", "a.mp4", "a", "a man runs", (Span(2, 6),), 20.0, "made")]


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


def test_what_is_held_out_shares_no_video() -> None:
    def moment(number: int, video: str) -> Moment:
        return Moment(f"{number}", video, video.removesuffix(".mp4"), f"query {number}", (Span(1, 2),), 9.0, "made")

    videos = [f"cosmo_cap/{n}.mp4" for n in range(40)]
    moments = [moment(2 * i + k, video) for i, video in enumerate(videos) for k in range(2)]
    moments.append(moment(99, "queryd/7.mkv"))  # the same video in another source
    train, validation = split_by_video(moments, 0.2, seed=1)
    assert sorted((m.id for m in train + validation), key=int) == [m.id for m in moments]
    assert [m.id for m in train] == sorted((m.id for m in train), key=int)
    names = [{Path(m.video).stem for m in part} for part in (train, validation)]
    assert (len(names[0]), len(names[1]), names[0] & names[1]) == (32, 8, set())
    assert split_by_video(moments, 0.2, seed=1) == (train, validation)
    assert split_by_video(moments, 0.2, seed=2)[1] != validation
    assert len(split_by_video(moments, 0.001)[1]) >= 1
    assert len(split_by_video(moments, 0.999)[0]) >= 1
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="validation_share"):
            split_by_video(moments, share)
    with pytest.raises(ValueError, match="at least two videos"):
        split_by_video(moments[:2], 0.5)


def test_the_release_filtered_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "timelens-100k.jsonl"
    rows = [
        {
            "source": "cosmo_cap",
            "video_path": f"cosmo_cap/{n}.mp4",
            "duration": 4.0 if n == 0 else 60.0,
            "events": [
                {"query": f"When does man {n} run?", "span": [[0.5, 3.0]]},
                {"query": "When is a bell heard?", "span": [[1.0, 2.0]]},
            ],
        }
        for n in range(10)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    command = ["convert", str(file), "--to", "moments", "-o", str(train)]
    release = ["--min-duration", "5", "--max-duration", "500", "--max-words", "200", "--audio-queries", "drop"]
    split = ["--validation-share", "0.3", "--validation-output", str(held)]
    assert main([*command, *release, *split]) == 0
    said = capsys.readouterr()
    assert "9 moments kept, 11 dropped (2 video too short, 9 audio query)" in said.err
    assert (len(load_moments(train)), len(load_moments(held))) == (6, 3)
    assert {p.check for p in validate(held, against=[train]).problems} == set()
    assert "6 rows written" in said.out
    assert "3 rows written" in said.out
    assert main(command) == 0
    assert len(load_moments(train)) == 20
    for options, message in (
        (["--validation-share", "0.3"], "--validation-share and --validation-output"),
        (["--min-duration", "50", "--max-duration", "5"], "min <= max"),
        (["--min-duration", "400"], "the filters leave no moment"),
        (["--validation-share", "0.3", "--validation-output", str(train)], "two outputs"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err
