"""The demo's world: a locally built tokenizer, tiny models from configs, and clips whose events are known.

Nothing here downloads anything. The test suite uses the same models and clips as ``make demo``.
"""
