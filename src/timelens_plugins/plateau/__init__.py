"""Stopping at the reward plateau: the rule, a callback for trainers, replay of finished runs, a plot.

- :mod:`~timelens_plugins.plateau.rule`: when rewards have stopped moving; numpy only
- :mod:`~timelens_plugins.plateau.history`: rewards from a trainer's log, and the rule on all of them
- :mod:`~timelens_plugins.plateau.callback`: stops a run of transformers or TRL and keeps the plateau's checkpoint
- :mod:`~timelens_plugins.plateau.plot`: the curves with the stop marked
"""

from timelens_plugins.plateau.history import RewardLog, read_reward_log
from timelens_plugins.plateau.rule import Decision, PlateauRule, PlateauSettings, suggested_patience

__all__ = ["Decision", "PlateauRule", "PlateauSettings", "RewardLog", "read_reward_log", "suggested_patience"]
