"""How hard moments are for a model: estimated offline from its answers, or online from rewards of training.

- :mod:`~timelens_plugins.difficulty.estimates`: means with their uncertainty; shrinkage; numpy only
- :mod:`~timelens_plugins.difficulty.reading`: difficulty files, joined with the moments they are about
- :mod:`~timelens_plugins.difficulty.online`: estimates that training keeps up to date
- :mod:`~timelens_plugins.difficulty.rows`: difficulty rows, as TimeLens's tools read them
- :mod:`~timelens_plugins.difficulty.shards`: the work of several processes, and what of it is done
- :mod:`~timelens_plugins.difficulty.estimate`: a model answers every moment (needs torch)
"""

from timelens_plugins.difficulty.estimates import ANSWER_STD, Estimates
from timelens_plugins.difficulty.online import OnlineDifficulty
from timelens_plugins.difficulty.reading import load_estimates

__all__ = ["ANSWER_STD", "Estimates", "OnlineDifficulty", "load_estimates"]
