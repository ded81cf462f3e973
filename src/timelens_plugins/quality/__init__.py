"""The data-quality half of the method: what is wrong with annotations and videos, found, shown and mended.

    from timelens_plugins.quality import validate
    report = validate("val_2.json", videos="videos")
    print(report.table())

``validate`` finds what is broken whatever the model: fields, spans against real durations, missing, unreadable and
repeated videos, leakage between files. The others, by the names of their commands: ``auditing`` finds signs of label
errors, ``questioning`` asks a model for more of them, ``cleaning`` takes them at their word; ``reviews`` and
``review_page`` let people decide; ``annotate`` makes annotations; ``comparing`` holds benchmarks against one another.
"""

from __future__ import annotations

from timelens_plugins.quality.problems import CHECKS, Check, Problem, ValidationReport
from timelens_plugins.quality.validation import validate

__all__ = ["CHECKS", "Check", "Problem", "ValidationReport", "validate"]
