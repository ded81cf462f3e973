"""How large each part of the demo is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SIZES", "DemoSettings"]


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo's parts. What is learned how stands in ``recipes/configs/demo_*.yaml``.

    Attributes:
        moments: of each of the benchmark's three subsets.
        sft_clips: training clips of each of the three kinds, for supervised fine-tuning.
        rl_clips: other ones, for difficulty and reinforcement learning.
        sft_steps: optimizer steps of supervised fine-tuning.
        samples: answers a moment from which difficulty is estimated.
        rl_steps: optimizer steps of reinforcement learning, at most: the plateau may end it before.
        rl_save_steps: steps between two checkpoints of it; the plateau's model is one of them.
    """

    moments: int = 100
    sft_clips: int = 160
    rl_clips: int = 100
    sft_steps: int = 120
    samples: int = 4
    rl_steps: int = 250
    rl_save_steps: int = 25


SIZES = {
    "quick": DemoSettings(moments=8, sft_clips=6, rl_clips=6, sft_steps=8, samples=2, rl_steps=3, rl_save_steps=1),
    "default": DemoSettings(),
    "full": DemoSettings(moments=300, sft_clips=300, rl_clips=300, rl_steps=500, rl_save_steps=50),
}
"""``quick`` shows that everything runs and is too small to learn; ``full`` has tighter intervals and trains longer."""
