"""Prints the lowest version that pyproject.toml allows of each requirement, as constraints for ``make test-oldest``.

Not ``uv --resolution lowest-direct``: that moves a bound up, silently, where it does not fit what was chosen first.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement


def lowest() -> list[str]:
    """``name==version`` for each requirement with a lower bound."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    texts = [*project["dependencies"], *(text for name, extra in extras.items() if name != "gpu" for text in extra)]
    pinned = set()
    for requirement in map(Requirement, texts):
        for specifier in requirement.specifier:
            if specifier.operator in (">=", "=="):
                pinned.add(f"{requirement.name}=={specifier.version}")
    return sorted(pinned)


if __name__ == "__main__":
    print("\n".join(lowest()))
