"""Files are read an entry at a time: what is hostile or huge in one costs that entry, or is refused in little room."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from timelens_plugins.moments import AnnotationError, files, load_moments
from timelens_plugins.moments.files import read_document
from timelens_plugins.moments.json_stream import BrokenJson, JsonStream

ROW = '{"video_path": "a/%d.mp4", "query": "person runs %d", "span": [[1, 2]]}'
DEEP = '{"a":' * 100_000


def cut(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 10_000])
def test_a_document_in_pieces_is_the_document(size):
    values = [1.5e-7, -12345, True, None, 'é \\" { [ , "', [], {}, {"a": [1, {"b": float("inf")}]}, "x" * 200, 7]
    for text in (json.dumps(values), json.dumps(values, ensure_ascii=False, indent=2)):
        assert list(JsonStream(cut(text, size)).elements()) == values
    members = {f"k{i}": value for i, value in enumerate(values)}
    assert dict(JsonStream(cut(json.dumps(members), size)).members()) == members


@pytest.mark.parametrize(
    "text", ["[1, 2", "[1 2]", "[1,]", "[1] x", "[1}", "[tru]", '["a\nb"]', "[1, 2.]", "", '["a', "[" * 5000, "[nul"]
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_broken_document_raises_in_pieces_as_whole(text, size):
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text)
    with pytest.raises(BrokenJson, match="character"):
        list(JsonStream(cut(text, size)).elements())


def test_a_deep_a_long_and_a_foreign_line_cost_themselves(tmp_path):
    path = tmp_path / "rows.jsonl"
    long = '{"a": "' + "x" * (5 << 20) + '"}'
    lines = [ROW % (1, 1), DEEP, ROW % (2, 2), long, ROW % (3, 3), "\udcff".join(ROW % (4, 4)), ROW % (5, 5)]
    for order in (lines, [*lines[1:], lines[0]]):  # a damaged first line, too
        path.write_bytes("\n".join(order).encode("utf-8", "surrogateescape"))
        loaded = load_moments(path, on_error="skip")
        assert sorted(m.query for m in loaded) == [f"person runs {i}" for i in (1, 2, 3, 5)]
        reasons = " | ".join(fault.reason for fault in loaded.report.skipped)
        assert "nested too deeply" in reasons
        assert "longer than 4,194,304 bytes" in reasons
        assert "not UTF-8 text (byte 2 of the line)" in reasons
        assert loaded.report.left_out == 3
        with pytest.raises(AnnotationError, match=r"line [12]: "):
            load_moments(path)


def test_faults_are_counted_beyond_those_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([ROW % (1, 1), *['{"video_path": 3, "query": "q", "span": [[1, 2]]}'] * 3000]))
    report = load_moments(path, on_error="skip").report
    assert (report.left_out, len(report.skipped), report.rows) == (3000, 1000, 3001)
    assert "SKIPPED: 3,000" in report.summary()
    assert report.summary().endswith("and 2,990 more")


def test_a_document_is_what_its_lines_are(tmp_path):
    rows = [json.loads(ROW % (i, i)) for i in range(500)]
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(load_moments(tmp_path / "list.json")) == list(load_moments(tmp_path / "lines.jsonl"))
    assert [entry.value for entry in read_document(tmp_path / "list.json").entries] == rows


def test_a_file_that_is_held_as_a_whole_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(ROW % (i, i) for i in range(100)))
    assert len(read_document(path).entries) == 100
    monkeypatch.setattr(files, "MOST_VALUES", 400)  # six commas and brackets a row
    with pytest.raises(AnnotationError, match="holds more than 400 values"):
        read_document(path)


CODE = """
import resource, sys
from timelens_plugins.moments import AnnotationError, load_moments
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for mode in ("raise", "skip"):
    try:
        load_moments(sys.argv[1], on_error=mode)
    except AnnotationError as error:
        print(str(error)[:300])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("start", "repeated", "end"),
    [
        ("[", '{"":0},', "{}]"),
        ("[", '{"":0,"":0},', "{}]"),
        ('{"A": [', '{"":0},', "{}]}"),
        ("", "[", ""),
        ("", "1", ""),
    ],
    ids=["rows", "repeated keys", "one entry", "deep", "text"],
)
def test_a_small_text_that_stands_for_much_takes_little_memory(tmp_path: Path, start, repeated, end):
    """30 MB that take 500 to 1,800 MB when they are parsed as one."""
    path = tmp_path / "file.json"
    with path.open("w") as file:
        file.write(start)
        for _ in range(30):
            file.write(repeated * (1_000_000 // len(repeated)))
        file.write(end)
    done = subprocess.run([sys.executable, "-c", CODE, path], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) < 250
