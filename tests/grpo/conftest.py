"""Six synthetic clips with their moments, two real ones, and a maker of trainers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpo_runs
import pytest

from timelens_plugins.grpo import TimeLensGRPOTrainer
from timelens_plugins.moments import Moment
from timelens_plugins.spans import Span


@pytest.fixture(scope="session")
def annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 12 to 20 s, with one to three queries each: prompts of different lengths."""
    from timelens_plugins.synthetic.benchmark import write_training_set

    return write_training_set(tmp_path_factory.mktemp("train"), 2, size=64, fps=4.0, progress=False)


@pytest.fixture(scope="session")
def moments(annotations: Path) -> list[Moment]:
    return grpo_runs.training_moments(annotations)


@pytest.fixture
def real_moments(real_data: Path) -> list[Moment]:
    """Annotated real clips, one of them in a window, of an odd frame rate and of two sizes."""

    def moment(name: str, query: str, span: Span, start: float | None = None, end: float | None = None) -> Moment:
        return Moment(
            id=f"{name}-{query}",
            video=str(real_data / "charades" / f"{name}.mp4"),
            video_id=name,
            query=query,
            spans=(span,),
            duration=None,
            source="charades",
            video_start=start,
            video_end=end,
        )

    return [
        moment("3MSZA", "person turn a light on", Span(24.3, 30.4)),
        moment("OHOFG", "person sitting down in a chair", Span(1.0, 7.5)),
        moment("3MSZA", "person turn a light on", Span(4.3, 10.4), 20.0, 31.0),
        moment("OHOFG", "person sitting", Span(1.0, 7.5)),
    ]


@pytest.fixture
def make_trainer(
    tiny_checkpoints: dict[str, Path], moments: list[Moment], tmp_path: Path
) -> Callable[..., TimeLensGRPOTrainer]:
    """``make_trainer(family, **settings)``: see ``grpo_runs``; a folder of its own for each."""
    made = 0

    def make(family: str = "qwen3_vl", *, rows: list[Moment] | None = None, **settings: object) -> TimeLensGRPOTrainer:
        nonlocal made
        made += 1
        output = settings.pop("output_dir", tmp_path / f"run{made}")
        return grpo_runs.make_trainer(tiny_checkpoints[family], rows or moments, output, **settings)  # type: ignore[arg-type]

    return make
