"""Whichever backend reads a file: the same frames and times; what a file cannot give is an error that names it."""

from __future__ import annotations

import logging
import sys
import types
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from made_clips import copy_packets, flip_bytes, number_of, set_edit, write_audio, write_clip

from timelens_plugins.video import FrameSampling, VideoClip, VideoError, sample_frames, working_backends
from timelens_plugins.video import backends as backends_module
from timelens_plugins.video import clip as clip_module
from timelens_plugins.video.backends import backend_problem
from timelens_plugins.video.stream import probe

REAL = [
    "charades/3MSZA.mp4",
    "charades/OHOFG.mp4",
    "media/nasa_13013.mp4",
    "media/h265_video.mp4",
    "media/av1_video.mkv",
]
FACTS = {  # frames, average rate, seconds
    "charades/3MSZA.mp4": (930, 30.0, 31.0),
    "charades/OHOFG.mp4": (335, 9.533, 35.14),
    "media/nasa_13013.mp4": (390, 29.97, 13.01),
    "media/h265_video.mp4": (10, 10.0, 1.0),
    "media/av1_video.mkv": (125, 25.0, 5.0),
}


def numbers(clip: VideoClip) -> list[int]:
    return [number_of(frame.permute(1, 2, 0).numpy()) for frame in clip.frames]


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, backend: str, real_data: Path) -> None:
    if (name, backend) == ("media/av1_video.mkv", "decord"):
        pytest.skip("decord has no AV1 decoder; the fall-through has its own test")
    frames, rate, seconds = FACTS[name]
    budget = FrameSampling(fps=1, min_tokens=16, total_tokens=64)
    clip = sample_frames(real_data / name, budget, backend=backend)
    assert clip.backend == backend
    assert (clip.total_frames, clip.fps, clip.duration) == (
        frames,
        pytest.approx(rate, 1e-3),
        pytest.approx(seconds, 1e-3),
    )
    by_stream = sample_frames(real_data / name, budget, backend=backend, times="stream")
    assert np.abs(by_stream.times - clip.times).max() < 0.5 / rate
    reference = sample_frames(real_data / name, budget, backend="pyav")
    assert np.array_equal(clip.times, reference.times)
    assert torch.equal(clip.frames, reference.frames)


