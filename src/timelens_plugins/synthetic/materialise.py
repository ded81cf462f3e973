"""Names of synthetic data and models in a configuration, and the files they stand for.

A recipe's setting that takes a path also takes a name that begins with ``synthetic:``, so that its tiny configuration
runs from a clean clone without a download::

    synthetic:qwen3_vl                      a tiny random checkpoint of the family
    synthetic:qwen2_5_vl,seed=1
    synthetic:base                          the demo's base model, which comes with the package
    synthetic:training_set                  annotations in TimeLens-100K's format, videos beside them
    synthetic:training_set,clips=4,seed=0   four clips of each of the three kinds
    synthetic:benchmark,clips=2             annotations and videos in TimeLens-Bench's layout
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from timelens_plugins.synthetic.benchmark import write_benchmark, write_training_set

__all__ = ["PREFIX", "materialise"]

PREFIX = "synthetic:"

_BASE = "base"
_DATA: dict[str, Callable[..., Path]] = {"training_set": write_training_set, "benchmark": write_benchmark}
_DATA_OPTIONS = ("clips", "seed", "queries", "size")


def materialise(name: str, folder: str | Path) -> str:
    """The path of what ``name`` stands for, made under ``folder`` where it is not there yet; any other name as it is.

    The same name always gives the same content. Several processes may ask for the same name at the same time, of one
    run or of several: each makes it, and the first to be done gives it its name. A run that was interrupted is
    continued.

    Args:
        name: a path or a hub name, returned unchanged, or one that begins with ``synthetic:``.
        folder: where to make synthetic things; created where missing.

    Raises:
        ValueError: an unknown synthetic name or option.
    """
    if not name.startswith(PREFIX):
        return name
    kind, *pairs = name[len(PREFIX) :].split(",")
    if kind == _BASE and not pairs:
        from timelens_plugins.synthetic.grounder import BASE_CHECKPOINT

        return str(BASE_CHECKPOINT)
    if kind not in _DATA and kind not in (models := _models()):
        raise ValueError(f"unknown synthetic name {name!r}; known: {', '.join((*models, _BASE, *_DATA))}")
    allowed = _DATA_OPTIONS if kind in _DATA else ("seed",)
    options: dict[str, int] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key not in allowed or not value.isdecimal():
            raise ValueError(f"{name!r}: {pair!r} is not one of {', '.join(f'{key}=NUMBER' for key in allowed)}")
        options[key] = int(value)
    target = Path(folder) / "-".join([kind, *(f"{key}{value}" for key, value in sorted(options.items()))])
    if kind in _DATA:
        return str(_DATA[kind](target, progress=False, **options))
    return str(_checkpoint(target, kind, **options))


def _models() -> tuple[str, ...]:
    from timelens_plugins.families.tiny import Family

    return get_args(Family)


def _checkpoint(target: Path, family: str, seed: int = 0) -> Path:
    """Complete under another name first: a folder that has the name is a whole checkpoint."""
    from timelens_plugins.families.tiny import save_checkpoint

    if target.is_dir():
        if not (target / "config.json").is_file():
            raise ValueError(f"{target} is not a whole checkpoint: delete it, and it is made again")
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        save_checkpoint(partial, family, seed=seed)  # type: ignore[arg-type]
        partial.chmod(0o755)
        os.rename(partial, target)
    except OSError:
        if not target.is_dir():  # another process was first
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target
