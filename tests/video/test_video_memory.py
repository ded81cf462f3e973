"""Memory of decoding is bounded by the sampled frames, not by the clip."""

from __future__ import annotations

import ast
import subprocess
import sys
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

import av
import numpy as np
import pytest

# VmHWM, not ru_maxrss: the latter begins at the peak of the process that started this one.
READ = """
import sys
from pathlib import Path
from timelens_plugins.video import sample_frames
clip = sample_frames(sys.argv[1])
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(len(clip.frames), clip.duration, peak)
"""


def repeat(minute: Path, clip: Path, times: int) -> None:
    """Write the packets of a minute again and again."""
    with av.open(str(clip), "w") as output:
        copy = None
        for number in range(times):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                copy = copy or output.add_stream_from_template(stream)
                offset = round(Fraction(60 * number) / stream.time_base)
                for packet in takewhile(lambda p: p.size, source.demux(stream)):
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, copy
                    output.mux(packet)


# Of a first, short clip, which pays for imports and buffers; then of hours, and of a window in them.
READ_HOURS = """
import sys
from pathlib import Path
from timelens_plugins.video import sample_frames
def peak():
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])
def read(path, **window):
    clip = sample_frames(path, fps=1.0, max_frames=2048, min_tokens=1, total_tokens=128_000, **window)
    return [len(clip.frames), round(clip.duration), round(float(clip.times[-1])), peak()]
print(read(sys.argv[1]), read(sys.argv[2]), read(sys.argv[2], video_start=9000.0, video_end=9060.0), sep="\\n")
"""


def test_hours_take_the_memory_of_their_sampled_frames(tmp_path: Path) -> None:
    """Three hours at 10 fps, of which TimeLens2's protocol samples 2048 frames: decoded whole they were 1.3 GB."""
    minute, clip = tmp_path / "minute.mp4", tmp_path / "hours.mp4"
    with av.open(str(minute), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for second in range(60):
            image = np.full((64, 64, 3), 4 * second, dtype=np.uint8)
            for _ in range(10):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    repeat(minute, clip, 180)
    command = [sys.executable, "-c", READ_HOURS, str(minute), str(clip)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    short, hours, window = (ast.literal_eval(line) for line in done.stdout.splitlines())
    assert short[:3] == [60, 60, 60]
    assert hours[:3] == [2048, 10800, 10800]
    assert window[:3] == [60, 60, 60]
    frames = 2048 * 64 * 64 * 3 / 1024
    assert hours[3] - short[3] < 6 * frames, "kilobytes"
    assert window[3] < 1.01 * hours[3], "a window of them takes no more; the kernel counts roughly"


@pytest.mark.slow
def test_half_an_hour_of_720p_under_a_gigabyte(tmp_path: Path) -> None:
    """The whole process, imports included, at the official 768 frames; decoded, those alone are over 2 GB."""
    minute, clip = tmp_path / "minute.mp4", tmp_path / "half_an_hour.mp4"
    with av.open(str(minute), "w") as output:
        stream = output.add_stream("libx264", rate=30, options={"preset": "ultrafast", "g": "150"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        image = np.zeros((720, 1280, 3), dtype=np.uint8)
        for second in range(60):
            image[: 12 * second] = (90, 120, 200)
            for _ in range(30):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    repeat(minute, clip, 30)
    result = subprocess.run([sys.executable, "-c", READ, str(clip)], check=True, capture_output=True, text=True)
    frames, seconds, kilobytes = result.stdout.split()
    assert (int(frames), float(seconds)) == (768, pytest.approx(1800, abs=0.1))
    assert int(kilobytes) < 10**9 / 1024
