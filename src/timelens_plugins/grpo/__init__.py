"""Video GRPO on TRL: one decode, one prefill and one training forward for each group of completions.

- :mod:`~timelens_plugins.grpo.config`: what can be set, on top of TRL's ``GRPOConfig``
- :mod:`~timelens_plugins.grpo.trainer`: the trainer
- :mod:`~timelens_plugins.grpo.groups`: a prompt with its completions, and batches in groups instead of rows
- :mod:`~timelens_plugins.grpo.sampler`: which prompts come when
- :mod:`~timelens_plugins.grpo.online`: prompts drawn by what the rewards so far say
- :mod:`~timelens_plugins.grpo.rollout`: completions of a group
- :mod:`~timelens_plugins.grpo.scoring`: log-probs of groups, shared and plain
- :mod:`~timelens_plugins.grpo.self_check`: the first batch proves that training sees the video
- :mod:`~timelens_plugins.grpo.checks`: what is looked at before a run begins
- :mod:`~timelens_plugins.grpo.checked_rewards`: a reward that is no number is an error that names function and row
- :mod:`~timelens_plugins.grpo.reward_log`: metrics of a generation batch, and what online difficulty learns from it
- :mod:`~timelens_plugins.grpo.statistics`: the figures that are logged beside TRL's metrics
- :mod:`~timelens_plugins.grpo.resume`: what a checkpoint needs besides what transformers saves
- :mod:`~timelens_plugins.grpo.upstream`: every private name of TRL that the trainer relies on
"""

from timelens_plugins.grpo.config import TimeLensGRPOConfig
from timelens_plugins.grpo.sampler import PromptSampler
from timelens_plugins.grpo.self_check import SelfCheckError
from timelens_plugins.grpo.trainer import TimeLensGRPOTrainer
from timelens_plugins.grpo.upstream import UpstreamChangedError

__all__ = [
    "PromptSampler",
    "SelfCheckError",
    "TimeLensGRPOConfig",
    "TimeLensGRPOTrainer",
    "UpstreamChangedError",
]
