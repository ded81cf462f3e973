"""One's own annotations: a table or JSON rows of video, query, start, end, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from timelens_plugins.moments import AnnotationError, load_moments, moments_from_rows

WANTED = [
    ("clips/a.mp4", "a person turns on a light", [(24.3, 30.4)]),
    ("b.webm", 'says "hi", twice', [(0.0, 7.5)]),
]
TABLE = 'video,query,start,end\nclips/a.mp4,a person turns on a light.,24.3,30.4\nb.webm,"says ""hi"", twice",0,7.5\n'


def write(folder: Path, content: str | bytes, name: str = "own.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found(path: Path) -> list[tuple[str, str, list[tuple[float, float]]]]:
    return [(m.video, m.query, [tuple(span) for span in m.spans]) for m in load_moments(path)]


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "own.txt"])
def test_every_delimiter_is_found_whatever_the_name(tmp_path, delimiter, name):
    rows = [["video", "query", "start", "end"], ["a.mp4", "a cat, then a dog; both | run", "1", "2.5"]]
    text = "\n".join(delimiter.join(f'"{field}"' for field in row) for row in rows)
    assert found(write(tmp_path, text, name)) == [("a.mp4", "a cat, then a dog; both | run", [(1.0, 2.5)])]


@pytest.mark.parametrize(
    "text",
    [
        TABLE.encode(),
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode(),
        TABLE.replace("\n", "\r").encode(),
        b"\xef\xbb\xbf" + TABLE.replace("\n", "\r").rstrip("\r").encode(),
        b"\n\n" + TABLE.replace("\n", "\n\n").encode(),
        TABLE.rstrip("\n").encode(),
        TABLE.replace("video,query,start,end", ' Video ,QUERY, "Start", End').encode(),
        TABLE.replace("a person turns on a light.", '"a person turns\non a light."').encode(),
    ],
    ids=[
        "plain",
        "mark",
        "windows",
        "old mac",
        "old mac with mark",
        "blank lines",
        "no last line end",
        "headings",
        "line break in a field",
    ],
)
def test_forms_of_one_table(tmp_path, text):
    assert found(write(tmp_path, text)) == WANTED


@pytest.mark.parametrize("form", ["jsonl", "json", "one"])
@pytest.mark.parametrize("spans", ["start and end", "span", "spans"])
def test_json_rows(tmp_path, form, spans):
    rows = []
    for video, query, [(start, end)] in WANTED:
        times = {
            "start and end": {"start": start, "end": end},
            "span": {"span": [start, end]},
            "spans": {"spans": [[start, end]]},
        }[spans]
        rows.append({"video": video, "query": query} | times)
    rows = rows[:1] if form == "one" else rows
    text = "\n".join(map(json.dumps, rows)) if form == "jsonl" else json.dumps(rows[0] if form == "one" else rows)
    path = write(tmp_path, text, "own.json")
    assert found(path) == WANTED[: len(rows)]
    assert load_moments(path).report.format == "rows"


def test_all_columns_are_read_and_the_others_named(tmp_path):
    text = (
        "annotator,id,video,query,spans,duration,source,Video Start,video-end,\n"
        'ann,m1,a.mp4,one,"[[1, 2], [4, 5.5]]",30,kitchen,10,40,x\n'
        'ben,m2,a.mp4,two,"[3, 4]",,,,,\n'
    )
    loaded = load_moments(write(tmp_path, text), video_root="/clips")
    first, second = loaded
    assert (first.id, first.video, first.video_id, first.source) == ("m1", "/clips/a.mp4", "a", "kitchen")
    assert (first.spans, first.duration) == (((1, 2), (4, 5.5)), 30.0)
    assert (first.video_start, first.video_end) == (10.0, 40.0)
    assert (second.spans, second.duration, second.source, second.video_start) == (((3, 4),), None, "csv", None)
    assert loaded.report.unused == ("", "annotator")
    assert "not read: '', 'annotator'" in loaded.report.summary()
    row = {"video": "a.mp4", "query": "q", "span": [1, 2], "split": "test", "id": 7}
    assert moments_from_rows([row]).report.unused == ("split",)
    assert moments_from_rows([row])[0].id == moments_from_rows([row | {"id": np.int64(7)}])[0].id == "7"


HEADER = "video,query,start,end"


@pytest.mark.parametrize(
    ("row", "field", "reason", "remedy"),
    [
        ("a.mp4,q,1:15,80", "start", "must be a number of seconds, got '1:15'", "write 75 if these are minutes and"),
        ("a.mp4,q,75,01:02:03.5", "end", "got '01:02:03.5'", "write 3723.5 if these are hours, minutes and"),
        ("a.mp4,q,1,1e400", "end", "must be finite, got inf", "correct it"),
        ("a.mp4,q,nan,2", "start", "must be a number of seconds, got 'nan'", "correct it"),
        ("a.mp4,q,1,inf", "end", "got 'inf'", "correct it"),
        ("a.mp4,q,1_0,20", "start", "got '1_0'", "correct it"),
        ("a.mp4,q,١,20", "start", "got '١'", "correct it"),
        ('a.mp4,q,"1,5",20', "start", "got '1,5'", "write the decimals after a point: 1.5"),
        ("a.mp4,q,1 s,20", "start", "got '1 s'", "leave the unit out"),
        ("a.mp4,q,30.4,24.3", "end", "must end no earlier than it starts, got [30.4, 24.3]", "correct it"),
        ("a.mp4,q,-1,2", "end", "cannot start before 0 s", "correct it"),
        ("a.mp4,q,,2", "start", "empty", "fill it"),
        (",q,1,2", "video", "empty", "fill it"),
        ("a.mp4, ,1,2", "query", "empty", "fill it"),
        ("a.mp4,...,1,2", "query", "an empty query", "correct it"),
        ("a.mp4,q,1", None, "3 fields for 4 columns", "fill the fields that lack"),
        ("a.mp4,a cat, a dog,1,2", None, "5 fields for 4 columns", "put fields that hold a comma in double quotes"),
        ('a.mp4,"never closed,1,2', None, "a quoted field is not closed", "close it with a double quote"),
        ('a.mp4,"a "red" car",1,2', None, "not a row of a table", "write a double quote inside a quoted field twice"),
        ("a\0.mp4,q,1,2", "video", "holds a NUL character", "write it anew"),
        (b"a\xe9.mp4,q,1,2", None, "not UTF-8 text (byte 2 of the line)", "save the table as UTF-8"),
    ],
)
def test_a_bad_row_is_named_and_costs_that_row(tmp_path, row, field, reason, remedy):
    row = row if isinstance(row, bytes) else row.encode()
    path = write(tmp_path, b"\n".join([HEADER.encode(), b"a.mp4,one,1,2", row, b"c.mp4,three,5,6", b""]))
    with pytest.raises(AnnotationError) as caught:
        load_moments(path)
    fault = caught.value.fault
    assert (fault.file, fault.row, fault.field) == (str(path), "line 3", field)
    assert reason in fault.reason
    assert remedy in fault.remedy
    loaded = load_moments(path, on_error="skip")
    assert [m.query for m in loaded] == ["one", "three"]
    assert loaded.report.left_out == 1


@pytest.mark.parametrize(
    ("text", "row", "field", "reason"),
    [
        ("a.mp4,person runs,1,2\nb.mp4,person sits,3,4\n", "line 1", None, "no header"),
        ("video query start end\na.mp4 q 1 2\n", "line 1", None, "no header"),
        ("video,query,start\na.mp4,q,1\n", "header", "end", "no column 'end' among 'video', 'query', 'start'"),
        ("video,sentence,start,end\na.mp4,q,1,2\n", "header", "query", "no column 'query'"),
        ("video,query\na.mp4,q\n", "header", "start", "no column 'start' nor 'end'"),
        ("video,query,start,Start ,end\na.mp4,q,1,1,2\n", "header", "start", "stands 2 times (columns 3, 4)"),
        ("video,query,start,end\n", None, None, "holds no annotations"),
        (TABLE.encode("utf-16"), None, None, "not UTF-8 text (UTF-16 text)"),
    ],
)
def test_what_is_wrong_with_the_table(tmp_path, text, row, field, reason):
    path = write(tmp_path, text)
    for on_error in ("raise", "skip"):
        with pytest.raises(AnnotationError) as caught:
            load_moments(path, on_error=on_error)
        assert (caught.value.file, caught.value.row, caught.value.field) == (str(path), row, field)
        assert reason in caught.value.reason


def test_a_table_without_a_header_and_without_its_suffix(tmp_path):
    path = write(tmp_path, "a.mp4,person runs,1,2\n", "own.txt")
    with pytest.raises(AnnotationError, match="line 1: no header"):
        load_moments(path, format="csv")
    with pytest.raises(AnnotationError, match=r"(?s)no known annotation format.*a header video,query,start,end"):
        load_moments(path)


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"start": 1, "end": 2, "span": [1, 2]}, "span", "gives the span a second time, beside 'start'"),
        ({"start": 1}, "end", "missing"),
        ({"start": "1", "end": 2}, "start", "must be a number, got '1'"),
        ({"span": [1, 2], "video": None}, "video", "null"),
        ({"span": [1, 2], "video": "\ud800.mp4"}, "video", "half of a character (U+D800)"),
        ({"span": [1, 2], "query": "a \udcff cat"}, "query", "half of a character (U+DCFF)"),
        ({"span": [1, 2], "video": "a\0.mp4"}, "video", "a NUL character"),
        ({"span": [1, 2], "duration": 0}, "duration", "must be a positive number"),
        ({"span": [31, 32], "duration": 30}, "span", "starts after the end of the clip"),
    ],
)
def test_bad_json_rows(row, field, reason):
    good = {"video": "a.mp4", "query": "q", "start": 1, "end": 2}
    with pytest.raises(AnnotationError) as caught:
        moments_from_rows([good, {"video": "a.mp4", "query": "two"} | row])
    assert (caught.value.row, caught.value.field) == ("row 2", field)
    assert reason in caught.value.reason
    str(caught.value).encode()  # can be printed


def test_the_real_clips_as_a_table_equal_their_annotations(tmp_path, real_data: Path):
    annotated = json.loads((real_data / "charades" / "charades_sta_test.json").read_text())
    lines = [HEADER]
    for video in ("3MSZA", "OHOFG"):
        for (start, end), query in zip(annotated[video]["timestamps"], annotated[video]["sentences"], strict=True):
            lines.append(f'{video}.mp4,"{query}",{start},{end}')
    own = load_moments(write(tmp_path, "\n".join(lines)))
    theirs = [m for m in load_moments(real_data / "charades" / "charades_sta_test.json") if m.video_id in annotated]
    theirs = [m for m in theirs if m.video_id in ("3MSZA", "OHOFG")]
    assert {(m.id, m.spans) for m in own} == {(m.id, m.spans) for m in theirs}
    assert len(own) == 10
