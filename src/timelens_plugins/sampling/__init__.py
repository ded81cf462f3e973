"""Which moments to train on: weights from difficulty, draws without replacement, a sampler for trainers.

- :mod:`~timelens_plugins.sampling.weights`: from estimates to weights
- :mod:`~timelens_plugins.sampling.draw`: from weights to a set of moments; inside bins of duration
- :mod:`~timelens_plugins.sampling.selection`: both by one configuration, with a report
- :mod:`~timelens_plugins.sampling.sampler`: a torch sampler that draws while training goes on
"""

from timelens_plugins.sampling.draw import DURATION_EDGES, BinReport, draw, stratified_draw
from timelens_plugins.sampling.selection import STRATA, Selection, select_moments
from timelens_plugins.sampling.weights import (
    METHODS,
    Difficulty,
    Weighting,
    gaussian_weights,
    hard_weights,
    uniform_weights,
)

__all__ = [
    "DURATION_EDGES",
    "METHODS",
    "STRATA",
    "BinReport",
    "Difficulty",
    "Selection",
    "Weighting",
    "draw",
    "gaussian_weights",
    "hard_weights",
    "select_moments",
    "stratified_draw",
    "uniform_weights",
]