CONTAINERS = {
    "closed.mp4": {},
    "no_frame_count.mkv": {},
    "open_gop.mp4": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=15:min-keyint=15:scenecut=0"}},
    "hevc_open_gop.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=20:min-keyint=20:log-level=none"}},
    "b_frames.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264.avi": {},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "transport.ts": {},
    "program.mpg": {"codec": "mpeg2video"},
}
BEYOND = {  # what a backend refuses, rather than return other frames than asked for
    "decord": {"transport.ts", "program.mpg"},
    "torchcodec": {"b_frames.avi", "h264.avi", "transport.ts", "program.mpg"},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_frame_is_the_one_asked_for(name: str, backend: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / name, frames=90, **CONTAINERS[name])
    assert probe(str(path)).total_frames == 90
    for settings in ({"fps": 2}, {"fps": 7, "video_start": 0.9}, {"fps": 30}):
        if name in BEYOND.get(backend, ()):
            with pytest.raises(VideoError, match=f"{name}: cannot be read with {backend}: .*; use backend='auto'"):
                sample_frames(path, backend=backend, **settings)
            continue
        clip = sample_frames(path, backend=backend, **settings)
        assert numbers(clip) == clip.frame_indices.tolist()
        assert clip.times == pytest.approx(clip.frame_indices / 30 - clip.video_start, abs=1 / 60)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_missing_first_keyframe(suffix: str, backend: str, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", frames=64, options={"x264-params": "scenecut=0:keyint=16:min-keyint=16"})
    with_no_start = copy_packets(whole, tmp_path / f"headless{suffix}", lambda position, _: position >= 3)
    clip = sample_frames(with_no_start, fps=10, times="stream", backend=backend)
    assert clip.total_frames == 48
    assert numbers(clip) == (clip.frame_indices + 16).tolist()
    first_shown = min(n for n in range(64) if n >= 3)  # packets 0 to 2 are the keyframe and two frames that follow it
    assert clip.times == pytest.approx((clip.frame_indices + 16 - first_shown) / 30, abs=0.1)


def test_open_start(backend: str, tmp_path: Path) -> None:
    """The first keyframe kept is followed by frames to be shown before it, which refer to what is gone."""
    settings = "open-gop=1:keyint=15:min-keyint=15:scenecut=0:bframes=2:b-adapt=0"
    whole = write_clip(tmp_path / "whole.mkv", frames=60, options={"x264-params": settings})
    second_key = int(probe(str(whole)).keyframes[1])
    cut = copy_packets(whole, tmp_path / "cut.mkv", lambda position, _: position >= second_key)
    clip = sample_frames(cut, fps=10, backend=backend)
    assert clip.total_frames < 60 - second_key
    assert numbers(clip) == (clip.frame_indices + 60 - clip.total_frames).tolist()


def test_edit_list(tmp_path: Path, plain_clip: Path) -> None:
    """Only frames the edit list shows count: 20 to 49, of which 16 to 19 are decoded and cut away."""
    ticks = round(20 / 30 / probe(str(plain_clip)).time_base)
    trimmed = set_edit(plain_clip, tmp_path / "trimmed.mp4", skip=ticks, milliseconds=1000)
    clip = sample_frames(trimmed, fps=10)
    assert (clip.total_frames, clip.duration) == (30, 1.0)
    assert numbers(clip) == (clip.frame_indices + 20).tolist()
    with pytest.raises(VideoError, match=r"decord counts frames that are never shown"):
        sample_frames(trimmed, backend="decord")


def test_hidden_frames_do_not_count() -> None:
    """VP8 with alternate reference frames: packets that are never shown, made from FFmpeg's test pattern."""
    hidden = Path(__file__).parents[1] / "data" / "vp8_hidden_frames.webm"
    stream = probe(str(hidden))
    assert stream.packets > stream.total_frames == 90
    assert sample_frames(hidden, fps=30).times == pytest.approx(np.arange(90) / 30, abs=1e-9)


def test_one_line_is_logged_where_the_first_backend_cannot(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = real_data / "media" / "av1_video.mkv"
    if backend_problem("decord"):
        pytest.skip("decord does not work here")
    caplog.set_level(logging.DEBUG)
    clip_module._warn_once.cache_clear()
    clip = sample_frames(path, backend="decord,pyav")
    sample_frames(path, backend="decord,pyav")
    assert clip.backend == "pyav"
    assert len(caplog.records) == 1
    assert f"{path}: decord cannot open the file" in caplog.text
    assert "reading it with pyav" in caplog.text
    caplog.clear()
    assert sample_frames(path).backend == "pyav"
    assert not caplog.records
    with pytest.raises(VideoError, match=r"av1_video.mkv: cannot be read with decord: .*; use backend='auto'"):
        sample_frames(path, backend="decord")


def test_a_broken_backend_is_found_once(
    plain_clip: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Importable is not working: torchcodec without FFmpeg's libraries imports, and fails when it is used."""

    def fail(name: str) -> None:
        raise RuntimeError("Could not load libtorchcodec.\nA long story")

    load = backends_module.load_backend
    monkeypatch.setattr(
        backends_module, "load_backend", lambda name: fail(name) if name == "torchcodec" else load(name)
    )
    backends_module._tried.cache_clear()
    try:
        for _ in range(2):
            assert sample_frames(plain_clip, backend="torchcodec,pyav").backend == "pyav"
        assert len(caplog.records) == 1
        assert "torchcodec does not work here: Could not load libtorchcodec.; remedy: " in caplog.text
        with pytest.raises(VideoError, match=r"plain.mp4: cannot be read: torchcodec does not work here: .*FFmpeg"):
            sample_frames(plain_clip, backend="torchcodec")
        assert len(caplog.records) == 1
    finally:
        backends_module._tried.cache_clear()


def test_working_backends() -> None:
    reports = {report.name: report for report in working_backends()}
    assert set(reports) == {"pyav", "decord", "torchcodec"}
    assert reports["pyav"].problem is None
    assert reports["pyav"].codecs == dict.fromkeys(("mpeg4", "h264", "hevc", "vp9", "av1"))
    if reports["decord"].problem is None:
        assert reports["decord"].codecs["h264"] is None
        assert "cannot open" in (reports["decord"].codecs["av1"] or "")


# What a file cannot give.


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video" * 100)
    write_audio(tmp_path / "audio.m4a")
    for name, fault in {
        "missing.mp4": "cannot be opened .No such file or directory.; check the path",
        "empty.mp4": "is empty .0 bytes.",
        "text.mp4": "is text, a script or a playlist",
        "audio.m4a": "has no video stream, only audio",
        ".": "is a directory",
    }.items():
        with pytest.raises(VideoError, match=f"{name}: {fault}" if name != "." else fault) as caught:
            sample_frames(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)


@pytest.mark.parametrize("name", ["index_at_end.mp4", "index_in_front.mp4", "matroska.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_cut_off_files(name: str, share: float, tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mkv", frames=150)
    options = {"movflags": "+faststart"} if name == "index_in_front.mp4" else {}
    source = copy_packets(whole, tmp_path / f"whole_{name}", lambda *_: True, **options)
    cut = tmp_path / name
    cut.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    with pytest.raises(VideoError, match=rf"{name}: .*cut off"):
        sample_frames(cut)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libx265"])
def test_damage_is_an_error_where_it_matters(codec: str, tmp_path: Path) -> None:
    """A frame that does not decode is never replaced by another, and does not spoil a window without it."""
    options = {"x265-params": "keyint=16:log-level=none"} if codec == "libx265" else {"x264-params": "scenecut=0"}
    clip = write_clip(tmp_path / "clip.mp4", frames=90, codec=codec, options=options)
    keys = probe(str(clip)).keyframes
    # FFmpeg's HEVC decoder notices a broken packet, but not that a picture within it is nonsense
    damaged = flip_bytes(clip, tmp_path / "damaged.mp4", int(keys[2]), after=0.0 if codec == "libx265" else 0.3)
    with pytest.raises(VideoError, match=r"damaged.mp4: .*does not decode.*: the file is damaged"):
        sample_frames(damaged, fps=10)
    before = sample_frames(damaged, fps=10, video_end=keys[1] / 30)
    assert numbers(before) == before.frame_indices.tolist()
    after = sample_frames(damaged, fps=10, video_start=(keys[3] + 3) / 30)
    assert numbers(after) == after.frame_indices.tolist()


def test_damage_between_sampled_frames(tmp_path: Path) -> None:
    """Sampled frames that refer to a damaged one are damaged themselves, though they decode."""
    clip = write_clip(tmp_path / "clip.mp4", frames=48, options={"bf": "0", "g": "48"})
    damaged = flip_bytes(clip, tmp_path / "damaged.mp4", packet=5)
    wanted = sample_frames(clip, fps=2).frame_indices
    assert 5 not in wanted
    assert any(a < 5 < b for a, b in pairwise(wanted))
    with pytest.raises(VideoError, match="does not decode"):
        sample_frames(damaged, fps=2)


@pytest.mark.parametrize("name", ["decord", "torchcodec"])
def test_whatever_a_backend_raises_names_the_file(
    name: str, plain_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On opening and midway, of any kind: none of these two says which errors it has."""

    class Reader:
        opens = False

        def __init__(self, *_: object, **__: object) -> None:
            if not self.opens:
                raise OSError("broken inside")

        def __len__(self) -> int:
            return 60

        def fails(self, *_: object) -> None:
            raise KeyError("broken inside")

        get_batch = get_frames_at = fails

    module = types.ModuleType(f"{name}.decoders")
    module.VideoReader = module.VideoDecoder = Reader  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, f"{name}.decoders", module)
    monkeypatch.setattr(clip_module, "backend_problem", lambda _: None)
    for Reader.opens in (False, True):
        with pytest.raises(VideoError, match=f"plain.mp4: cannot be read with {name}: {name} cannot .*broken inside"):
            sample_frames(plain_clip, backend=name)
    # what these two do not look at is decoded by PyAV, whose errors are no others
    whole = write_clip(tmp_path / "whole.mkv", frames=4, codec="libaom-av1", options={"cpu-used": "8"})
    damaged = flip_bytes(whole, tmp_path / "damaged.mkv", packet=0)
    with pytest.raises(VideoError, match=r"damaged.mkv: .*does not decode"):
        sample_frames(damaged, backend=name)


def test_auto_never_uses_decord(plain_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "decord" not in backends_module.preference("auto")
    assert backends_module.preference("decord, pyav") == ("decord", "pyav")


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    write_clip(tmp_path / "plain.mp4", frames=4).rename(tmp_path / "http:x.mp4")
    monkeypatch.chdir(tmp_path)
    assert sample_frames("http:x.mp4", backend=backend).total_frames == 4


def test_errors_travel_between_processes(tmp_path: Path) -> None:
    import pickle

    error = VideoError("a.mp4", "is empty")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.fault) == (str(error), "a.mp4", "is empty")
