"""What is taken for a video, what is not, and in which words: addresses, names, kinds of file, bounds."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_clips import copy_packets, write_audio, write_clip
from PIL import Image

from timelens_plugins.moments import find_video, load_moments
from timelens_plugins.video import VideoError, sample_frames

FILES_OF_CLIP = "file 'secret/private.mp4'\n"


def fault(path: object) -> str:
    with pytest.raises(VideoError) as caught:
        sample_frames(path)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value.fault


# Addresses and names.


@pytest.mark.parametrize("name", ["plain.mp4", "a b.mp4", "50%.mp4", "50%20.mp4", "what?.mp4", "take#2.mp4", "ä.mp4"])
def test_addresses_of_files(name: str, plain_clip: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.symlink_to(plain_clip)
    for address in (f"file://{path}", path.as_uri(), f"FILE://localhost{path}", f"file:{path}", path):
        clip = sample_frames(address, fps=1)
        assert (clip.path, clip.total_frames) == (str(path), 60)
        assert find_video(address if isinstance(address, str) else str(address)) == path


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://example.org/v.mp4", "is an address, not a file; download it first"),
        ("HTTP://example.org/v.mp4", "is an address, not a file; download it first"),
        ("rtsp://camera/1", "is an address, not a file"),
        ("s3://bucket/v.mp4", "is an address, not a file"),
        ("data:video/mp4;base64," + "A" * 10**6, "holds the video itself; write it to a file"),
        ("file://host/v.mp4", "is not an address of this machine; write file:///absolute/path"),
        ("file://v.mp4", "is not an address of this machine; write file:///absolute/path"),
        ("concat:a.mp4|b.mp4", "cannot be opened (No such file or directory)"),
        ("subfile,,start,0,end,9,,:a.mp4", "cannot be opened (No such file or directory)"),
        ("C:\\videos\\v.mp4", "cannot be opened (No such file or directory)"),
        ("a\0.mp4", "cannot be the name of a file"),
        ("a\ud800.mp4", "cannot be the name of a file"),
        ("a" * 5000 + ".mp4", "cannot be opened (File name too long)"),
        ("", "cannot be opened (No such file or directory)"),
    ],
)
def test_addresses_of_no_file(address: str, words: str) -> None:
    assert fault(address).startswith(words)
    with pytest.raises(VideoError) as caught:
        sample_frames(address)
    assert len(str(caught.value)) < 800
    str(caught.value).encode()  # can be printed
    assert caught.value.path == address


def test_lists_of_frame_files_are_no_video(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"path of a file.* not a list; frames .* have no times"):
        sample_frames([tmp_path / "0.jpg"])  # type: ignore[arg-type]


def test_addresses_in_annotations(plain_clip: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    address = "https://example.org/v.mp4"
    table.write_text(f"video,query,start,end\n{plain_clip.as_uri()},a query,0,1\n{address},a query,0,1\n")
    moments = list(load_moments(table, video_root="videos"))
    assert [m.video for m in moments] == [str(plain_clip), address]
    with pytest.raises(FileNotFoundError, match=r"https://example.org/v.mp4: is an address, not a file"):
        find_video(moments[1].video)


def test_names_that_are_no_text(plain_clip: Path, tmp_path: Path) -> None:
    """A name in another encoding than UTF-8, a line end in it, and an error about such a name."""
    for raw in (b"caf\xe9.mp4", b"two\nlines.mp4", b"tab\t.mp4"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/" + raw)
        shutil.copy(plain_clip, path)  # its own bytes: one of them is emptied
        assert sample_frames(path, fps=1).total_frames == 60
        os.truncate(path, 0) if raw.startswith(b"tab") else None
    path = os.fsdecode(os.fsencode(tmp_path) + b"/gone\xe9\n.mp4")
    with pytest.raises(VideoError, match=r"gone\\udce9\\n.mp4: cannot be opened") as caught:
        sample_frames(path)
    assert caught.value.path == path


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "empty.mp4").touch()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.mp4"))
        assert "cannot be opened" in fault(tmp_path / "s.mp4")
    assert fault(tmp_path / "fifo.mp4") == fault("/dev/zero")
    assert fault("/dev/zero").startswith("is a pipe or a device")
    assert fault(tmp_path / "folder.mp4") == "is a directory, not a video file"
    assert "symbolic links" in fault(tmp_path / "loop.mp4")
    assert fault(tmp_path / "empty.mp4").startswith("is empty")


# Kinds of file.


def test_texts_and_pictures_are_no_videos(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    write_clip(tmp_path / "secret" / "private.mp4", frames=12)
    texts = {
        "concat": "ffconcat version 1.0\n" + FILES_OF_CLIP,
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret/private.mp4\n",
        "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>\n',
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "srt": "1\n00:00:01,000 --> 00:00:02,000\nA word\n",
        "vtt": "\ufeffWEBVTT\n\n00:01.000 --> 00:02.000\nA word\n",
        "ass": "[Script Info]\nScriptType: v4.00+\n",
        "ansi": "\x1b[31mred\x1b[0m\n" * 40,
        "long": "ä" * 4000,
    }
    for name, text in texts.items():
        for suffix in (".mp4", ".m3u8", ".ass", ".txt", ".ffconcat"):
            path = tmp_path / f"{name}{suffix}"
            path.write_text(text)
            assert fault(path).startswith("is text, a script or a playlist (it begins with ")
    picture = Image.new("RGB", (64, 48))
    for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff"):
        picture.save(tmp_path / f"{kind}.mp4", kind)
        assert f"{kind.upper()} picture" in fault(tmp_path / f"{kind}.mp4").replace("WebP", "WEBP")
    moving = [picture, Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")]
    for kind, read in (("gif", True), ("png", True), ("webp", False)):
        path = tmp_path / f"moving_{kind}.mp4"
        moving[0].save(path, kind, save_all=True, append_images=moving[1:], duration=200)
        if read:
            clip = sample_frames(path, times="stream", fps=5, min_frames=2)
            assert clip.total_frames == 3
            assert clip.times == pytest.approx([0.0, 0.2] if len(clip.times) == 2 else [0, 0.2, 0.4], abs=0.21)
        else:
            assert "WebP picture" in fault(path)


@pytest.mark.parametrize(("codec", "form"), [("libx264", "h264"), ("mpeg4", "m4v"), ("mpeg2video", "mpeg2video")])
def test_raw_streams_are_named_with_the_remedy(codec: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "raw.mp4"
    with av.open(str(path), "w", format=form) as output:
        stream = output.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    assert "if it is a raw stream, remux it: ffmpeg -r RATE" in fault(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    write_audio(tmp_path / "plain.m4a")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "cover.jpg")
    for name in ("covered.mp4", "covered.mkv"):
        with (
            av.open(str(tmp_path / "plain.m4a")) as audio,
            av.open(str(tmp_path / "cover.jpg")) as cover,
            av.open(str(tmp_path / name), "w") as output,
        ):
            sound = output.add_stream_from_template(audio.streams.audio[0])
            image = output.add_stream_from_template(cover.streams.video[0])
            image.disposition = int(av.stream.Disposition.attached_pic.value)  # type: ignore[assignment]
            for source, target in ((cover, image), (audio, sound)):
                for packet in source.demux():
                    if packet.size:
                        packet.stream = target
                        output.mux(packet)
    assert fault(tmp_path / "covered.mp4") == "has no video stream, only audio with a cover picture"
    assert fault(tmp_path / "covered.mkv") == "holds a single MJPEG picture, not a video"  # a track like any other
    assert fault(tmp_path / "plain.m4a") == "has no video stream, only audio"


# Bounds.


def blank(path: Path, width: int, height: int, codec: str, frames: int = 6) -> Path:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height = width, height
        stream.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        frame = av.VideoFrame(width, height, stream.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(frames):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi", "v.ts"])
def test_declared_picture_sizes_are_bounded(name: str, tmp_path: Path) -> None:
    codec = {"v.ts": "mpeg2video", "v.mkv": "ffv1"}.get(name, "png")
    path = blank(tmp_path / name, 16000, 9000, codec, frames=2)
    code = (
        "import resource, sys\n"
        "from timelens_plugins.video import VideoError, sample_frames\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    sample_frames(sys.argv[1])\n"
        "except VideoError as error:\n    print(error.fault)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    words, grown = run.stdout.splitlines()
    assert words.startswith("declares pictures of 16000x9000, more than 67,108,864 pixels")
    assert int(grown) * 1024 < 16000 * 9000, "nothing of that size was allocated"


@pytest.mark.parametrize("fragmented", [False, True])
def test_claimed_samples_are_bounded(fragmented: bool, tmp_path: Path) -> None:
    """Two kilobytes that list 100 million frames, for which FFmpeg would take 2.4 GB."""
    whole = write_clip(tmp_path / "whole.mkv", frames=10, options={"bf": "0"})
    flags = "frag_keyframe+empty_moov+default_base_moof" if fragmented else "faststart"
    data = bytearray(copy_packets(whole, tmp_path / "whole.mp4", lambda *_: True, movflags=flags).read_bytes())
    assert sample_frames(tmp_path / "whole.mp4").total_frames == 10
    count = data.index(b"trun") + 8 if fragmented else data.index(b"stsz") + 12
    assert struct.unpack_from(">I", data, count) == (10,)
    struct.pack_into(">I", data, count, 100_000_000)
    (tmp_path / "claims.mp4").write_bytes(data)
    assert fault(tmp_path / "claims.mp4").startswith(f"lists more samples than its {len(data)} bytes can hold")


def test_pictures_that_grow_midway_are_bounded(tmp_path: Path) -> None:
    """The header declares a small picture, the stream behind it a large one."""
    small = blank(tmp_path / "small.mkv", 160, 96, "mjpeg", frames=8)
    large = blank(tmp_path / "large.mkv", 16000, 9000, "mjpeg", frames=1)
    with av.open(str(large)) as source:
        [picture] = [bytes(p) for p in source.demux(video=0) if p.size]
    grown = tmp_path / "grown.mkv"
    with av.open(str(small)) as source, av.open(str(grown), "w") as output:
        copy = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            if number == 7:
                moved = av.Packet(picture)
                moved.pts, moved.dts, moved.time_base = packet.pts, packet.dts, packet.time_base
                moved.is_keyframe = True
                packet = moved
            packet.stream = copy
            output.mux(packet)
    assert "does not decode" in fault(grown)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_titles_in_other_encodings(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"titled{suffix}"
    with av.open(str(path), "w") as output:
        output.metadata["title"] = "cafééé"
        stream = output.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(stream.encode())
    data = path.read_bytes()
    assert "cafééé".encode() in data
    path.write_bytes(data.replace("cafééé".encode(), "cafééé ü".encode("latin-1") + b"\xff"))
    assert sample_frames(path).total_frames == 10
