"""Frames kept on disk: read as they were decoded, bit for bit; nothing stale or damaged, nothing beyond the bound."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_clips import write_clip

from timelens_plugins import file_state
from timelens_plugins.video import FrameCache, FrameSampling, VideoClip, VideoError, clip, open_cache, sample_frames

SAMPLING = FrameSampling(fps=10.0, min_tokens=4, total_tokens=64)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are kept as soon as they are written, as if they had lain there for long."""
    monkeypatch.setattr(file_state, "_SETTLED", -(10**12))


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", 10**9)


@pytest.fixture
def video(plain_clip: Path, tmp_path: Path) -> Path:
    """A copy that a test may replace."""
    return Path(shutil.copy(plain_clip, tmp_path / "video.mp4"))


def entries(cache: FrameCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def same(one: VideoClip, other: VideoClip) -> bool:
    for field in fields(VideoClip):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, torch.Tensor):
            assert a.dtype == b.dtype
            equal = torch.equal(a, b)
        elif isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            equal = np.array_equal(a, b)
        else:
            assert type(a) is type(b)
            equal = a == b
        if not equal:
            return False
    return True


@pytest.mark.parametrize(
    "asked", [{}, {"video_start": 0.5, "video_end": 1.5}, {"times": "stream"}, {"fps": 3.0, "total_tokens": 16}]
)
def test_a_hit_is_the_miss(
    video: Path, cache: FrameCache, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = sample_frames(video, SAMPLING, **asked)
    missed = sample_frames(str(video), SAMPLING, cache=cache, **asked)
    monkeypatch.setattr(clip, "probe", None)  # nothing of the file is looked at
    hit = sample_frames(str(video), SAMPLING, cache=cache, **asked)
    assert same(plain, missed)
    assert same(plain, hit)
    assert hit.metadata() == plain.metadata()
    hit.frames.zero_()
    assert same(plain, sample_frames(video, SAMPLING, cache=cache, **asked)), "a reader changes nothing for the next"
    assert dict(cache.counts) == {"kept": 1, "read": 2}


def test_whatever_frames_depend_on_is_another_entry(video: Path, cache: FrameCache) -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"fps": 5.0},
        {"total_tokens": 32},
        {"min_tokens": 2},
        {"max_frames": 8},
        {"times": "stream"},
        {"patch_size": 14},
        {"backend": "pyav"},
        {"video_start": 0.0},
        {"video_end": 1.0},
    ]
    for settings in asked:
        assert same(sample_frames(video, SAMPLING, cache=cache, **settings), sample_frames(video, SAMPLING, **settings))
    assert len(entries(cache)) == len(asked) == cache.counts["kept"]


