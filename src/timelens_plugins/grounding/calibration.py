"""From agreement to confidence: how often moments of that agreement are right, as measured for one checkpoint.

Agreement alone is no probability: models that were trained by rewards agree with themselves whether they are right or
not. So a checkpoint has a confidence only where ``benchmarks/confidence.py`` measured it and left a file beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from timelens_plugins.atomic import write_whole

__all__ = ["CALIBRATION_FILE", "RIGHT", "Calibration", "fit_calibration", "read_calibration", "write_calibration"]

CALIBRATION_FILE = "confidence.json"
"""In a checkpoint's folder."""

RIGHT = 0.5
"""IoU with the truth from which on a moment is right, as in R1@0.5."""

_RIDGE = 0.1  # keeps the slope finite where agreement tells right from wrong without an exception


@dataclass(frozen=True)
class Calibration:
    """``confidence = 1 / (1 + exp(-(intercept + slope * agreement)))``: Platt's scaling.

    Attributes:
        answers, temperature: what agreement was measured with; it says nothing for other values.
        intercept, slope: of the log-odds.
        moments: how many it was measured on.
    """

    answers: int
    temperature: float
    intercept: float
    slope: float
    moments: int

    def confidence(self, agreement: float) -> float:
        """The chance that a moment of this agreement is right."""
        return 1 / (1 + math.exp(-(self.intercept + self.slope * agreement)))


def fit_calibration(agreement: Sequence[float], right: Sequence[bool], answers: int, temperature: float) -> Calibration:
    """The calibration of the greatest likelihood, by Newton's method.

    Raises:
        ValueError: all moments are right, or none is.
    """
    x, y = np.asarray(agreement, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not 0 < y.sum() < len(y):
        raise ValueError(f"{int(y.sum())} of {len(y)} moments are right: there is nothing to tell apart")
    design = np.stack([np.ones_like(x), x], axis=1)
    weights = np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-design @ weights))
        gradient = design.T @ (y - chance) - np.array([0.0, _RIDGE]) * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag([0.0, _RIDGE])
        weights = weights + np.linalg.solve(curvature, gradient)
    return Calibration(answers, temperature, float(weights[0]), float(weights[1]), len(y))


def write_calibration(calibration: Calibration, folder: str | Path) -> None:
    """Leave it in a checkpoint's folder."""
    write_whole(Path(folder) / CALIBRATION_FILE, json.dumps(asdict(calibration), indent=1) + "\n")


def read_calibration(folder: str | Path) -> Calibration | None:
    """That of a checkpoint's folder; None where there is none.

    Raises:
        ValueError: the file is something else.
    """
    path = Path(folder) / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    names = {field.name for field in fields(Calibration)}
    if not isinstance(content, dict) or set(content) != names:
        raise ValueError(f"{path}: expected an object with {', '.join(sorted(names))}")
    if bad := [n for n, v in content.items() if isinstance(v, bool) or not isinstance(v, int | float)]:
        raise ValueError(f"{path}: field '{bad[0]}' must be a number, got {content[bad[0]]!r}")
    return Calibration(**content)
