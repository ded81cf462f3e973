"""How hard moments are for a model, and which of them to train on.

How hard: estimated offline from its answers, or online from rewards of training.

- :mod:`~timelens_plugins.difficulty.estimates`: means with their uncertainty; shrinkage; numpy only
- :mod:`~timelens_plugins.difficulty.reading`: difficulty files, joined with the moments they are about
- :mod:`~timelens_plugins.difficulty.online`: estimates that training keeps up to date
- :mod:`~timelens_plugins.difficulty.rows`: difficulty rows, as TimeLens's tools read them
- :mod:`~timelens_plugins.difficulty.shards`: the work of several processes, and what of it is done
- :mod:`~timelens_plugins.difficulty.estimate`: a model answers every moment (needs torch)

Which to train on:

- :mod:`~timelens_plugins.difficulty.weights`: from estimates to weights
- :mod:`~timelens_plugins.difficulty.draw`: from weights to a set of moments; inside bins of duration
- :mod:`~timelens_plugins.difficulty.selection`: both by one configuration, with a report
- :mod:`~timelens_plugins.difficulty.sampler`: a torch sampler that draws while training goes on
"""

from timelens_plugins.difficulty.draw import DURATION_EDGES, BinReport, draw, stratified_draw
from timelens_plugins.difficulty.estimates import ANSWER_STD, Estimates
from timelens_plugins.difficulty.online import OnlineDifficulty
from timelens_plugins.difficulty.reading import load_estimates
from timelens_plugins.difficulty.selection import STRATA, Selection, select_moments
from timelens_plugins.difficulty.weights import (
    METHODS,
    Difficulty,
    Weighting,
    gaussian_weights,
    hard_weights,
    uniform_weights,
)

__all__ = [
    "ANSWER_STD",
    "DURATION_EDGES",
    "METHODS",
    "STRATA",
    "BinReport",
    "Difficulty",
    "Estimates",
    "OnlineDifficulty",
    "Selection",
    "Weighting",
    "draw",
    "gaussian_weights",
    "hard_weights",
    "load_estimates",
    "select_moments",
    "stratified_draw",
    "uniform_weights",
]
