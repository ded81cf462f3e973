"""Whether the names of other packages that are relied on are in the installed releases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from timelens_plugins.inspection.findings import Finding
from timelens_plugins.inspection.versions import installed_version
from timelens_plugins.upstream import Name, deepspeed, differences, lmms_eval, transformers, vllm

__all__ = ["NAMES", "check_relied_on"]

NAMES: Mapping[str, tuple[str, tuple[Name, ...]]] = {
    "transformers": (
        transformers.SUPPORTED,
        transformers.PROCESSORS
        + transformers.GENERATION
        + transformers.FAMILIES
        + transformers.LINEAR_ATTENTION
        + transformers.SAVING
        + transformers.RESUMING
        + transformers.ADAPTERS,
    ),
    "lmms-eval": (lmms_eval.SUPPORTED, lmms_eval.REGISTRY + lmms_eval.COMMAND),
    "deepspeed": (deepspeed.SUPPORTED, deepspeed.ZERO3),
    "vllm": (vllm.SUPPORTED, vllm.PROMPT_IDS + vllm.ENGINE + vllm.WEIGHTS),
}
"""Supported releases and names of each package; those of TRL are in ``grpo/upstream.py``."""


def check_relied_on() -> Iterator[Finding]:
    """A line for every package that is installed: its release, and which of the names are not as expected."""
    for package, (supported, names) in NAMES.items():
        yield from _compared(package, supported, len(names), partial(differences, names))
    yield from _trl()


def _trl() -> Iterator[Finding]:
    if installed_version("trl") is None:
        return
    from trl.trainer import grpo_trainer

    from timelens_plugins.grpo import upstream

    count = len(upstream.METHODS) + len(upstream.ATTRIBUTES) + len(upstream.HOOKS)
    yield from _compared("trl", upstream.SUPPORTED, count, partial(upstream.differences, grpo_trainer))


def _compared(package: str, supported: str, count: int, compare: Callable[[], list[str]]) -> Iterator[Finding]:
    if (version := installed_version(package)) is None:
        return
    area = "names relied on"
    if found := compare():
        text = f"{package} {version}: {len(found)} of {count} are not as expected: {'; '.join(found)}"
        yield Finding(area, "broken", text, f"install a release from {supported}")
    else:
        yield Finding(area, "ok", f"{package} {version}: all {count}")
