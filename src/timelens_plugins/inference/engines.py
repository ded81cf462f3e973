"""The engines by the names that settings use.

A further engine is a subclass of :class:`~timelens_plugins.inference.answering.Engine`, a line here, and a line where
evaluation and difficulty estimation build it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from timelens_plugins.locations import how_to_install

__all__ = ["ENGINES", "EngineNotInstalledError", "check_engine", "parse_engine_args"]

ENGINES: dict[str, tuple[str, ...]] = {
    "transformers": ("transformers",),
    "vllm": ("vllm", "accelerate"),
    "api": ("httpx", "PIL"),
}
"""Name -> modules that have to be installed."""


class EngineNotInstalledError(ImportError):
    """An engine whose packages are not there."""


def check_engine(name: str) -> None:
    """Look at the name of an engine before any work.

    Raises:
        ValueError: there is no such engine.
        EngineNotInstalledError: what it needs is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if missing := [module for module in ENGINES[name] if importlib.util.find_spec(module) is None]:
        remedy = "install vLLM for your GPU, see docs/engines.md"
        if "vllm" not in missing:
            remedy = f"which is in 'eval': {how_to_install('eval')}"
        raise EngineNotInstalledError(f"engine={name} needs {', '.join(missing)}, {remedy}")


def parse_engine_args(text: str | None) -> dict[str, Any]:
    """The options of an engine as lmms-eval writes its ``--model_args``: ``base_url=http://localhost:8000/v1,preset=gpt``.

    >>> parse_engine_args("preset=gpt,concurrency=8")
    {'preset': 'gpt', 'concurrency': 8}

    Raises:
        ValueError: an entry that is no ``name=value``, or a name twice.
    """
    import yaml  # not there on a base install, whose commands still tell their options

    options: dict[str, Any] = {}
    for entry in (text or "").split(","):
        if not entry.strip():
            continue
        name, sign, value = entry.strip().partition("=")
        if not sign or name in options:
            raise ValueError(f"engine_args must be name=value, each name once, joined by commas; got {entry!r}")
        options[name] = yaml.safe_load(value)
    return options
