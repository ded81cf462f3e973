"""What this machine has: video backends, GPU, attention kernels, the lmms-eval entry point."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from timelens_plugins.inspection.findings import Finding
from timelens_plugins.inspection.versions import installed_version
from timelens_plugins.locations import shipped_folder

__all__ = ["check_devices", "check_lmms_eval", "check_video"]

REINSTALL = "pip install --force-reinstall --no-deps, and the path of the clone or the wheel it came from"


def check_video() -> Iterator[Finding]:
    """What each backend reads."""
    from timelens_plugins.video import working_backends
    from timelens_plugins.video.backends import AUTO

    reports = working_backends()
    for report in reports:
        name = report.name if report.version is None else f"{report.name} {report.version}"
        works = [codec for codec, problem in report.codecs.items() if problem is None]
        if report.problem is None:
            rest = "".join(f"; {codec}: {problem}" for codec, problem in report.codecs.items() if problem is not None)
            named = "" if report.name in AUTO else "; used only where it is named"
            yield Finding("video", "ok", f"{name} reads {', '.join(works)}{rest}{named}")
        elif report.version is None:
            yield Finding("video", "note", f"{name} is not installed")
        else:
            yield Finding("video", "warning", report.problem.partition("; remedy: ")[0], _remedy(report.problem))
    for codec in reports[0].codecs:
        problems = {r.name: r.codecs[codec] for r in reports}
        readers = [name for name in AUTO if problems.get(name, "unknown") is None]
        untried = all("not tried" in (problem or "") for problem in problems.values())
        if not readers and not untried:
            said = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            yield Finding("video", "broken", f"no backend reads {codec} ({said})", "pip install 'av>=15,<16'")
    yield from _qwen_vl_utils({r.name: r.problem is None and r.version is not None for r in reports})


def _remedy(problem: str) -> str:
    return problem.partition("; remedy: ")[2] or "use another backend: sample_frames(..., backend='pyav')"


def _qwen_vl_utils(working: dict[str, bool]) -> Iterator[Finding]:
    """Other programs in this environment decode through qwen-vl-utils, which takes torchcodec if merely installed."""
    ffmpeg = shutil.which("ffmpeg")
    yield Finding("video", "note", f"ffmpeg command: {ffmpeg or 'none (not needed by this package)'}")
    forced = os.environ.get("FORCE_QWENVL_VIDEO_READER")
    if installed_version("torchcodec") and not working.get("torchcodec") and forced is None:
        yield Finding(
            "video",
            "warning",
            "qwen-vl-utils would choose torchcodec, which is installed but does not work here, and fall back to a "
            "reader that torchvision no longer has (this package does not use it; lmms-eval's own models do)",
            "export FORCE_QWENVL_VIDEO_READER=decord",
        )


def check_devices() -> Iterator[Finding]:
    """GPUs and attention kernels."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            memory = properties.total_memory / 2**30
            kind = f"{properties.name}, {memory:.0f} GiB, compute capability {properties.major}.{properties.minor}"
            yield Finding("devices", "ok", f"GPU {index}: {kind}, CUDA {torch.version.cuda}")
    elif Path("/dev/nvidia0").exists():
        yield Finding(
            "devices",
            "broken",
            f"there is an NVIDIA device, which torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use",
            "install a torch build that fits the driver: https://pytorch.org/get-started",
        )
    else:
        yield Finding("devices", "note", "no GPU: processors, the demo and all tests run; full-size models need one")
    yield from _kernels(torch.cuda.is_available())


def _kernels(gpu: bool) -> Iterator[Finding]:
    version = installed_version("flash-attn")
    if version is None:
        text = "flash-attn is not installed"
        if gpu:
            text += ": vision attention loops over the frames of a video, and prompts of 14k tokens take more memory"
            yield Finding("devices", "warning", text, "pip install flash-attn --no-build-isolation")
        else:
            yield Finding("devices", "note", f"{text}, which matters on a GPU only")
    else:
        try:
            importlib.import_module("flash_attn")
        except (ImportError, OSError) as error:
            remedy = "reinstall it for this torch: pip install --force-reinstall --no-build-isolation flash-attn"
            yield Finding("devices", "broken", f"flash-attn {version} cannot be imported: {error}", remedy)
        else:
            yield Finding("devices", "ok", f"flash-attn {version}")


def check_lmms_eval() -> Iterator[Finding]:
    """Whether lmms-eval finds this package, where it is installed."""
    if installed_version("lmms_eval") is None:
        return
    points = importlib.metadata.entry_points(group="lmms_eval.models")
    if not any(point.value.startswith("timelens_plugins.") for point in points):
        yield Finding(
            "lmms-eval",
            "broken",
            "lmms-eval does not find this package: its entry point is not registered",
            REINSTALL,
        )
        return
    try:
        tasks = sorted(path.name for path in shipped_folder("tasks").iterdir() if path.is_dir() and path.name[0] != "_")
    except FileNotFoundError as error:
        yield Finding("lmms-eval", "broken", str(error), REINSTALL)
    else:
        yield Finding("lmms-eval", "ok", f"model and task groups are registered: {', '.join(tasks)}")
