"""In what a run differs from the official protocol, read from what lmms-eval recorded of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timelens_plugins.leaderboard.published import Protocol
from timelens_plugins.renamed import RENAMED
from timelens_plugins.results.json_files import read_json
from timelens_plugins.results.lmms_eval import Record

__all__ = ["UNRECORDED", "limit_of", "protocol_differences", "protocol_notes"]

OUR_MODEL = "timelens"
UNRECORDED = "settings not recorded"
"""How the difference begins that says that nothing is known; ``assume_protocol`` waives it."""

# Arguments of the model `timelens` that choose the model or the machine, not the protocol.
FREE = frozenset(
    (
        *("pretrained", "revision", "encoding", "on_bad_video", "journal", "video_backend", "clip_workers"),
        *(
            "device",
            "device_map",
            "dtype",
            "attn_implementation",
            "batch_frames",
            "batch_size",
            "max_batch_size",
            "max_rows",
        ),
        *("share_prefix", "cache", "cache_gb"),
        *RENAMED,  # results of earlier releases
    )
)


def limit_of(record: Record) -> float | None:
    """The ``--limit`` of an evaluation; None where all was answered, which -1 means, too."""
    limit: float | None = record.content["config"].get("limit")
    return None if limit == -1 else limit


def protocol_differences(record: Record, task: str, protocol: Protocol) -> list[str]:
    """What of an evaluation is not as in the protocol, one phrase each."""
    found: list[str] = []
    config = record.content["config"]
    model = str(config.get("model"))
    if model == OUR_MODEL:
        found += _settings(record.arguments, protocol)
    else:
        found.append(f"{UNRECORDED}: frame sampling and prompt of the model {model!r} are not known here")
    found += _generation(record.generation(task), protocol)
    if (limit := limit_of(record)) is not None:
        found.append(f"--limit {limit}")
    if config.get("offset"):
        found.append(f"--offset {config['offset']}")
    return found


def _settings(arguments: Mapping[str, Any], protocol: Protocol) -> list[str]:
    found = []
    for name, value in arguments.items():
        if name in FREE or (name == "thinking" and str(value).lower() == "false"):
            continue
        if name not in protocol.settings:
            found.append(f"{name}={value}, a setting unknown here")
        elif not _equal(value, protocol.settings[name]):
            official = protocol.settings[name]
            usual = "" if official is None else f" instead of {_short(official)}"
            found.append(f"{name}={_short(value)}{usual}")
    return found


def _generation(given: Mapping[str, Any], protocol: Protocol) -> list[str]:
    temperature = given.get("temperature") or 0
    sampled = bool(given.get("do_sample")) and not _equal(temperature, 0.0)
    found = [f"sampled answers (temperature {_short(temperature)})"] if sampled else []
    tokens = given.get("max_new_tokens", protocol.generation["max_new_tokens"])
    if tokens != protocol.generation["max_new_tokens"]:
        found.append(f"max_new_tokens={tokens} instead of {protocol.generation['max_new_tokens']}")
    if (given.get("num_beams") or 1) != 1:
        found.append(f"num_beams={given['num_beams']}")
    if given.get("repetition_penalty") is not None:
        found.append(f"repetition_penalty={given['repetition_penalty']} instead of the checkpoint's")
    return found


def protocol_notes(record: Record) -> list[str]:
    """Settings that the protocol leaves to the model, where they were set by hand."""
    if record.content["config"].get("model") != OUR_MODEL:
        return []
    arguments = record.arguments
    notes = [f"{name}={arguments[name]}" for name in ("encoding", "on_bad_video") if name in arguments]
    if "encoding" not in arguments and (saved := _saved_encoding(str(arguments.get("pretrained", "")))):
        notes.append(f"encoding={saved}, as the checkpoint says today")
    return notes


def _saved_encoding(checkpoint: str) -> str:
    """The time encoding that a checkpoint on this machine was saved with; ``""`` where that cannot be told."""
    path = Path(checkpoint) / "processor_config.json"
    try:
        content = read_json(path) if checkpoint and path.is_file() else None
    except (OSError, ValueError):
        return ""
    found = content.get("encoding") if isinstance(content, dict) else None
    return found if isinstance(found, str) else ""


def _equal(value: Any, official: Any) -> bool:
    if isinstance(official, int | float):
        try:
            return float(value) == float(official)
        except (TypeError, ValueError, OverflowError):
            return False
    return bool(value == official)


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"
