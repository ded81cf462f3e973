"""Plugins that evaluate and train video temporal grounding in lmms-eval, TRL and transformers.

Importing this package imports nothing else: take just the part you need, for example
``from timelens_plugins.answers import parse_spans`` (no torch) or
``from timelens_plugins.encodings import load_processor``.
"""

__version__ = "0.1.0"
