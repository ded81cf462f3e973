"""In what a run differs from the official protocol, read from what lmms-eval recorded of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from timelens_plugins.leaderboard.published import Protocol

__all__ = ["UNRECORDED", "model_arguments", "protocol_differences", "protocol_notes"]

OUR_MODEL = "timelens"
UNRECORDED = "settings not recorded"
"""How the difference begins that says that nothing is known; ``assume_protocol`` waives it."""

# Arguments of the model `timelens` that choose the model or the machine, not the protocol.
FREE = frozenset(
    (
        *("pretrained", "revision", "encoding", "on_bad_video", "journal", "video_backend", "decoder_threads"),
        *("device", "device_map", "dtype", "attn_implementation", "batch_size", "max_batch_size", "share_prefill"),
    )
)


def model_arguments(given: object) -> dict[str, Any]:
    """``--model_args`` as a dictionary: lmms-eval records them as they were given, mostly as text."""
    if isinstance(given, Mapping):
        return dict(given)
    # A comma separates arguments where a name and "=" follow; elsewhere it belongs to a value.
    parts = re.split(r",(?=\s*\w+\s*=)", str(given or ""))
    return {name.strip(): value.strip() for name, found, value in (part.partition("=") for part in parts) if found}


def protocol_differences(config: Mapping[str, Any], task: Mapping[str, Any], protocol: Protocol) -> list[str]:
    """What of the run is not as in the protocol, one phrase each.

    Args:
        config: ``config`` of an lmms-eval results file.
        task: its ``configs`` entry of the task.
        protocol: the settings to compare with.
    """
    found: list[str] = []
    model = str(config.get("model"))
    if model == OUR_MODEL:
        found += _settings(model_arguments(config.get("model_args")), protocol)
    else:
        found.append(f"{UNRECORDED}: frame sampling and prompt of the model {model!r} are not known here")
    found += _generation(task.get("generation_kwargs") or {}, protocol)
    if config.get("limit") is not None:
        found.append(f"--limit {config['limit']}")
    if config.get("offset"):
        found.append(f"--offset {config['offset']}")
    return found


def _settings(arguments: Mapping[str, Any], protocol: Protocol) -> list[str]:
    found = []
    for name, value in arguments.items():
        if name in FREE:
            continue
        if name not in protocol.settings:
            found.append(f"{name}={value}, a setting unknown here")
        elif not _equal(value, protocol.settings[name]):
            official = protocol.settings[name]
            usual = "" if official is None else f" instead of {_short(official)}"
            found.append(f"{name}={_short(value)}{usual}")
    return found


def _generation(given: Mapping[str, Any], protocol: Protocol) -> list[str]:
    sampled = bool(given.get("do_sample")) and float(given.get("temperature") or 0) > 0
    found = [f"sampled answers (temperature {given['temperature']:g})"] if sampled else []
    tokens = given.get("max_new_tokens", protocol.generation["max_new_tokens"])
    if tokens != protocol.generation["max_new_tokens"]:
        found.append(f"max_new_tokens={tokens} instead of {protocol.generation['max_new_tokens']}")
    if (given.get("num_beams") or 1) != 1:
        found.append(f"num_beams={given['num_beams']}")
    if (given.get("repetition_penalty") or 1) != 1:
        found.append(f"repetition_penalty={given['repetition_penalty']}")
    return found


def protocol_notes(config: Mapping[str, Any]) -> list[str]:
    """Settings that the protocol leaves to the model, where they were set by hand."""
    arguments = model_arguments(config.get("model_args")) if config.get("model") == OUR_MODEL else {}
    return [f"{name}={arguments[name]}" for name in ("encoding", "on_bad_video") if name in arguments]


def _equal(value: Any, official: Any) -> bool:
    if isinstance(official, int | float):
        try:
            return float(value) == float(official)
        except (TypeError, ValueError):
            return False
    return bool(value == official)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
