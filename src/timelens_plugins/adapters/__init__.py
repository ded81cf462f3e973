"""Our rewards and moments as other trainers want them; nothing to install besides the package.

- :mod:`~timelens_plugins.adapters.truth`: the target of a moment as the one text that such trainers carry along
- :mod:`~timelens_plugins.adapters.rewards`: rewards in the calling conventions of ms-swift, verl, EasyR1 and TimeLens
- :mod:`~timelens_plugins.adapters.rows`: moments as rows of ms-swift, verl and TRL
"""
