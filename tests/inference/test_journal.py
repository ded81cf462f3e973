"""The journal: any number of writers, kills and damage cost what was not finished, and nothing stale counts."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from timelens_plugins.inference.contents import Contents
from timelens_plugins.inference.journal import Journal, JournalError

SETTINGS = {"model": "m", "fps": 2.0}


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"frames")
    return str(path)


def fill(folder: Path, video: str, keys: range, **settings: Any) -> Path:
    """Adds items; returns the writer's file."""
    before = set(folder.glob("*/*.jsonl"))
    with Journal(folder, SETTINGS | settings) as journal:
        for n in keys:
            journal.add(f"k{n}", video, {"text": f"é{n}\n"})
    [path] = set(folder.glob("*/*.jsonl")) - before
    return path


def texts(folder: Path, video: str, count: int, **settings: Any) -> list[str | None]:
    with Journal(folder, SETTINGS | settings) as journal:
        found = journal.lookup((f"k{n}", video) for n in range(count))
    return [record["text"] if record else None for record in found]


def test_items_come_back_after_any_cut(tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture) -> None:
    path = fill(tmp_path / "j", video, range(3))
    whole = path.read_bytes()
    ends = [i + 1 for i in range(len(whole)) if whole[i : i + 2] == b"\n\n"]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        caplog.clear()
        complete = sum(end <= cut for end in ends)
        expected = [f"é{n}\n" if n < complete else None for n in range(3)]
        assert texts(tmp_path / "j", video, 3) == expected
        assert ("is cut off" in caplog.text) == (cut > 0 and whole[cut - 1 : cut] != b"\n")


