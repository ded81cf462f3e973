"""Every annotation format: recognised by its content alone, read to the moments written out here by hand."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from timelens_plugins.moments import (
    FORMATS,
    AnnotationError,
    Moment,
    Prediction,
    group_by_video,
    is_audio_query,
    load_moments,
    moments_from_rows,
    save_moments,
)
from timelens_plugins.spans import Span

DATA = Path(__file__).parents[1] / "data" / "moments"

# file, format, [(video, video_id, query, spans, duration, source, flags)]
FILES = [
    (
        "timelens_bench.json",
        "timelens_bench",
        [
            ("AB1CD.mp4", "AB1CD", "A woman is tying her hair", [(25, 30)], 31.0, "timelens_bench", ""),
            ("AB1CD.mp4", "AB1CD", "a dog sleeps", [(1, 24)], 31.0, "timelens_bench", ""),
            ("AB2CE.mp4", "AB2CE", "rain falls", [(0, 12)], 12.0, "timelens_bench", ""),
        ],
    ),
    (
        "captions.json",
        "captions_json",
        [
            (
                "AB1CD.mp4",
                "AB1CD",
                "person lights a lamp",
                [(24.3, 31.4)],
                30.5,
                "captions_json",
                "span_beyond_duration",
            ),
            ("AB1CD.mp4", "AB1CD", "person blinks", [(2, 2)], 30.5, "captions_json", "zero_length_span"),
        ],
    ),
    (
        "activitynet.json",
        "activitynet_captions",
        [
            ("v_abcdefghijk.mp4", "v_abcdefghijk", query, [span], 13.299999999999999, "activitynet_captions", "")
            for query, span in [("Two men stand", (0, 4.14)), ("One man waves", (4.14, 13.3))]
        ],
    ),
    (
        "charades_sta.txt",
        "charades_sta_text",
        [
            ("AB1CD.mp4", "AB1CD", "person lights a lamp", [(24.3, 30.4)], None, "charades_sta_text", ""),
            ("AB1CD.mp4", "AB1CD", "a person counts ##1 to 3", [(0, 6.9)], None, "charades_sta_text", ""),
        ],
    ),
    (
        "timelens_100k.jsonl",
        "timelens_100k",
        [
            ("cosmo_cap/x_y-1.mp4", "cosmo_cap/x_y-1", "When does the bell sound?", [(0, 5)], 117.42, "cosmo_cap", ""),
            (
                "cosmo_cap/x_y-1.mp4",
                "cosmo_cap/x_y-1",
                "When do birds land?",
                [(7.5, 9), (30, 42)],
                117.42,
                "cosmo_cap",
                "",
            ),
            ("hirest/z.webm", "hirest/z", "When is dough kneaded?", [(10, 20)], 60.0, "hirest", ""),
        ],
    ),
    (
        "qvhighlights.jsonl",
        "qvhighlights",
        [
            (
                "abc_60.0_210.0.mp4",
                "abc_60.0_210.0",
                "A child draws a boat",
                [(0, 2), (82, 150)],
                150.0,
                "qvhighlights",
                "",
            ),
            ("abc_210.0_336.0.mp4", "abc_210.0_336.0", "A boat leaves", [(2, 4)], 126.0, "qvhighlights", ""),
        ],
    ),
    (
        "lmms_eval.jsonl",
        "lmms_eval",
        [
            ("charades/AB1CD.mp4", "AB1CD", "A woman is tying her hair", [(25, 30)], None, "charades", ""),
            ("charades/AB1CD.mp4", "AB1CD", "a dog sleeps", [(1, 24)], None, "charades", ""),
        ],
    ),
    (
        "difficulty.jsonl",
        "difficulty",
        [
            ("cosmo_cap/x_y-1.mp4", "cosmo_cap/x_y-1", "When does the bell sound?", [(0, 5)], 117.42, "cosmo_cap", ""),
            ("hirest/z.webm", "hirest/z", "When is dough kneaded?", [(10, 20)], 60.0, "hirest", ""),
            ("hirest/z.webm", "hirest/z", "When is it baked?", [(10, 20)], 60.0, "hirest", "invalid_prediction"),
            ("hirest/z.webm", "hirest/z", "When is it eaten?", [(10, 20)], 60.0, "hirest", ""),
        ],
    ),
    (
        "time_r1.json",
        "time_r1",
        [
            ("videos/k.mp4", "videos/k", "A hanger is shown", [(1, 4)], 93.3, "cosmo", ""),
            ("videos/long.mp4", "videos/long", "four birds", [(34.9, 41.9)], 45.7, "time_r1", ""),
            ("videos/k.mp4", "videos/k", "A dress is shown", [(5, 9)], 93.3, "time_r1", ""),
        ],
    ),
    (
        "timelens2_rollouts.jsonl",
        "timelens2_rollouts",
        [("z.mp4", "z", "When does the mug fall?", [(10, 20), (40, 50)], 722.0, "timelens2_93k", "")],
    ),
    (
        "tacos.json",
        "tacos",
        [
            ("s1-d2.avi", "s1-d2", "He peels an egg", [(2, 6)], 20.0, "tacos", ""),
            ("s1-d2.avi", "s1-d2", "The cook waits", [(0, 1)], 20.0, "tacos", ""),
        ],
    ),
    (
        "didemo.json",
        "didemo",
        [
            ("9@N01_1_a.mp4", "9@N01_1_a", "boat turns left", [(5, 10)], None, "didemo", ""),
            ("9@N01_1_a.mov", "9@N01_1_a", "flag is down", [(0, 5)], None, "didemo", "annotators_disagree"),
        ],
    ),
    (
        "tvgbench.json",
        "tvgbench",
        [
            ("AB1CD.mp4", "AB1CD", "person folds a towel", [(13.4, 28.1)], 30.12, "charades", ""),
            ("e-1.mp4", "e-1", "Where is the cup?", [(9, 16.5)], 164.0, "tvgbench", ""),
        ],
    ),
    ("vue_tr.json", "vue_tr", [("abc.mp4", "abc", "The host laughs", [(3, 9), (80.5, 85)], 900.0, "vue_tr", "")]),
    (
        "momentseeker.json",
        "momentseeker",
        [("film/a.mp4", "film/a", "a door opens", [(10, 12)], None, "momentseeker", "")],
    ),
    (
        "ego4d_nlq.jsonl",
        "ego4d_nlq",
        [("u-1.mp4", "u-1", "where did I put the cup?", [(17.3, 27.3)], 480.0, "ego4d_nlq", "")],
    ),
]
NAMES = [name for _, name, _ in FILES]


@pytest.mark.parametrize(("file", "name", "expected"), FILES, ids=NAMES)
def test_content_decides_and_every_field_is_right(file, name, expected, tmp_path):
    path = tmp_path / "annotations"  # says nothing
    shutil.copy(DATA / file, path)
    loaded = load_moments(path)
    assert loaded.report.format == name
    assert loaded.report.skipped == ()
    got = [(m.video, m.video_id, m.query, m.spans, m.duration, m.source, " ".join(sorted(m.flags))) for m in loaded]
    assert got == [(v, i, q, tuple(Span(*s) for s in spans), *rest) for v, i, q, spans, *rest in expected]
    assert list(load_moments(path, format=name)) == list(loaded)
    with_root = load_moments(path, video_root="/clips", source="mine")
    assert [m.video for m in with_root] == [f"/clips/{m.video}" for m in loaded]
    assert {m.source for m in with_root} == {"mine"}
    assert [m.id for m in with_root] == [m.id for m in loaded]


def test_every_format_is_tested_and_no_two_claim_one_entry():
    assert set(NAMES) | {"charades_sta", "moments", "csv", "rows", "chat"} == set(FORMATS)


def test_a_single_row_with_an_object_in_it_is_a_row(tmp_path):
    row = json.loads((DATA / "difficulty.jsonl").read_text().splitlines()[0])
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row | {"settings": {"fps": 2.0}}) + "\n")
    assert [moment.query for moment in load_moments(path)] == [row["query"]]


def test_difficulty_rows_keep_what_the_model_said():
    greedy, failed, swapped, sampled = load_moments(DATA / "difficulty.jsonl")
    assert greedy.iou == 0.5
    assert greedy.predictions == (Prediction((Span(0, 2.5),), 0.5, "The event happens in 0.0 - 2.5 seconds."),)
    assert failed.predictions == (Prediction((), 0.0, ""),)
    assert swapped.predictions == (Prediction((), 0.0, "30 to 10"),)
    assert sampled.iou == 0.25
    assert sampled.predictions == (Prediction((Span(10, 15),), 0.5, "10 - 15 seconds"), Prediction((), 0.0, "never"))


def test_time_r1_windows_and_percent():
    scored, window, plain = load_moments(DATA / "time_r1.json")
    assert (scored.iou, scored.predictions) == (0.5, (Prediction((Span(0, 3),), 0.5),))
    assert (window.video_start, window.video_end, window.duration) == (39.0, 84.7, 45.7)
    assert (window.iou, window.predictions) == (0.0, (Prediction((), 0.0),))
    assert (plain.iou, plain.predictions, plain.video_start) == (None, (), None)


def test_tvgbench_windows():
    plain, window = load_moments(DATA / "tvgbench.json")
    assert (plain.video_start, plain.video_end) == (None, None)
    assert (window.video_start, window.video_end) == (44.5, 208.5)


@pytest.mark.parametrize(
    ("name", "change", "field"),
    [
        ("didemo.json", {"times": [[2, 1]]}, "times"),
        ("didemo.json", {"times": [[0.5, 1]]}, "times"),
        ("didemo.json", {"times": []}, "times"),
        ("tvgbench.json", {"answer": "0:13-0:28"}, "answer"),
        ("tvgbench.json", {"answer": "28-13"}, "answer"),
        ("tvgbench.json", {"start": 3.0}, "end"),
        ("vue_tr.json", {"gt": []}, "gt"),
        ("momentseeker.json", {"answering_time_interval": [[1]]}, "answering_time_interval"),
    ],
)
def test_what_their_rows_may_not_say(name, change, field):
    row = json.loads((DATA / name).read_text())[0]
    with pytest.raises(AnnotationError) as caught:
        moments_from_rows([row | change])
    assert caught.value.field == field


def test_timelens2_rollouts_are_scored_as_sets():
    (moment,) = load_moments(DATA / "timelens2_rollouts.jsonl")
    assert [p.iou for p in moment.predictions] == [0.5, 1.0, 0.0]
    assert moment.iou == pytest.approx(0.5)


def test_a_difficulty_row_finds_its_annotation_and_hub_rows_their_benchmark():
    train, estimates = load_moments(DATA / "timelens_100k.jsonl"), load_moments(DATA / "difficulty.jsonl")
    assert [m.id for m in estimates[:2]] == [train[0].id, train[2].id]
    bench, hub = load_moments(DATA / "timelens_bench.json"), load_moments(DATA / "lmms_eval.jsonl")
    assert [m.id for m in hub] == [m.id for m in bench[:2]]


def test_a_recorded_iou_that_is_another_is_flagged():
    row = json.loads((DATA / "difficulty.jsonl").read_text().splitlines()[0])
    (moment,) = moments_from_rows([row | {"iou": 0.6}])
    assert moment.flags == {"iou_mismatch"}
    assert moment.iou == 0.6


def test_difficulty_rows_may_bring_the_record_of_their_moment():
    row = json.loads((DATA / "difficulty.jsonl").read_text().splitlines()[0])
    row |= {"id": "x:1", "video_id": "x", "video_start": 2.0, "video_end": 119.42}
    (moment,) = moments_from_rows([row])
    assert (moment.id, moment.video_id, moment.video_start, moment.video_end) == ("x:1", "x", 2.0, 119.42)
    with pytest.raises(AnnotationError, match=r"row 2: field 'id': 'x:1' stands twice"):
        moments_from_rows([row, row])


def test_ids_do_not_depend_on_order_and_repetitions_stay(tmp_path):
    rows = [json.loads(line) for line in (DATA / "lmms_eval.jsonl").read_text().splitlines()]
    rows.append(rows[0])
    loaded = moments_from_rows(rows)
    assert loaded[2].id == f"{loaded[0].id}-2"
    assert [m.flags for m in loaded] == [set(), set(), {"duplicate"}]
    assert loaded.report.flags == {"duplicate": 1}
    random.Random(0).shuffle(rows)
    assert {m.id for m in moments_from_rows(rows)} == {m.id for m in loaded}


def test_other_spans_or_another_window_are_no_repetition():
    row = json.loads((DATA / "time_r1.json").read_text())[1]
    rows = [row, row | {"timestamp": [1, 2]}, row | {"video_start": 40, "video_end": 85.7}]
    loaded = moments_from_rows(rows)
    assert len({m.id for m in loaded}) == 3
    assert "duplicate" not in loaded.report.flags


@pytest.mark.parametrize("file", [file for file, _, _ in FILES], ids=NAMES)
def test_rows_and_files_of_moments_give_them_back(file, tmp_path):
    loaded = load_moments(DATA / file, video_root="clips")
    assert [Moment.from_row(json.loads(json.dumps(m.to_row()))) for m in loaded] == list(loaded)
    save_moments(loaded, tmp_path / "subset")
    again = load_moments(tmp_path / "subset")
    assert list(again) == list(loaded)
    assert again.report.format == "moments"
    assert again.report.flags == loaded.report.flags
    assert again.report.largest_overrun == loaded.report.largest_overrun
    assert [path.name for path in tmp_path.iterdir()] == ["subset"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    save_moments(load_moments(DATA / "lmms_eval.jsonl"), path)
    before = path.read_bytes()

    def breaks():
        yield load_moments(DATA / "captions.json")[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        save_moments(breaks(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_groups_keep_order():
    loaded = load_moments(DATA / "difficulty.jsonl")
    groups = group_by_video([loaded[1], loaded[0], *loaded[2:]])
    assert list(groups) == ["hirest/z", "cosmo_cap/x_y-1"]
    assert groups["hirest/z"] == [loaded[1], loaded[2], loaded[3]]


@pytest.mark.parametrize(
    ("query", "audio"),
    [
        ("When can a dog be HEARD?", True),
        ("the audio fades", True),
        ("What sounds ?odd", True),
        ("when does it sound", True),
        ("a heart is drawn", False),
        ("sound-proof room", False),
        ("the crowd hears, then leaves", False),  # the rule knows tokens, not words
    ],
)
def test_audio_queries(query, audio):
    assert is_audio_query(query) is audio


def test_no_heavy_import():
    code = (
        "import sys, timelens_plugins.moments;"
        "sys.exit(', '.join({'torch', 'transformers', 'datasets', 'lmms_eval', 'trl'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