def test_a_replaced_video_of_the_same_name_size_and_time_is_decoded(video: Path, cache: FrameCache) -> None:
    sample_frames(video, SAMPLING, cache=cache)
    stat = video.stat()
    other = write_clip(video.with_name("other.mp4"), frames=40)
    content = other.read_bytes()
    room = stat.st_size - len(content)
    video.write_bytes(content + room.to_bytes(4, "big") + b"free" + bytes(room - 8))
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (video.stat().st_size, video.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    found = sample_frames(video, SAMPLING, cache=cache)
    assert torch.equal(found.frames, sample_frames(other, SAMPLING).frames)
    assert dict(cache.counts) == {"kept": 2}
    video.unlink()
    with pytest.raises(VideoError, match="cannot be opened"):
        sample_frames(video, SAMPLING, cache=cache)


def test_a_video_that_changes_while_it_is_read_is_not_kept(
    video: Path, cache: FrameCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = clip._decoded

    def slow(*args: Any) -> Any:
        found = decode(*args)
        video.write_bytes(video.read_bytes() + b"\0" * 8)
        return found

    monkeypatch.setattr(clip, "_decoded", slow)
    sample_frames(video, SAMPLING, cache=cache)
    assert not entries(cache)
    assert dict(cache.counts) == {"just changed": 1}
    monkeypatch.setattr(clip, "_decoded", decode)
    monkeypatch.setattr(file_state, "_SETTLED", 10**12)
    sample_frames(video, SAMPLING, cache=cache)
    assert not entries(cache), "a further change might have the same time"
    assert cache.summary().endswith("0 clips read, 0 decoded and kept, 2 just changed")


@pytest.mark.parametrize("damage", ["a bit of a pixel", "a bit of the header", "cut", "empty", "another entry"])
def test_damage_is_decoded_again_counted_and_mended(
    video: Path, cache: FrameCache, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = sample_frames(video, SAMPLING, cache=cache)
    [path] = entries(cache)
    data = bytearray(path.read_bytes())
    if damage.startswith("a bit"):
        data[len(data) // 2 if "pixel" in damage else 40] ^= 1
    elif damage == "another entry":
        data[16:] = data[16:][::-1]
    path.write_bytes({"cut": bytes(data[: len(data) // 2]), "empty": b""}.get(damage, bytes(data)))
    assert same(sample_frames(video, SAMPLING, cache=cache), expected)
    assert cache.counts["damaged"] == 1
    assert str(path) in caplog.text
    assert same(sample_frames(video, SAMPLING, cache=cache), expected)
    assert dict(cache.counts) == {"kept": 2, "damaged": 1, "read": 1}


def test_what_was_used_longest_ago_goes_first_and_the_bound_holds(video: Path, tmp_path: Path) -> None:
    one = FrameCache(tmp_path / "one", 10**9)
    sample_frames(video, SAMPLING, cache=one)
    [size] = [path.stat().st_size for path in entries(one)]
    cache = FrameCache(tmp_path / "cache", int(2.5 * size))
    remains = cache.folder / ".0.frames.1.part"
    remains.write_bytes(b"of a writer that was killed")
    os.utime(remains, (0, 0))

    def take(video_end: float) -> None:
        sample_frames(video, SAMPLING, video_end=video_end, cache=cache)
        assert sum(path.stat().st_size for path in entries(cache)) <= cache.most_bytes
        time.sleep(0.01)

    for end in (2.1, 2.2, 2.1, 2.3):  # longer than the video: entries of one size
        take(end)
    assert dict(cache.counts) == {"kept": 3, "read": 1, "removed": 1}
    assert not remains.exists()
    take(2.1)
    assert cache.counts["read"] == 2, "2.2 was used before it"
    take(2.2)
    assert (cache.counts["kept"], cache.counts["removed"]) == (4, 2)
    small = FrameCache(tmp_path / "small", size - 1)
    sample_frames(video, SAMPLING, cache=small)
    assert (entries(small), dict(small.counts)) == ([], {"too large": 1})


def test_three_processes_share_a_small_cache(tmp_path: Path, video: Path) -> None:
    worker = Path(__file__).with_name("cache_writers.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(tmp_path / "cache"), str(video)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "status 0 0 0\n", done.stderr[-3000:]
    left = list((tmp_path / "cache").iterdir())
    assert all(path.suffix == ".frames" for path in left)
    assert 0 < sum(path.stat().st_size for path in left) <= 120_000


def test_a_folder_that_cannot_be_written_costs_no_run(
    video: Path, cache: FrameCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("timelens_plugins.video.frame_cache.replacing", full)
    for _ in range(2):
        assert same(sample_frames(video, SAMPLING, cache=cache), sample_frames(video, SAMPLING))
    assert caplog.text.count("No space left on device") == 1
    assert dict(cache.counts) == {"unwritable": 2}


def test_what_is_said_of_the_times_of_a_file_is_said_again(
    tmp_path: Path, cache: FrameCache, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = [*range(30), *range(90, 120)]
    video = write_clip(tmp_path / "uneven.mp4", frames=60, ticks=ticks)
    for _ in range(2):
        clip._warn_once.cache_clear()
        caplog.clear()
        sample_frames(video, SAMPLING, cache=cache)
        assert "times='stream' tells the file's" in caplog.text
    assert cache.counts["read"] == 1


def test_settings(tmp_path: Path) -> None:
    assert open_cache(None) is None
    cache = open_cache(tmp_path / "new" / "cache", 0.5)
    assert cache is not None
    assert (cache.folder.is_dir(), cache.most_bytes) == (True, 500_000_000)
    with pytest.raises(ValueError, match="cache_gb=3 without cache=FOLDER"):
        open_cache(None, 3)
    with pytest.raises(ValueError, match="cache_gb must be above 0, got 0"):
        open_cache(tmp_path, 0)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; frames are kept in a folder"):
        open_cache(tmp_path / "file")
