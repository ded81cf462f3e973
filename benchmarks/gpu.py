"""All that a GPU has to say about this package, in one run of less than nine minutes.

    python benchmarks/gpu.py --output gpu.json
    PYTHONPATH=src python benchmarks/gpu.py --output gpu.json          # from a clone, where nothing is installed
    python benchmarks/gpu.py --size toy --output toy.json              # on any machine, in seconds

Nothing is downloaded: random weights in bf16, in the shapes of Qwen3-VL-8B and Qwen3.5-9B, made on the GPU. PyTorch and
transformers are enough; what else is there (flash attention, flash-linear-attention, causal-conv1d, DeepSpeed) is used
and named in the output. Per model, with as many of its layers as fit the memory with their gradients:

- *decode*: the answers about many videos together against one alone, beside the cost of a prefill;
- *training*: forward and backward, shared against plain, for 4k, 8k and 14k prompt tokens, 8 and 16 completions, one
  and four queries of a video;
- *step*: rollout and training together, with the prompt computed twice and once (``keep_prefill``);
- *rollout*: vision, prefill and sampling by themselves, shared against plain;
- *noise*: log-probs of shared against plain, and of training against sampling; cosines of gradients;
- *vision*: the tower with the shortcuts of ``accelerate_vision`` against as it is;
- training, rollout and noise again with flash attention, and a step under DeepSpeed.

The language model and the mergers are trained, the tower is frozen, layers are checkpointed. There is no optimizer but
in the section on DeepSpeed: with its state in fp32 an 8B model does not fit one GPU.

Each section has a share of ``--seconds``. What there is no time for, what does not fit and what fails is named in the
table and in the JSON, and the rest goes on. The JSON is written whenever a case is done.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

import gpu_sections as sections
import torch
from gpu_measuring import Bench, Record, described
from gpu_models import REAL, TOY, build, fitting
from transformers.utils import is_flash_attn_2_available, logging

SIZES = {
    "real": sections.Size(REAL, (14336, 4096, 8192), (8, 16), (1, 4), 24, (4, 16), rounds=2, deepspeed_layers=4),
    "toy": sections.Size(TOY, (240, 160), (3,), (1, 2), 3, (2,), rounds=1, deepspeed_layers=4),
}
Section = Callable[[Bench, Any, sections.Size], None]
SECTIONS: dict[str, tuple[Section, float]] = {
    "decode": (sections.decode, 0.08),
    "training": (sections.training, 0.25),
    "step": (sections.step, 0.07),
    "rollout": (sections.rollout, 0.10),
    "noise": (sections.noise, 0.06),
    "vision": (sections.vision, 0.05),
}
"""Sections of a model, and their shares of the time; of further models and other attention, half of it."""

AGAIN = ("training", "rollout", "noise")
KERNELS = ("triton", "flash-attn", "flash-linear-attention", "causal-conv1d", "deepspeed")
PACKAGES = ("torch", "transformers", "timelens-plugins", *KERNELS)
GRACE = 20.0  # seconds after which a run that hangs is ended


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="real")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON of all results")
    parser.add_argument("--seconds", type=float, default=490.0, help="of the whole run, start-up not counted")
    parser.add_argument("--models", nargs="+", choices=list(REAL), default=list(REAL))
    parser.add_argument("--sections", nargs="+", choices=[*SECTIONS, "deepspeed"], default=[*SECTIONS, "deepspeed"])
    args = parser.parse_args(arguments)
    cuda = torch.cuda.is_available()
    if args.size == "real" and not cuda:
        parser.error("there is no GPU here that torch can use; --size toy runs anywhere")
    logging.set_verbosity_error()
    size, device = SIZES[args.size], torch.device("cuda" if cuda else "cpu")
    record = Record(args.output, {"size": args.size, "seconds": args.seconds, "machine": machine(device)})
    record.save()
    run = Run(record, size, device, args.seconds)
    watch = threading.Timer(args.seconds + GRACE, give_up, [record])
    watch.daemon = True
    watch.start()
    try:
        for name in args.models:
            run.model(name, [s for s in SECTIONS if s in args.sections])
        if "deepspeed" in args.sections:
            run.deepspeed(args.models[0])
    finally:
        watch.cancel()
    print(table(record.found))
    return 0


class Run:
    """The sections one after the other, each within its time."""

    def __init__(self, record: Record, size: sections.Size, device: torch.device, seconds: float) -> None:
        self.record, self.size, self.device, self.seconds = record, size, device, seconds
        self.end = time.monotonic() + seconds

    def model(self, name: str, wanted: list[str]) -> None:
        """All sections of a model, with both kinds of attention."""
        flash, model, missing = "flash_attention_2", None, ""
        shape = self.size.shapes[name]
        layers = shape.text.layers
        if self.end > time.monotonic():
            try:
                if self.device.type == "cuda":
                    shape = fitting(shape, torch.cuda.get_device_properties(0).total_memory)
                model = build(shape, self.device)
            except Exception as error:
                traceback.print_exc()
                missing = f"model not built: {described(error)}"
        for attention, names in {"sdpa": wanted, flash: [s for s in wanted if s in AGAIN]}.items():
            where = {"model": name, "layers": f"{shape.text.layers} of {layers}", "attention": attention}
            if attention == flash and not missing and model is not None:
                if self.device.type == "cuda" and is_flash_attn_2_available():
                    model.set_attn_implementation(flash)
                else:
                    missing = "skipped: flash-attn is not there"
            for section in names:
                function, share = SECTIONS[section]
                first = attention == "sdpa" and name == next(iter(self.size.shapes))
                self.section(section, where, share * (1 if first else 0.5), missing, function, model)
                if model is not None:
                    model.zero_grad(set_to_none=True)

    def deepspeed(self, name: str) -> None:
        """The section that has models of its own."""
        missing = "" if importlib.util.find_spec("deepspeed") else "skipped: deepspeed is not there"
        where = {"model": name, "layers": f"{self.size.deepspeed_layers}", "attention": "sdpa"}
        self.section("deepspeed", where, 0.1, missing, sections.deepspeed_step, self.size.shapes[name])

    def section(
        self, name: str, where: Mapping[str, Any], share: float, missing: str, function: Section, subject: Any
    ) -> None:
        """One section: done, skipped or failed, and in all cases named."""
        full = f"{where['model']}, {where['attention']}, {name}"
        until = min(time.monotonic() + share * self.seconds, self.end)
        if missing or until <= time.monotonic():
            self.record.section(full, missing or "skipped: no time left")
            return
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        started = time.monotonic()
        bench = Bench(self.record, self.device, until, self.size.rounds, {**where, "section": name})
        try:
            function(bench, subject, self.size)
            status = "done"
        except torch.OutOfMemoryError:
            status = "does not fit"
        except TimeoutError as error:
            status = f"not finished: {error}"
        except Exception as error:
            traceback.print_exc()
            status = described(error)
        self.record.section(full, f"{status} ({time.monotonic() - started:.0f} s)")
        print(f"{full}: {status}", file=sys.stderr, flush=True)


def give_up(record: Record) -> None:
    """End a run that hangs, with what it has."""
    record.section("the run", f"ended {GRACE:.0f} s after its time: what ran then has no result")
    print(table(record.found), flush=True)
    os._exit(3)


def machine(device: torch.device) -> dict[str, Any]:
    """What ran, where and when."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    about: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": "cpu",
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "device": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return about


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def table(found: Mapping[str, Any]) -> str:
    """All of it for people."""
    about = found["machine"]
    packages = ", ".join(f"{name} {version or 'missing'}" for name, version in about["packages"].items())
    lines = [f"{about['device']}, {about.get('memory_gib', '-')} GiB, driver {about.get('driver')}; {packages}"]
    last = None
    for row in found["results"]:
        head = f"{row['model']} ({row['layers']} layers), {row['attention']}, {row['section']}"
        if head != last:
            lines += ["", head]
            last = head
        case = " ".join(str(row[name]) for name in ("prompt_tokens", "part") if name in row)
        line = f"  {case:28}{row['way']:50}"
        if "seconds" in row:
            faster = "; ".join(f"{ratio:.2f}x {name}" for name, ratio in row["faster_than"].items())
            memory = "" if row["peak_gib"] is None else f"{row['peak_gib']:8.1f} GiB"
            once = "" if len(row["runs"]) > 1 else " (one run, not warmed up)"
            line += f"{row['seconds']:9.3f} s{memory}  {faster}{once}"
        elif "values" in row:
            line += "  ".join(f"{name} {value:g}" for name, value in row["values"].items())
        else:
            line += row["status"]
        lines.append(line.rstrip())
    lines += ["", *(f"{name}: {value:.2f}" for name, value in found["figures"].items())]
    lines += ["", *(f"{name}: {status}" for name, status in found["sections"].items())]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
