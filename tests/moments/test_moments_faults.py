"""What is wrong with a file: named with file, row and field, or skipped and listed; what is merely odd: kept."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timelens_plugins.moments import AnnotationError, Moment, find_video, load_moments, moments_from_rows

DATA = Path(__file__).parents[1] / "data" / "moments"
HUGE = "1" + "0" * 400

BENCH = (
    '{"A": {"duration": 9, "spans": [%s], "queries": ["a"]}, "B": {"duration": 9, "spans": [[1, 2]], "queries": ["b"]}}'
)


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ("[NaN, 2]", "start must be finite, got nan"),
        ("[1, Infinity]", "end must be finite, got inf"),
        ("[1, 1e999]", "end must be finite"),
        (f"[1, {HUGE}]", "too large"),
        ("[-1, 2]", "cannot start before 0 s"),
        ("[3, 2]", "must end no earlier than it starts"),
        ('["1", 2]', "must be a number of seconds, got '1'"),
        ("[true, 2]", "must be a number of seconds, got True"),
        ("[1]", "a span is a pair"),
        ("[1, 2, 3]", "a span is a pair"),
        ("[[1, 2]]", "a span is a pair"),
        ("null", "null"),
        ('"1-2"', "a span is a pair"),
        ("[9.1, 12]", "starts after the end of the clip at 9.0 s"),
    ],
)
def test_bad_spans(tmp_path, span, reason):
    path = write(tmp_path, BENCH % span)
    with pytest.raises(AnnotationError) as caught:
        load_moments(path)
    error = caught.value
    assert (error.file, error.row, error.field) == (str(path), "video 'A', annotation 1", "spans")
    assert reason in error.reason
    assert str(error).startswith(f"{path}: video 'A', annotation 1: field 'spans': ")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    loaded = load_moments(path, on_error="skip")
    assert [m.video_id for m in loaded] == ["B"]
    assert loaded.report.skipped == (error.fault,)
    told = f"{path}: video 'A', annotation 1: field 'spans': {error.reason}"
    assert str(error) == f"{told}; correct it, or load with on_error='skip' to leave it out and have it counted"
    assert loaded.report.summary().endswith(f"SKIPPED: 1\n  {told}")  # which needs no advice to skip it


@pytest.mark.parametrize(
    ("span", "flag"),
    [("[8, 9.5]", "span_beyond_duration"), ("[9, 9]", "zero_length_span"), ("[9, 10]", "span_beyond_duration")],
)
def test_odd_spans_load_unchanged(tmp_path, span, flag):
    loaded = load_moments(write(tmp_path, BENCH % span))
    assert list(loaded[0].spans[0]) == json.loads(span)
    assert (loaded[0].flags, loaded[1].flags) == ({flag}, frozenset())
    assert loaded.report.flags == {flag: 1}
    assert flag in loaded.report.summary()


A = {"duration": 9, "spans": [[1, 2]], "queries": ["a"]}


@pytest.mark.parametrize(
    ("change", "row", "field", "reason"),
    [
        ({"queries": ["a", "b"]}, "video 'A'", "spans", "1 spans for 2 queries"),
        ({"queries": "a"}, "video 'A'", "queries", "must be a list, got 'a'"),
        ({"queries": [" .. "]}, "video 'A', annotation 1", "queries", "an empty query"),
        ({"queries": [3]}, "video 'A', annotation 1", "queries", "must be text, got 3"),
        ({"queries": [None]}, "video 'A', annotation 1", "queries", "null"),
        ({"duration": "9"}, "video 'A'", "duration", "must be a number, got '9'"),
        ({"duration": 0}, "video 'A'", "duration", "positive"),
        ({"duration": float("nan")}, "video 'A'", "duration", "finite"),
        ({"duration": None}, "video 'A'", "duration", "null"),
        ({"duration": ...}, "video 'A'", "duration", "missing (the row has 'spans', 'queries')"),
        ({"spans": ...}, "video 'A'", "spans", "missing (the row has 'duration', 'queries')"),
    ],
)
def test_bad_fields(tmp_path, change, row, field, reason):
    broken = {key: value for key, value in (A | change).items() if value is not ...}
    path = write(tmp_path, json.dumps({"A": broken, "B": A}))
    with pytest.raises(AnnotationError) as caught:
        load_moments(path)
    assert (caught.value.row, caught.value.field) == (row, field)
    assert reason in caught.value.reason
    assert [m.video_id for m in load_moments(path, on_error="skip")] == ["B"]


def test_a_video_that_stands_twice_is_not_collapsed(tmp_path):
    one = json.dumps(A)
    path = write(tmp_path, f'{{"A": {one}, "B": {one}, "A": {one}}}')
    with pytest.raises(AnnotationError, match=r"video 'A': the video stands 2 times.*merge"):
        load_moments(path)
    loaded = load_moments(path, on_error="skip")
    assert [m.video_id for m in loaded] == ["B"]
    assert len(loaded.report.skipped) == 1


def test_a_field_that_stands_twice_is_not_collapsed(tmp_path):
    line = '{"video_path": "a/x.mp4", "query": "one", "query": "two", "span": [[1, 2]]}'
    good = '{"video_path": "a/x.mp4", "query": "one", "span": [[1, 2]]}'
    with pytest.raises(AnnotationError, match=r"line 2: field 'query': the key stands 2 times"):
        load_moments(write(tmp_path, f"{good}\n{line}\n"))
    inner = '{"A": {"duration": 9, "duration": 8, "spans": [[1, 2]], "queries": ["a"]}}'
    with pytest.raises(AnnotationError, match=r"video 'A': field 'duration': the key stands 2 times"):
        load_moments(write(tmp_path, inner))


@pytest.mark.parametrize("broken", ['{"qid": 3, "query"', "[1, 2]", "NaN", '"text"', "not JSON", "[" * 100_000])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_broken_line_is_found_and_the_others_survive(tmp_path, broken, at):
    lines = (DATA / "qvhighlights.jsonl").read_text().splitlines()
    lines.insert(at, broken)
    path = write(tmp_path, "\n".join(lines))
    if at == 0 and not broken.startswith("{"):
        return  # then nothing says that the file is JSON Lines
    with pytest.raises(AnnotationError) as caught:
        load_moments(path)
    assert caught.value.row == f"line {at + 1}"
    loaded = load_moments(path, on_error="skip")
    assert len(loaded) == 2
    assert [fault.row for fault in loaded.report.skipped] == [f"line {at + 1}"]


def test_one_bad_event_does_not_take_its_video_along(tmp_path):
    text = (
        (DATA / "timelens_100k.jsonl")
        .read_text()
        .replace('{"query": "When do birds land?", "span": [[7.5, 9.0]', '{"span": [[9.0]')
    )
    path = write(tmp_path, text)
    with pytest.raises(AnnotationError, match=r"line 1, event 2: field 'query': missing"):
        load_moments(path)
    assert len(load_moments(path, on_error="skip")) == 2


@pytest.mark.parametrize(
    ("line", "row", "field"),
    [
        ("AB1CD 1.0##short", "line 2", None),
        ("AB1CD one 2.0##word", "line 2", "start"),
        ("AB1CD 5 2##swapped", "line 2", "span"),
        ("AB1CD 1 nan##what", "line 2", "span"),
        ("AB1CD 1 2##.", "line 2", "query"),
        ("AB1CD 1 2 no marks", "line 2", None),
    ],
)
def test_bad_text_lines(tmp_path, line, row, field):
    path = write(tmp_path, f"AB1CD 0.0 6.9##a person waves.\n{line}\n")
    with pytest.raises(AnnotationError) as caught:
        load_moments(path)
    assert (caught.value.row, caught.value.field) == (row, field)
    assert len(load_moments(path, on_error="skip")) == 1


ESTIMATE = json.loads((DATA / "difficulty.jsonl").read_text().splitlines()[0])
SAMPLES = json.loads((DATA / "difficulty.jsonl").read_text().splitlines()[3])
WINDOW = json.loads((DATA / "time_r1.json").read_text())[1]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (ESTIMATE | {"iou": None}, "iou", "null"),
        (ESTIMATE | {"iou": float("nan")}, "iou", "finite"),
        (ESTIMATE | {"iou": 41.0}, "iou", "must lie between 0 and 1, got 41.0"),
        (ESTIMATE | {"iou": -0.1}, "iou", "must lie between 0 and 1"),
        (ESTIMATE | {"pred": [float("nan"), 2]}, "pred", "finite"),
        (ESTIMATE | {"pred": "0-2"}, "pred", "must be a span"),
        (ESTIMATE | {"answer": 3}, "answer", "must be text"),
        (SAMPLES | {"iou": 0.5}, "iou", "not the mean"),
        (SAMPLES | {"preds": [[[1, 2]]]}, "preds", "1 values for 2 ious"),
        (SAMPLES | {"ious": []}, "ious", "no IoU"),
        (SAMPLES | {"ious": [0.5, 1.5]}, "iou", "must lie between 0 and 1"),
        (WINDOW | {"difficulty": 100.1}, "difficulty", "must lie between 0 and 100"),
        (WINDOW | {"difficulty": None}, "difficulty", "null"),
        (WINDOW | {"video_end": None}, "video_end", "null"),
        (WINDOW | {"video_start": 90}, "video_start", "before its end"),
        (WINDOW | {"video_start": -1}, "video_start", "at 0 s or later"),
        (WINDOW | {"duration": 300.0}, "duration", "not the length of the window"),
        (WINDOW | {"timestamp": []}, "timestamp", "no span"),
        (WINDOW | {"video": " "}, "video", "empty"),
    ],
)
def test_bad_estimates_and_windows(row, field, reason):
    with pytest.raises(AnnotationError) as caught:
        moments_from_rows([row], name="estimates")
    assert caught.value.field == field
    assert str(caught.value).startswith("estimates: row 1")
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"video": "v.mp4", "query": "q", "start": 105, "end": 110}, "end"),
        ({"video": "v.mp4", "query": "q", "spans": [[1, 2], [105, 110]]}, "spans"),
        ({"video": "v.mp4", "sentence": "q", "timestamp": [105, 110]}, "timestamp"),
        ({"video_path": "v.mp4", "query": "q", "span": [[105, 110]], "iou": 0.5, "pred": [[1, 2]]}, "span"),
        ({"id": "1", "video": "v.mp4", "video_id": "v", "query": "q", "spans": [[105, 110]], "source": "s"}, "spans"),
    ],
    ids=["own", "own spans", "time_r1", "difficulty", "stored"],
)
def test_a_window_states_the_duration_that_spans_are_checked_against(row, field):
    """The times of these rows count from the start of the file, and not from that of the window."""
    row |= {"video_start": 100.0, "video_end": 130.0}
    with pytest.raises(AnnotationError, match=f"'{field}': .*starts after the end of the clip at 30.0 s"):
        moments_from_rows([row])
    name = "start" if "start" in row else field
    inside = {"start": 25, "end": 31} if name == "start" else {name: [25, 31] if name == "timestamp" else [[25, 31]]}
    loaded = moments_from_rows([row | inside])
    assert [m.duration for m in loaded] == [30.0]
    if "id" not in row:  # stored rows keep their own flags
        assert loaded.report.flags.get("span_beyond_duration") == 1


def test_an_estimate_without_iou_is_named():
    row = {key: value for key, value in ESTIMATE.items() if key != "iou"}
    with pytest.raises(AnnotationError, match="row 1: field 'iou': missing"):
        moments_from_rows([row])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("{}", "holds no annotations"),
        ("[]", "holds no annotations"),
        ('{"A": {"duration": 1', "broken JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "no known annotation format"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (
            '{"a.mp4>>>q>>>[[1, 2]]": {"timestamps": [[1, 2]], "answers": "1-2"}}',
            "an object with 'timestamps', 'answers'",
        ),
        ('[{"question": "q", "answer": "1-2"}]', "an object with 'question', 'answer'"),
        ("[1, 2]", "found a row per JSON object"),
        ("id,start,end\n", "no column 'video' nor 'query' among 'id', 'start', 'end'"),
        ("one line, of text\n", "found lines of text"),
        ('{"A": {"queries": ["a"]}}', "found one JSON object keyed by video"),
    ],
)
def test_what_is_no_annotation_file(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(AnnotationError) as caught:
        load_moments(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    if "no known" in str(caught.value):
        assert all(f"\n  {name}: " in str(caught.value) for name in ("timelens_bench", "qvhighlights", "difficulty"))


def test_a_byte_order_mark_and_other_line_ends_are_no_fault(tmp_path):
    for name in ("qvhighlights.jsonl", "captions.json", "charades_sta.txt"):
        text = (DATA / name).read_text()
        for end in ("\r\n", "\r"):
            path = write(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", end).encode())
            assert list(load_moments(path)) == list(load_moments(DATA / name))


def test_lines_that_end_in_a_return_are_numbered_and_bounded_too(tmp_path):
    rows = b'video,query,start,end\ra.mp4,"one,\rtwo",1,4\r\rb.mp4,three,x,5\r' + b"c" * (5 << 20) + b"\rd.mp4,four,2,5"
    loaded = load_moments(write(tmp_path, rows), on_error="skip")
    assert [moment.query for moment in loaded] == ["one, two", "four"]
    assert [fault.row for fault in loaded.report.skipped] == ["line 5", "line 6"]


def test_a_file_of_two_kinds_is_not_guessed(tmp_path):
    lines = (DATA / "qvhighlights.jsonl").read_text() + (DATA / "lmms_eval.jsonl").read_text()
    path = write(tmp_path, lines)
    with pytest.raises(AnnotationError, match="entries of several formats: qvhighlights, lmms_eval"):
        load_moments(path)
    loaded = load_moments(path, format="qvhighlights", on_error="skip")
    assert (len(loaded), len(loaded.report.skipped)) == (2, 2)


def test_options_are_checked_before_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"unknown annotation format 'charades'; known: timelens_bench, timelens_100k"):
        load_moments(tmp_path / "absent", format="charades")
    with pytest.raises(ValueError, match="'raise' or 'skip', got 'ignore'"):
        load_moments(tmp_path / "absent", on_error="ignore")
    with pytest.raises(FileNotFoundError):
        load_moments(tmp_path / "absent")


def test_the_wrong_format_is_an_error_not_an_empty_list():
    with pytest.raises(AnnotationError, match="timelens_bench is one JSON object keyed by video, this is a row per"):
        load_moments(DATA / "qvhighlights.jsonl", format="timelens_bench")
    with pytest.raises(AnnotationError, match=r"no annotation could be loaded from 1 rows; the first fault.*'spans'"):
        load_moments(DATA / "captions.json", format="timelens_bench", on_error="skip")


def test_a_stored_row_is_checked_too():
    row = Moment.from_row(load_moments(DATA / "captions.json")[0].to_row()).to_row()
    with pytest.raises(AnnotationError, match=r"field 'spans': a span must end no earlier"):
        Moment.from_row(row | {"spans": [[3, 1]]})
    with pytest.raises(AnnotationError, match="an object, got 3"):
        Moment.from_row(3)  # type: ignore[arg-type]


def test_the_summary_lists_ten_faults_and_counts_the_rest(tmp_path):
    path = write(tmp_path, "AB1CD 0.0 6.9##a person waves.\n" + "AB1CD 3 1##swapped\n" * 12)
    summary = load_moments(path, on_error="skip").report.summary()
    assert summary.count("\n") == 11
    assert summary.endswith("and 2 more")


FIELDS = [
    "duration",
    "spans",
    "queries",
    "timestamps",
    "sentences",
    "video_path",
    "query",
    "span",
    "events",
    "iou",
    "qid",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=15,
)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_no_content_raises_anything_but_its_own_error(tmp_path_factory, content):
    path = write(tmp_path_factory.getbasetemp(), json.dumps(content))
    message = ""
    try:
        loaded = load_moments(path, on_error="skip")
    except AnnotationError as error:
        message = str(error)
    assert str(path) in message or len(loaded) > 0


ROWS = {
    name: json.loads((DATA / f"{name}.jsonl").read_text().splitlines()[-1])
    for name in ("timelens_100k", "qvhighlights", "lmms_eval", "difficulty", "timelens2_rollouts")
} | {"time_r1": WINDOW, "moments": load_moments(DATA / "difficulty.jsonl")[3].to_row()}
ROWS |= {name: json.loads((DATA / f"{name}.json").read_text())[0] for name in ("didemo", "tvgbench", "vue_tr")}
ROWS |= {
    "momentseeker": json.loads((DATA / "momentseeker.json").read_text())[0],
    "ego4d_nlq": json.loads((DATA / "ego4d_nlq.jsonl").read_text()),
    "rows": {"id": "1", "video": "a.mp4", "query": "q", "start": 1, "end": 2, "video_start": 1, "video_end": 9},
    "chat": {
        "id": 1,
        "messages": [{"role": "user", "content": "<video>When?"}, {"role": "assistant", "content": "1 - 2 s"}],
        "videos": ["a.mp4"],
        "system": "Find it.",
        "duration": 9,
    },
}
PART = {"type": "video", "video": "a.mp4", "video_start": 1, "video_end": 9}
TURN = {"role": "user", "content": [PART, {"type": "text", "text": "When?"}]}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ROWS)), st.data())
def test_any_field_replaced_by_anything_is_read_or_named(name, data):
    row = ROWS[name] | {data.draw(st.sampled_from(sorted(ROWS[name]))): data.draw(JSON)}
    try:
        loaded = moments_from_rows([row], format=name)
    except AnnotationError as error:
        place = error.row
    else:
        place = "row 1"
        assert all(isinstance(moment, Moment) for moment in loaded)
        assert [Moment.from_row(json.loads(json.dumps(m.to_row(), allow_nan=False))) for m in loaded] == list(loaded)
    assert place is None or place.startswith("row 1")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_part_of_a_chat_replaced_by_anything_is_read_or_named(data):
    where = data.draw(st.sampled_from([TURN, PART]))
    changed = where | {data.draw(st.sampled_from(sorted(where))): data.draw(JSON)}
    turn = changed if where is TURN else TURN | {"content": [changed, {"type": "text", "text": "When?"}]}
    row = {"messages": data.draw(st.permutations([turn, {"role": "assistant", "content": "1 - 2 s"}]))}
    place = "row 1"
    try:
        assert len(moments_from_rows([row], format="chat")) == 1
    except AnnotationError as error:
        place = error.row or place
    assert place.startswith("row 1")


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.text(max_size=6) | st.sampled_from(["a.mp4", "1", "2.5", '"', "[1, 2]"]), max_size=6)))
def test_any_table_is_read_or_named(tmp_path_factory, rows):
    path = write(tmp_path_factory.getbasetemp(), "video,query,start,end\n" + "\n".join(map(",".join, rows)))
    message = str(path)
    try:
        loaded = load_moments(path, on_error="skip")
    except AnnotationError as error:
        message = str(error)
    else:
        assert len(loaded) + loaded.report.left_out == loaded.report.rows
    assert str(path) in message


def test_find_video(tmp_path):
    asked = tmp_path / "x_60.0_210.0.mp4"
    with pytest.raises(FileNotFoundError, match=r"x_60\.0_210\.0\.mp4: no video there"):
        find_video(asked)
    (tmp_path / "x_60.0_210.0.mkv").touch()
    assert find_video(asked).name == find_video(tmp_path / "x_60.0_210.0").name == "x_60.0_210.0.mkv"
    (tmp_path / "x_60.0_210.0.webm").touch()
    with pytest.raises(ValueError, match=r"x_60\.0_210\.0\.mkv, x_60\.0_210\.0\.webm stand beside it"):
        find_video(asked)
    asked.touch()
    assert find_video(asked) == asked
