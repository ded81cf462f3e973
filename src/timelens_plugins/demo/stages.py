"""Which stages of a run are done, and what they cost: a file each, so that a killed run continues."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timelens_plugins.atomic import write_whole

__all__ = ["Cost", "Stages"]


@dataclass(frozen=True)
class Cost:
    """What a stage took.

    Attributes:
        seconds: on the clock, of its last start.
        cpu_seconds: of all its processes, of its last start.
        starts: how often it was begun; above 1, earlier starts were interrupted and are not counted in the others.
    """

    seconds: float
    cpu_seconds: float
    starts: int = 1


class Stages:
    """The stages of one run, in the order they are asked for.

    Args:
        folder: of the stages' files.
        settings: on which everything depends.

    Raises:
        ValueError: the folder holds a run with other settings, or lies in a folder that somebody else filled.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.costs: dict[str, Cost] = {}
        path = folder / "settings.json"
        if not path.exists():
            if folder.parent.is_dir() and any(entry != folder for entry in folder.parent.iterdir()):
                raise ValueError(f"{folder.parent} is not empty and holds no run of the demo: choose another --output")
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, settings)
        present = _read(path)
        if present != json.loads(json.dumps(settings)):
            changed = sorted(k for k in present.keys() | settings.keys() if present.get(k) != settings.get(k))
            raise ValueError(f"{folder.parent} holds a run with another {', '.join(changed)}: choose another --output")

    def run(
        self, name: str, work: Callable[[], None], said: Callable[[str], None] = print, *, product: Path | None = None
    ) -> Cost:
        """Do the work unless it is done and its product, if one is named, is there; and keep what it cost."""
        path = self.folder / f"{name}.json"
        before = _read(path) if path.exists() else {"starts": 0}
        if before.get("done") and (product is None or product.exists()):
            cost = Cost(before["seconds"], before["cpu_seconds"], before["starts"])
            said(f"{name}: done before in {cost.seconds:.0f} s")
        else:
            starts = before["starts"] + 1
            said(f"{name} …" if starts == 1 else f"{name}: continued …")
            _write(path, {"starts": starts})
            clock, cpu = time.perf_counter(), _cpu_seconds()
            work()
            cost = Cost(time.perf_counter() - clock, _cpu_seconds() - cpu, starts)
            _write(path, {"done": True, **vars(cost)})
            said(f"{name}: {cost.seconds:.0f} s")
        self.costs[name] = cost
        return cost


def _cpu_seconds() -> float:
    """Of this process and of all its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); delete it to do its stage again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not an object; delete it to do its stage again")
    return content


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
