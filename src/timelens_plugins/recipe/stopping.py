"""Settings of early stopping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from timelens_plugins.plateau.callback import RewardPlateauCallback

__all__ = ["StoppingArguments"]


@dataclass
class StoppingArguments:
    """For TRL's ``TrlParser``: :class:`~timelens_plugins.plateau.RewardPlateauCallback`, by its own names."""

    early_stopping: bool = field(
        default=False,
        metadata={"help": "Stop at the reward plateau (see docs/plateau.md)."},
    )
    saved_model: str | None = field(
        default=None,
        metadata={
            "help": "After a stop, the model left in output_dir: 'plateau', of where it began (default), or 'last', of "
            "where the run stopped."
        },
    )
    patience: int | None = field(
        default=None, metadata={"help": "Prompts over which an improvement must show. Default: by the planned steps."}
    )
    min_steps: int | None = field(
        default=None, metadata={"help": "Optimizer steps before which it does not stop. Default: 50."}
    )
    confidence: float | None = field(
        default=None, metadata={"help": "One-sided, of the slopes' upper limits. Default: 0.995."}
    )

    def __post_init__(self) -> None:
        given = self._given()
        if given and not self.early_stopping:
            raise ValueError(f"{', '.join(given)}: without effect without early_stopping: true. Leave it out")
        if self.saved_model not in (None, "plateau", "last"):
            raise ValueError(f"saved_model must be 'plateau' or 'last', got {self.saved_model!r}")
        self.callback()

    def _given(self) -> dict[str, Any]:
        names = ("patience", "min_steps", "confidence", "saved_model")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def callback(self) -> RewardPlateauCallback | None:
        """The callback, where it is wanted."""
        given = {name: value for name, value in self._given().items() if name != "saved_model"}
        return RewardPlateauCallback(**given) if self.early_stopping else None
