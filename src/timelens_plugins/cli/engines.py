"""The arguments of every command that asks a model by any engine, and what it says where the model cannot be asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from timelens_plugins.inference.engines import ENGINES, EngineNotInstalledError, parse_engine_args

if TYPE_CHECKING:
    from timelens_plugins.quality.asking import ModelChoice

__all__ = ["add_engine", "chosen_model", "plain_faults"]

_ENGINE_FAULTS = (
    ("timelens_plugins.inference.api.endpoint", "EndpointError"),
    ("timelens_plugins.inference.api.endpoint", "RequestFailedError"),
    ("timelens_plugins.inference.vllm.model", "VllmError"),
    ("timelens_plugins.inference.vllm.parity", "ParityError"),
)
"""Looked for among the modules that are loaded: what raised one is."""


def add_engine(parser: argparse.ArgumentParser, what: str, *, required: bool) -> None:
    """``--engine``, ``--model``, ``--engine-args``."""
    parser.add_argument("--engine", choices=list(ENGINES), help="of --model (default: transformers)")
    parser.add_argument(
        "--model", required=required, help=f"{what}: checkpoint folder, hub id, or an endpoint's name for it"
    )
    parser.add_argument(
        "--engine-args",
        metavar="NAME=VALUE,…",
        help="as in lmms-eval's model_args: base_url=http://localhost:8000/v1,preset=gpt; or fps=2,dtype=bfloat16",
    )


def chosen_model(args: argparse.Namespace) -> ModelChoice:
    """What these arguments say."""
    from timelens_plugins.quality.asking import ModelChoice

    return ModelChoice(args.engine or "transformers", args.model, parse_engine_args(args.engine_args))


@contextmanager
def plain_faults() -> Iterator[None]:
    """An engine that is not installed, and an endpoint that cannot be used, are errors in one line."""
    try:
        yield
    except EngineNotInstalledError as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        known = [getattr(sys.modules.get(module), name, None) for module, name in _ENGINE_FAULTS]
        if any(fault is not None and isinstance(error, fault) for fault in known):
            raise ValueError(f"{error}; what was answered is kept, and the same command goes on") from error
        raise
