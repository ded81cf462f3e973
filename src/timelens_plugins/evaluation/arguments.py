"""Values of ``--model_args`` as lmms-eval hands them over, and what is wrong with them, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timelens_plugins.video import open_cache
from timelens_plugins.video.backends import preference

__all__ = ["as_flag", "as_number", "as_whole", "check_filled", "clip_options"]


def as_flag(name: str, value: object) -> bool:
    """A truth value as lmms-eval's argument strings give it."""
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError(f"{name} must be true or false, got {value!r}")


def as_number(name: str, value: Any) -> float:
    """A number; its range is up to who takes it."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None


def as_whole(name: str, value: Any) -> int:
    """A whole number of at least 1; nothing is cut off one that is not."""
    number = as_number(name, value)
    if isinstance(value, bool) or not 1 <= number < float("inf") or number != int(number):
        raise ValueError(f"{name} must be a positive whole number, got {value!r}")
    return int(number)


def check_filled(options: Mapping[str, Any]) -> None:
    """Refuse a name without a value, as of ``journal=$UNSET``: an empty path is the working directory."""
    if empty := [name for name, value in options.items() if isinstance(value, str) and not value.strip()]:
        raise ValueError(f"{', '.join(empty)}: no value; is a variable unset? Leave the name out, or give it one")


def clip_options(
    video_backend: str, cache: str | None, cache_gb: float | None, clip_workers: int | None
) -> dict[str, Any]:
    """How clips are read, as every engine takes it; what is wrong is said before a model is loaded."""
    preference(video_backend)
    return {
        "clip_workers": None if clip_workers is None else as_whole("clip_workers", clip_workers),
        "video_backend": video_backend,
        "cache": open_cache(cache, None if cache_gb is None else as_number("cache_gb", cache_gb)),
    }
