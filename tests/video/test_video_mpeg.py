"""Program and transport streams, where not every picture has a time stamp: every frame comes, at its own time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_clips import HEIGHT, WIDTH, number_of, picture, write_clip

from timelens_plugins.video import VideoError, sample_frames
from timelens_plugins.video.stream import probe

FRAMES = 360


def packets(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(container.streams.video[0]) if packet.size)


@pytest.mark.parametrize("bitrate", [60_000, 300_000, 2_000_000])
@pytest.mark.parametrize("rate", [25, 30, Fraction(30000, 1001), Fraction(24000, 1001)])
@pytest.mark.parametrize(("name", "codec"), [("v.mpg", "mpeg2video"), ("v.mpg", "mpeg1video"), ("v.vob", "mpeg2video")])
def test_every_frame_at_its_own_time(name: str, codec: str, rate: Fraction, bitrate: int, tmp_path: Path) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, options={"bf": "2", "g": "12", "b": str(bitrate)})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    stream = probe(str(path))
    assert stream.total_frames == packets(path) == FRAMES
    assert stream.times == pytest.approx(np.arange(FRAMES) / float(rate), abs=2e-5)
    for settings in ({"fps": 5.0}, {"fps": 3.0, "video_start": 4.9, "video_end": 9.3}):
        clip = sample_frames(path, times="stream", min_tokens=16, total_tokens=4096, **settings)
        shown = [number_of(f.permute(1, 2, 0).numpy()) for f in clip.frames]
        assert shown == clip.frame_indices.tolist()
        assert clip.times + clip.video_start == pytest.approx(np.asarray(shown) / float(rate), abs=2e-5)


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264", "libx265", "mpeg4"])
def test_transport_streams(codec: str, tmp_path: Path) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"bf": "2"}
    path = write_clip(tmp_path / "v.ts", frames=90, codec=codec, options=options)
    stream = probe(str(path))
    assert stream.total_frames == packets(path) == 90
    assert stream.times == pytest.approx(np.arange(90) / 30, abs=2e-5)
    clip = sample_frames(path, fps=10, times="stream")
    shown = [number_of(f.permute(1, 2, 0).numpy()) for f in clip.frames]
    assert shown == clip.frame_indices.tolist()


def test_stamps_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    """A part is cut out of the middle: the pictures without stamps behind it could be at either time."""
    whole = write_clip(tmp_path / "whole.mpg", frames=300, codec="mpeg2video", options={"bf": "2", "b": "60000"})
    data = whole.read_bytes()
    packs = range(0, len(data), 2048)
    assert len(packs) > 8
    cut = tmp_path / "cut.mpg"
    cut.write_bytes(data[: packs[3]] + data[packs[6] :])
    with pytest.raises(VideoError, match=r"cut.mpg: has time stamps that do not fit its 30.000 fps near .* re-encode"):
        sample_frames(cut)


def test_times_that_run_back_are_an_error(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "first.ts", frames=90)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() * 2)
    with pytest.raises(VideoError, match=r"joined.ts: has time stamps that run back near .* re-encode"):
        sample_frames(joined)


def test_pictures_shown_for_three_fields(tmp_path: Path) -> None:
    """Film in NTSC video: every other picture repeats a field, so 24 pictures last a second at 30 frames a second."""
    plain = write_clip(tmp_path / "plain.mpg", frames=96, codec="mpeg2video", options={"bf": "0", "b": "60000"})
    stream = probe(str(plain))
    data = bytearray(plain.read_bytes())
    place, count = data.find(b"\0\0\1\xb5"), 0
    while place >= 0:
        if data[place + 4] >> 4 == 1:
            data[place + 5] &= ~0x08  # no progressive sequence
        elif data[place + 4] >> 4 == 8:
            if count % 2:
                data[place + 7] |= 0x02  # the first field comes once more
            count += 1
        place = data.find(b"\0\0\1\xb5", place + 4)
    film = tmp_path / "film.mpg"
    film.write_bytes(data)
    assert stream.total_frames == 96
    with pytest.raises(VideoError, match="do not fit"):  # the stamps in the file are those of 30 pictures a second
        probe(str(film))