def test_a_damaged_byte_costs_one_item_which_is_named(
    tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = fill(tmp_path / "j", video, range(4))
    whole = path.read_bytes()
    everything = [f"é{n}\n" for n in range(4)]
    for at in range(len(whole)):
        for bit in (0, 5):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            found = texts(tmp_path / "j", video, 4)
            assert sum(text is None for text in found) <= 1, (at, bit)
            assert all(text in (None, expected) for text, expected in zip(found, everything, strict=True))
    path.write_bytes(whole.replace(b"k2", b"[" * 100_000))  # deeper than a parser can go
    caplog.clear()
    assert texts(tmp_path / "j", video, 4) == ["é0\n", "é1\n", None, "é3\n"]
    assert "1 damaged records are left out and start afresh: line 5" in caplog.text


def test_many_writers_killed_at_random_lose_nothing(tmp_path: Path, video: str) -> None:
    """Three processes at once, killed and started again until the work is done."""
    folder, count, chance = tmp_path / "j", 400, random.Random(0)

    def start(seed: int) -> subprocess.Popen[str]:
        script = Path(__file__).with_name("journal_writer.py")
        return subprocess.Popen(
            [sys.executable, str(script), str(folder), video, str(count), str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    done, kills = 0, 0
    for round_ in range(4):
        writers = [start(10 * round_ + n) for n in range(3)]
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        if round_ < 3:
            time.sleep(chance.random() * 0.03)
            for writer in writers:
                kills += writer.poll() is None
                writer.kill()
        assert [writer.wait() for writer in writers].count(0) == 3 or round_ < 3
        with Journal(folder, {"model": "m"}) as journal:
            found = journal.lookup((f"item {n}", video) for n in range(count))
        assert all(record is None or record["text"] == f"about item {n}: é" * 20 for n, record in enumerate(found))
        finished = sum(record is not None for record in found)
        assert finished >= done, "something was lost"
        done = finished
    assert kills >= 3
    assert done == count


def test_what_another_run_was_first_to_finish_is_recorded_once(tmp_path: Path, video: str) -> None:
    with Journal(tmp_path / "j", SETTINGS) as one, Journal(tmp_path / "j", SETTINGS) as other:
        for n in range(3):
            for journal in (one, other):
                journal.add(f"k{n}", video, {"text": f"é{n}\n"})
    assert sum(path.read_bytes().count(b"\n\n") for path in (tmp_path / "j").glob("*/*.jsonl")) == 3
    assert texts(tmp_path / "j", video, 3) == ["é0\n", "é1\n", "é2\n"]


def test_other_settings_start_afresh_say_why_and_come_back(
    tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "j"
    fill(folder, video, range(2))
    assert texts(folder, video, 2, fps=4.0) == [None, None]
    assert "starts afresh: fps: 2.0 then, 4.0 now" in caplog.text
    fill(folder, video, range(1), fps=4.0, new=1)
    caplog.clear()
    assert texts(folder, video, 2) == ["é0\n", "é1\n"]
    assert not caplog.text
    assert texts(folder, video, 2, fps=4.0, new=2) == [None, None]
    assert "starts afresh: new: 1 then, 2 now" in caplog.text, "the nearest settings are named"


@pytest.mark.parametrize("settled", [False, True])
def test_a_video_with_another_content_starts_afresh(
    tmp_path: Path, video: str, settled: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its size and times say; and the old answers come back with the old content."""
    folder, path = tmp_path / "j", Path(video)
    if settled:  # as if the file were old when it was stamped: its state is trusted from then on
        monkeypatch.setattr("timelens_plugins.file_state._SETTLED", -(10**12))
    os.utime(path, ns=(1, 1))
    fill(folder, video, range(2))
    assert texts(folder, video, 2) == ["é0\n", "é1\n"]
    old = path.read_bytes()
    path.write_bytes(old[::-1])
    os.utime(path, ns=(1, 1))
    assert texts(folder, video, 2) == [None, None]
    assert "2 finished items start afresh" in caplog.text
    assert f"({video}: 6 bytes then, 6 now)" in caplog.text
    path.write_bytes(old)
    assert texts(folder, video, 2) == ["é0\n", "é1\n"]
    os.rename(path, tmp_path / "moved.mp4")
    assert texts(folder, str(tmp_path / "moved.mp4"), 2) == ["é0\n", "é1\n"]


def test_an_unchanged_video_is_not_read_again(tmp_path: Path, video: str, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(2.1)
    fill(tmp_path / "j", video, range(2))
    monkeypatch.setattr(Contents, "_digest", None)
    assert texts(tmp_path / "j", video, 2) == ["é0\n", "é1\n"]


def test_what_was_answered_about_a_video_that_changed_meanwhile_is_not_kept(
    tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Journal(tmp_path / "j", SETTINGS) as journal:
        journal.lookup([("k0", video)])
        Path(video).write_bytes(b"others")
        journal.add("k0", video, {"text": "about the first"})
    assert "changed while it was worked on" in caplog.text
    assert texts(tmp_path / "j", video, 1) == [None]


def test_videos_of_one_name_in_two_folders_are_kept_apart(
    tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A key holds the name of the video alone, as folders may move: one question about both has one key."""
    other = tmp_path / "other" / Path(video).name
    other.parent.mkdir()
    other.write_bytes(b"other frames")
    both = [("k0", video), ("k0", str(other))]
    with Journal(tmp_path / "j", SETTINGS) as journal:
        assert journal.lookup(both) == [None, None]
        for key, path in both:
            journal.add(key, path, {"text": path})
    assert "changed while it was worked on" not in caplog.text
    with Journal(tmp_path / "j", SETTINGS) as journal:
        assert [record and record["text"] for record in journal.lookup(both)] == [video, str(other)]


def test_a_second_look_sees_a_video_that_was_replaced_meanwhile(tmp_path: Path, video: str) -> None:
    fill(tmp_path / "j", video, range(1))
    with Journal(tmp_path / "j", SETTINGS) as journal:
        [found] = journal.lookup([("k0", video)])
        assert found is not None
        Path(video).write_bytes(b"another")
        assert journal.lookup([("k0", video)]) == [None]
        journal.add("k0", video, {"text": "about the other"})
        assert [record and record["text"] for record in journal.lookup([("k0", video)])] == ["about the other"]
    assert texts(tmp_path / "j", video, 1) == ["about the other"]


def test_a_second_look_does_not_hide_that_a_video_changed_while_it_was_worked_on(tmp_path: Path, video: str) -> None:
    with Journal(tmp_path / "j", SETTINGS) as journal:
        journal.lookup([("k0", video)])
        Path(video).write_bytes(b"another")
        journal.lookup([("k0", video)])
        journal.add("k0", video, {"text": "about the first"})
    assert texts(tmp_path / "j", video, 1) == [None]


def test_a_video_that_changes_while_it_is_read_does_not_count(
    tmp_path: Path, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "j", video, range(1))
    (tmp_path / "other").write_bytes(b"others")
    digest = hashlib.file_digest

    def slow(*args: Any) -> Any:
        found = digest(*args)
        os.replace(tmp_path / "other", video)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "file_digest", slow)
        assert texts(tmp_path / "j", video, 1) == [None]


def test_a_folder_in_the_place_of_a_video_is_named(
    tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path(video).unlink()
    Path(video).mkdir()
    with Journal(tmp_path / "j", SETTINGS) as journal:
        assert journal.lookup([("k0", video)]) == [None]
        journal.add("k0", video, {"text": "about frames"})
    assert f"the content of {video} cannot be told (is no regular file)" in caplog.text
    assert "changed" not in caplog.text
    assert texts(tmp_path / "j", video, 1) == [None]


def test_what_could_not_be_synced_disturbs_no_other_run(
    tmp_path: Path, video: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that reads meanwhile has seen the line: it is not taken back, and nothing takes its place in the file."""
    folder = tmp_path / "j"

    def fail(file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(folder, SETTINGS) as reader, Journal(folder, SETTINGS) as writer:
        writer.add("k0", video, {"text": "a"})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match=r"Input/output error: '.*\.jsonl'"):
                writer.add("k1", video, {"text": "b" * 30})
        reader.refresh()
        for n in (2, 3):
            writer.add(f"k{n}", video, {"text": "c" * n})
        found = [record and record["text"] for record in reader_sees(reader, video, 4)]
        assert found == ["a", "b" * 30, "cc", "ccc"]
        assert not caplog.text
    assert texts(folder, video, 4) == found


def reader_sees(reader: Journal, video: str, count: int) -> list[dict[str, Any] | None]:
    reader.refresh()
    return reader.lookup((f"k{n}", video) for n in range(count))


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_first_record_that_could_not_be_written_can_be_tried_again(
    tmp_path: Path, video: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = getattr(os, call)

    def fail(*args: Any) -> Any:
        if call == "open":  # the file is there, and the call failed all the same, as on a network file system
            os.close(real(*args))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(tmp_path / "j", SETTINGS) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            with pytest.raises(OSError, match=r"No space left on device: '.*\.jsonl'"):
                journal.add("k0", video, {"text": "a"})
        journal.add("k0", video, {"text": "a"})
    assert texts(tmp_path / "j", video, 1) == ["a"]


def test_a_full_disk_names_the_file_and_spoils_nothing(
    tmp_path: Path, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, write = tmp_path / "j", os.write
    with Journal(folder, SETTINGS) as journal:
        journal.add("k0", video, {"text": "a"})

        def half(file: int, data: Any) -> int:
            if len(data) < 20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, data[:20])

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half)
            with pytest.raises(OSError, match=r"No space left on device: '.*\.jsonl'"):
                journal.add("k1", video, {"text": "b"})
        journal.add("k2", video, {"text": "c"})
    assert texts(folder, video, 3) == ["a", None, "c"]


def test_an_old_format_and_a_file_are_named(tmp_path: Path, video: str, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "answers-0-of-1.jsonl").write_text('{"settings": {"model": "m"}}\n{"key": "k0", "text": "old"}\n')
    assert texts(tmp_path, video, 1) == [None]
    assert "answers-0-of-1.jsonl was written by an earlier version" in caplog.text
    with pytest.raises(JournalError, match="is a file; a journal is a folder"):
        Journal(video, SETTINGS)
