"""The demo's world: clips whose events are known, and the tiny model that learns to ground in them.

Nothing here downloads anything. The test suite uses the same models and clips as ``make demo``.

- :mod:`~timelens_plugins.synthetic.world`: scenes from seeds, and their frames
- :mod:`~timelens_plugins.synthetic.benchmark`: such clips on disk, in the formats of TimeLens-Bench and TimeLens-100K
- :mod:`~timelens_plugins.synthetic.materialise`: names such as ``synthetic:benchmark``, for the settings of recipes
- :mod:`~timelens_plugins.synthetic.grounder`: the tiny Qwen3-VL that can learn to ground
- :mod:`~timelens_plugins.synthetic.lessons`, :mod:`~timelens_plugins.synthetic.curriculum`: what its base checkpoint is
  taught, by ``recipes/demo/train_base.py``
"""
