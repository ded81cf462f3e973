"""Memory of decoding is bounded by the sampled frames, not by the clip."""

from __future__ import annotations

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
    with av.open(str(clip), "w") as output:
        copy = None
        for repeat in range(30):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                copy = copy or output.add_stream_from_template(stream)
                offset = round(Fraction(60 * repeat) / stream.time_base)
                for packet in takewhile(lambda p: p.size, source.demux(stream)):
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, copy
                    output.mux(packet)
    result = subprocess.run([sys.executable, "-c", READ, str(clip)], check=True, capture_output=True, text=True)
    frames, seconds, kilobytes = result.stdout.split()
    assert (int(frames), float(seconds)) == (768, pytest.approx(1800, abs=0.1))
    assert int(kilobytes) < 10**9 / 1024
