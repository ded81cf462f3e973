"""Time and memory of `sample_frames` beside qwen-vl-utils with decord: the same clips, side by side, in one run.

    python benchmarks/decode.py VIDEO... [--repeats 5] [--fps 2] [--max-frames 768] [--backend auto]

Without a VIDEO it makes one, `--minutes` long, 1280x720 at 30 fps. Both sides work to the official budget for Qwen3-VL
and return frames of that size; whether the pixels are the same is checked first. Runs alternate between the sides.
Times are medians in a warm process; peak memory comes from one fresh process a side, above what it held before reading.

``--cache`` compares decoding with reading the same frames from a folder where they are kept instead.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"  # qwen-vl-utils reads it when imported

import av
import numpy as np
import torch
from qwen_vl_utils.vision_process import fetch_video

from timelens_plugins.video import FrameCache, FrameSampling, sample_frames

SIDES = ("sample_frames", "qwen-vl-utils")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side and clip")
    parser.add_argument("--fps", type=float, default=2.0)
    parser.add_argument("--max-frames", type=int, default=768)
    parser.add_argument("--backend", default="auto", help="backend of sample_frames")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the clip made where no VIDEO is given")
    parser.add_argument("--cache", action="store_true", help="compare with frames kept on disk, and with nothing else")
    parser.add_argument("--measure-memory", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    sampling = FrameSampling(fps=args.fps, max_frames=args.max_frames)
    sides = readers(sampling, args.backend)
    if args.measure_memory:
        print(peak_memory(sides[args.measure_memory], args.videos[0]))
        return 0

    print(f"{processor()}, {os.cpu_count()} cores, torch on {torch.get_num_threads()}")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "qwen-vl-utils", "decord", "av")))
    with tempfile.TemporaryDirectory() as folder:
        videos = args.videos or [make_clip(Path(folder) / f"made_{args.minutes:g}min_720p.mp4", args.minutes)]
        if args.cache:
            for video in videos:
                compare_cached(video, sampling, args)
            return 0
        print(
            f"\n{'clip':24} {'frames':>11} {'same':>5}   {'ours s':>7} {'theirs s':>8} {'ratio':>5}   "
            f"{'ours CPU s':>10} {'theirs':>7} {'ratio':>5}   {'ours MB':>8} {'theirs':>7} {'ratio':>5}"
        )
        for video in videos:
            compare(video, sides, args)
    print("\nratio: theirs / ours, above 1 where sample_frames is better")
    return 0


def readers(sampling: FrameSampling, backend: str) -> dict[str, Callable[[Path], torch.Tensor]]:
    token = sampling.pixel_factor**2

    def ours(video: Path) -> torch.Tensor:
        return sample_frames(video, sampling, backend=backend).frames

    def theirs(video: Path) -> torch.Tensor:
        request = {
            "video": str(video),
            "fps": sampling.fps,
            "min_frames": sampling.min_frames,
            "max_frames": sampling.max_frames,
            "min_pixels": sampling.min_tokens * token,
            "total_pixels": sampling.total_tokens * token,
        }
        frames: torch.Tensor = fetch_video(request, image_patch_size=sampling.patch_size)
        return frames

    return dict(zip(SIDES, (ours, theirs), strict=True))


def compare(video: Path, sides: dict[str, Callable[[Path], torch.Tensor]], args: argparse.Namespace) -> None:
    frames = {side: read(video) for side, read in sides.items()}  # also warms the caches
    ours, theirs = frames.values()
    same = ours.shape == theirs.shape and torch.equal(ours, theirs.to(torch.uint8))
    shape = f"{ours.shape[0]}x{ours.shape[3]}x{ours.shape[2]}"
    del frames, ours, theirs
    wall: dict[str, list[float]] = {side: [] for side in SIDES}
    cpu: dict[str, list[float]] = {side: [] for side in SIDES}
    for repeat in range(args.repeats):
        for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
            start, start_cpu = time.perf_counter(), time.process_time()
            sides[side](video)
            wall[side].append(time.perf_counter() - start)
            cpu[side].append(time.process_time() - start_cpu)
    memory = {side: measured_memory(side, video, args) for side in SIDES}
    cells = []
    for figures, width, digits in ((wall, 7, 2), (cpu, 10, 2), (memory, 8, 0)):
        mine, other = (statistics.median(figures[side]) for side in SIDES)
        cells.append(f"{mine:{width}.{digits}f} {other:{8 if figures is wall else 7}.{digits}f} {other / mine:5.2f}")
    print(f"{video.name[:24]:24} {shape:>11} {'yes' if same else 'NO':>5}   " + "   ".join(cells), flush=True)


def compare_cached(video: Path, sampling: FrameSampling, args: argparse.Namespace) -> None:
    """CPU seconds of decoding, and of reading what was kept, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        time.sleep(max(0.0, video.stat().st_ctime + 2.1 - time.time()))  # what has just been changed is not kept
        cache = FrameCache(folder, 10**10)
        expected = sample_frames(video, sampling, backend=args.backend, cache=cache)
        seconds: dict[str, list[float]] = {"decoded": [], "kept": []}
        for _ in range(args.repeats):
            for way, keeping in (("decoded", None), ("kept", cache)):
                start = time.process_time()
                found = sample_frames(video, sampling, backend=args.backend, cache=keeping)
                seconds[way].append(time.process_time() - start)
                assert torch.equal(found.frames, expected.frames)
        assert cache.counts["read"] == args.repeats
        megabytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    decoded, kept = (statistics.median(values) for values in seconds.values())
    print(
        f"{video.name[:24]:24} decoded {decoded:.3f} CPU s, kept {kept:.3f} CPU s, {decoded / kept:.1f}x, "
        f"{len(expected.frames)} frames in {megabytes:.1f} MB",
        flush=True,
    )


def measured_memory(side: str, video: Path, args: argparse.Namespace) -> list[float]:
    settings = ["--fps", str(args.fps), "--max-frames", str(args.max_frames), "--backend", args.backend]
    command = [sys.executable, __file__, str(video), "--measure-memory", side, *settings]
    return [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)]


def peak_memory(read: Callable[[Path], torch.Tensor], video: Path) -> float:
    """Megabytes of resident memory that reading adds at its peak."""
    import torchvision.transforms.functional  # noqa: F401  (both sides use it: not part of what reading takes)

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to what is resident now
    before = resident("VmRSS")
    read(video)
    return (resident("VmHWM") - before) / 1024


def resident(entry: str) -> int:
    """Kilobytes under an entry of this process's status; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(entry)))


def make_clip(path: Path, minutes: float) -> Path:
    """A clip with moving content; longer ones repeat half a minute of it."""
    seconds = min(30.0, minutes * 60)
    rate, width, height = 30, 1280, 720
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (45, 80, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
    with av.open(str(path.with_suffix(".part.mp4")), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * rate)):
            image = np.roll(texture, (2 * index, 3 * index), axis=(0, 1))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    repeat_clip(path.with_suffix(".part.mp4"), path, round(minutes * 60 / seconds))
    return path


def repeat_clip(source: Path, target: Path, times: int) -> None:
    """Write the packets of ``source`` ``times`` times over, without encoding them again."""
    with av.open(str(target), "w") as output:
        copy, offset = None, 0
        for _ in range(times):
            with av.open(str(source)) as part:
                stream = part.streams.video[0]
                copy = copy or output.add_stream_from_template(stream)
                for packet in itertools.takewhile(lambda p: p.size, part.demux(stream)):
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, copy
                    output.mux(packet)
                offset += round(Fraction(stream.frames) / stream.average_rate / stream.time_base)


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
