"""The published files: their counts as their papers and a plain ``json.load`` give them, and time to load."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from timelens_plugins.moments import AnnotationError, load_moments
from timelens_plugins.spans import temporal_iou


def test_charades_sta(real_data: Path):
    path = real_data / "charades" / "charades_sta_test.json"
    loaded = load_moments(path, format="charades_sta", video_root="clips")
    report = loaded.report
    assert (report.rows, report.videos, report.moments) == (1334, 1334, 3720)
    assert report.flags == {"span_beyond_duration": 562}
    assert report.largest_overrun == pytest.approx(1.5)
    assert "562 span_beyond_duration (by up to 1.50 s)" in report.summary()
    assert load_moments(path).report.format == "captions_json"
    raw = json.loads(path.read_text())
    pairs = [(video, *span) for video, row in raw.items() for span in row["timestamps"]]
    assert [(m.video_id, *m.spans[0]) for m in loaded] == pairs
    assert sum(m.spans[0].end > m.duration for m in loaded) == 562
    assert {m.id for m in loaded} == {m.id for m in load_moments(path)}
    assert len({m.id for m in loaded}) == 3720
    real = next(m for m in loaded if m.video_id == "3MSZA")
    assert (real.video, real.query, real.spans[0]) == ("clips/3MSZA.mp4", "person turn a light on", (24.3, 30.4))


def test_activitynet_captions(real_data: Path):
    start = time.process_time()
    loaded = load_moments(real_data / "activitynet" / "val_2.json")
    seconds = time.process_time() - start
    report = loaded.report
    assert report.format == loaded[0].source == "activitynet_captions"
    assert (report.videos, report.moments, len({m.id for m in loaded})) == (4885, 17031, 17031)
    # 111 spans exceed their duration as floats are compared; 110 of them by less than a microsecond
    assert report.flags == {"span_beyond_duration": 1}
    assert sum(m.spans[0].end > m.duration for m in loaded) == 111
    assert not any("\n" in m.query or m.query != m.query.strip() for m in loaded)
    assert seconds < 2


def test_qvhighlights(real_data: Path):
    loaded = load_moments(real_data / "qvhighlights" / "highlight_val_release.jsonl")
    assert loaded.report.format == "qvhighlights"
    assert (len(loaded), sum(len(m.spans) for m in loaded), sum(len(m.spans) > 1 for m in loaded)) == (1550, 2803, 530)
    assert loaded.report.videos == 1519
    assert loaded.report.flags == {}


def test_time_r1_difficulty(real_data: Path):
    path = real_data / "difficulty" / "timer1_train_2k5.json"
    loaded, raw = load_moments(path), json.loads(path.read_text())
    assert loaded.report.format == "time_r1"
    assert len(loaded) == 2500
    windows = [m for m in loaded if m.video_start is not None]
    assert len(windows) == 665
    assert all(m.video_end - m.video_start == pytest.approx(m.duration, abs=1e-6) for m in windows)
    for moment, row in zip(loaded, raw, strict=True):
        (prediction,) = moment.predictions
        assert abs(temporal_iou(prediction.spans[0], moment.spans[0]) * 100 - row["difficulty"]) < 1e-9
        assert moment.iou == row["difficulty"] / 100
    assert loaded.report.flags == {"span_beyond_duration": 34}
    assert loaded.report.largest_overrun == pytest.approx(14062.209, abs=1e-3)  # one end is 14220 s in a video of 158 s
    assert {m.source for m in loaded} == {"cosmo", "yt-temporal", "internvid-vtime", "didemo", "howto100m", "queryd"}


def test_one_fault_in_a_real_file_is_found(real_data: Path, tmp_path: Path):
    raw = json.loads((real_data / "charades" / "charades_sta_test.json").read_text())
    raw["VXJS4"]["timestamps"][1][1] = float("nan")
    path = tmp_path / "dirty.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(
        AnnotationError, match=r"video 'VXJS4', annotation 2: field 'timestamps': span end must be finite"
    ):
        load_moments(path)
    assert len(load_moments(path, on_error="skip")) == 3719


def test_large_files_load_in_seconds(tmp_path: Path):
    path = tmp_path / "train.jsonl"
    with path.open("w") as file:
        for i in range(5_000):
            events = [{"query": f"When does thing {j} happen?", "span": [[j, j + 2.5]]} for j in range(5)]
            row = {"source": "s", "video_path": f"s/{i}.mp4", "duration": 60.0, "events": events}
            file.write(json.dumps(row) + "\n")
    start = time.process_time()
    assert len(load_moments(path)) == 25_000
    assert time.process_time() - start < 5
