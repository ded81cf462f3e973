"""Video GRPO on TRL: one decode, one prefill and one training forward for each group of completions.

- :mod:`~timelens_plugins.grpo.config`: what can be set, on top of TRL's ``GRPOConfig``
- :mod:`~timelens_plugins.grpo.trainer`: the trainer
- :mod:`~timelens_plugins.grpo.groups`: a prompt with its completions, and batches in groups instead of rows
- :mod:`~timelens_plugins.grpo.sampler`: which prompts come when
- :mod:`~timelens_plugins.grpo.online`: prompts drawn by what the rewards so far say
- :mod:`~timelens_plugins.grpo.selection`: settings of recipes for difficulty and early stopping
- :mod:`~timelens_plugins.grpo.rollout`: completions of a group
- :mod:`~timelens_plugins.grpo.scoring`: log-probs of groups, shared and plain
- :mod:`~timelens_plugins.grpo.self_check`: the first batch proves that training sees the video
- :mod:`~timelens_plugins.grpo.statistics`: what is logged beside TRL's metrics
- :mod:`~timelens_plugins.grpo.resume`: what a checkpoint needs besides what transformers saves
- :mod:`~timelens_plugins.grpo.upstream`: every private name of TRL that the trainer relies on
"""

from timelens_plugins.grpo.config import TimeLensGRPOConfig
from timelens_plugins.grpo.sampler import GroupSampler
from timelens_plugins.grpo.self_check import SelfCheckError
from timelens_plugins.grpo.trainer import TimeLensGRPOTrainer
from timelens_plugins.grpo.upstream import UpstreamChangedError

__all__ = [
    "GroupSampler",
    "SelfCheckError",
    "TimeLensGRPOConfig",
    "TimeLensGRPOTrainer",
    "UpstreamChangedError",
]
