"""Made-up runs, the same for the same arguments; waiting for a page."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from timelens_plugins.metrics import Sample
from timelens_plugins.results import Run
from timelens_plugins.spans import Span


def make_samples(
    count: int = 60,
    *,
    seed: int = 1,
    noise: float = 2.0,
    failures: float = 0.1,
    subsets: Sequence[str] = ("charades", "activitynet"),
) -> list[Sample]:
    """The annotations depend on ``count`` only, the answers on the rest, too."""
    world, model = random.Random(0), random.Random(seed)
    samples = []
    for i in range(count):
        duration = float(world.randint(20, 150))
        start = world.randint(0, int(duration) - 10)
        target = Span(start, start + world.randint(3, 9))
        predicted = None
        if model.random() >= failures:
            low = max(0.0, target.start + model.gauss(0, noise))
            predicted = Span(round(low, 1), round(max(low + 0.5, target.end + model.gauss(0, noise)), 1))
        text = (
            "I cannot tell." if predicted is None else f"The event happens in {predicted[0]} - {predicted[1]} seconds."
        )
        samples.append(
            Sample(
                video=f"clip{i // 3}",
                query=f"person {i} opens door number {i}",
                target=(target,),
                predicted=predicted,
                status="unparsed" if predicted is None else "parsed",
                subset=subsets[i // 3 % len(subsets)],
                duration=duration,
                answer=text,
            )
        )
    return samples


def make_run(name: str, count: int = 60, **options: Any) -> Run:
    """A run of :func:`make_samples`."""
    return Run.from_samples(name, make_samples(count, **options))


def until(page: Any, expression: str, seconds: float = 20.0) -> None:
    """Wait for an expression to hold in a page. Playwright's own waiting evaluates text, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(f"Boolean({expression})"):
        assert time.monotonic() < end, f"after {seconds} s, still not: {expression}"
        time.sleep(0.02)
