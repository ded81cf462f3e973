"""Settings of the recipes, and what they stand for: data, prompts, rewards, difficulty, early stopping.

- :mod:`~timelens_plugins.recipe.parsing`: from a configuration file and flags to settings
- :mod:`~timelens_plugins.recipe.running`: the start, and what is said where settings or data are wrong
- :mod:`~timelens_plugins.recipe.data`: annotations, videos, filters, frames, the prompt
- :mod:`~timelens_plugins.recipe.base`: the checkpoint that is trained
- :mod:`~timelens_plugins.recipe.rewards`: rewards by name, or one's own
- :mod:`~timelens_plugins.recipe.drawing`: which moments are trained on
- :mod:`~timelens_plugins.recipe.selection`: the moments that these settings choose
- :mod:`~timelens_plugins.recipe.stopping`: when training stops
- :mod:`~timelens_plugins.recipe.estimation`: estimates of difficulty
- :mod:`~timelens_plugins.recipe.sources`: names that stand for files

A setting has one name in YAML, flags and Python, and every setting that would have no effect is an error.
"""

from timelens_plugins.recipe.base import adapters, base_checkpoint, load_base
from timelens_plugins.recipe.data import (
    DataArguments,
    annotated_moments,
    available_moments,
    described,
    load_recipe_processor,
    suitable_moments,
    training_moments,
)
from timelens_plugins.recipe.drawing import Drawing, WeightedDrawing, drawing
from timelens_plugins.recipe.estimation import EstimateArguments, api_settings, vllm_settings
from timelens_plugins.recipe.parsing import from_dict, parse
from timelens_plugins.recipe.rewards import RewardArguments, reward_range, warn_of_unearnable
from timelens_plugins.recipe.running import before_training, start
from timelens_plugins.recipe.selection import estimates_of, settings_of_run, training_set
from timelens_plugins.recipe.sources import files_of
from timelens_plugins.recipe.stopping import StoppingArguments

__all__ = [
    "DataArguments",
    "Drawing",
    "EstimateArguments",
    "RewardArguments",
    "StoppingArguments",
    "WeightedDrawing",
    "adapters",
    "annotated_moments",
    "api_settings",
    "available_moments",
    "base_checkpoint",
    "before_training",
    "described",
    "drawing",
    "estimates_of",
    "files_of",
    "from_dict",
    "load_base",
    "load_recipe_processor",
    "parse",
    "reward_range",
    "settings_of_run",
    "start",
    "suitable_moments",
    "training_moments",
    "training_set",
    "vllm_settings",
    "warn_of_unearnable",
]
