"""Which releases this package was tested with, and what is installed: needs no package but this one."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from timelens_plugins.inspection.findings import Finding
from timelens_plugins.locations import how_to_install

__all__ = ["PACKAGES", "PARTS", "Tested", "check_imports", "check_versions", "installed_version"]

PARTS = {
    "video": "prompts and videos",
    "eval": "evaluation in lmms-eval",
    "train": "training with TRL",
    "gpu": "GPU kernels and servers",
}
"""Extras of this package, and what they are for."""


@dataclass(frozen=True)
class Tested:
    """Releases of one package that the tests ran with.

    Attributes:
        part: the extra that needs it.
        lowest: oldest release tested; older ones are refused.
        newest: newest release tested.
        below: the first release that is refused, where private names of the package are relied on.
        module: what is imported to see whether it works; "" for nothing.
        optional: the part works without it.
    """

    part: str
    lowest: str = "0"
    newest: str = ""
    below: str = ""
    module: str = ""
    optional: bool = False


PACKAGES: dict[str, Tested] = {
    "torch": Tested("video", "2.13", "2.15", module="torch"),
    "torchvision": Tested("video", "0.28", "0.29", module="torchvision"),
    "transformers": Tested("video", "5.16", "5.24", "5.25", module="transformers.generation"),
    "qwen-vl-utils": Tested("video", "0.0.14", "0.0.14", "0.0.15"),
    "pillow": Tested("video", "11", "13", module="PIL.Image"),
    "psutil": Tested("video", "7", "7.2", module="psutil"),
    "av": Tested("video", "15", "15.1", "16", module="av"),
    "decord": Tested("video", "0.6", "0.6", module="decord", optional=True),
    "torchcodec": Tested("video", "0.10", "0.17", optional=True),
    "lmms-eval": Tested("eval", "0.7.3", "0.7.3", "0.8", module="lmms_eval.evaluator"),
    "filelock": Tested("eval", "3.16", "4.2", "4.3"),
    "huggingface-hub": Tested("eval", "1.5", "2.4", module="huggingface_hub"),
    "accelerate": Tested("train", "1.10", "1.15", module="accelerate"),
    "trl": Tested("train", "1.7", "1.16", "1.17", module="trl.trainer.grpo_trainer"),
    "peft": Tested("train", "0.18", "0.21", module="peft"),
    "datasets": Tested("train", "4.7", "5.2", module="datasets"),
    "flash-attn": Tested("gpu", optional=True),
    "vllm": Tested("gpu", optional=True),
}
"""In the order they are shown."""

_MARKS = {
    "video": ("torch", "transformers"),
    "eval": ("lmms-eval",),
    "train": ("trl",),
    "gpu": (),
}  # of an extra asked for
_PYTHON = ((3, 11), (3, 13))


def installed_version(package: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_versions() -> Iterator[Finding]:
    """Python, and each package beside the releases it was tested with."""
    area = "versions"
    own = installed_version("timelens-plugins") or "not installed as a package"
    said = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, timelens-plugins {own}"
    lowest, newest = (f"{major}.{minor}" for major, minor in _PYTHON)
    if sys.version_info[:2] > _PYTHON[1]:
        yield Finding(area, "warning", f"{said}; tested up to Python {newest}", f"use Python {lowest} to {newest}")
    else:
        yield Finding(area, "ok", said)
    found = {name: installed_version(name) for name in PACKAGES}
    for part, purpose in PARTS.items():
        members = [name for name, tested in PACKAGES.items() if tested.part == part]
        remedy = how_to_install(part)
        wanted = any(found[name] for name in _MARKS[part])
        if not wanted and _MARKS[part]:
            yield Finding(area, "note", f"{purpose}: not installed ({remedy})")
        for name in members:
            tested, version = PACKAGES[name], found[name]
            if version is not None:
                yield _compared(name, version, tested, remedy)
            elif wanted and not tested.optional:
                yield Finding(area, "broken", f"{name} is not installed, which {purpose} needs", remedy)
            elif wanted or not _MARKS[part]:
                yield Finding(area, "note", f"{name} is not installed (optional)")


def _compared(name: str, version: str, tested: Tested, remedy: str) -> Finding:
    area, text = "versions", f"{name} {version}"
    if not tested.newest:
        return Finding(area, "ok", f"{text} (the tests do not cover it)")
    span = tested.newest if tested.lowest == tested.newest else f"{tested.lowest} to {tested.newest}"
    release = _release(version)
    if release < _release(tested.lowest) or (tested.below and release >= _release(tested.below)):
        return Finding(area, "broken", f"{text}: refused; tested with {span}", remedy)
    newest = _release(tested.newest)
    if release[: len(newest)] > newest:
        return Finding(area, "warning", f"{text} is newer than what was tested, {span}", remedy)
    return Finding(area, "ok", f"{text} (tested with {span})")


def _release(version: str) -> tuple[int, ...]:
    """``5.24.0rc1+cpu`` -> (5, 24, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(n) for n in match.group().split(".")) if match else ()


_IMPORTER = """
import importlib, json, sys, traceback
for module in sys.argv[1:]:
    print(json.dumps([module]), file=sys.__stdout__, flush=True)
    try:
        importlib.import_module(module)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        print(json.dumps([module, said]), file=sys.__stdout__, flush=True)
"""


def check_imports() -> Iterator[Finding]:
    """Whether what is installed can be imported, tried in another process: some abort the interpreter."""
    waiting = {t.module: name for name, t in PACKAGES.items() if t.module and installed_version(name) is not None}
    names = list(waiting.values())
    broken = 0
    while waiting:
        faults, reached, ended = _import(list(waiting))
        for module, fault in faults.items():
            broken += 1
            yield _unusable(waiting[module], fault)
        if ended is None or not reached:
            break
        if reached[-1] not in faults:
            broken += 1
            yield _unusable(waiting[reached[-1]], ended)
        waiting = {module: name for module, name in waiting.items() if module not in reached}
    if names and not broken:
        yield Finding("imports", "ok", f"{', '.join(names)} can be imported")


def _unusable(name: str, fault: str) -> Finding:
    remedy = f"reinstall it: pip install --force-reinstall --no-deps {name}; or start from a fresh environment"
    return Finding("imports", "broken", f"{name} {installed_version(name)} cannot be imported: {fault}", remedy)


def _import(modules: list[str]) -> tuple[dict[str, str], list[str], str | None]:
    """What failed and why, what was reached, and how the process ended where it did not reach the end."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _IMPORTER, *modules], capture_output=True, text=True, errors="replace", timeout=600
        )
        output, ended = done.stdout, None if done.returncode == 0 else f"the interpreter ended with {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ended = _text(error.stdout), "it takes more than ten minutes"
    faults: dict[str, str] = {}
    reached: list[str] = []
    for line in output.splitlines():
        try:
            module, *fault = json.loads(line)
        except (ValueError, TypeError):
            continue  # what a package prints while it is imported
        if module not in modules:
            continue
        if fault:
            faults[module] = str(fault[0]).strip().splitlines()[0]
        else:
            reached.append(module)
    return faults, reached, ended


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
