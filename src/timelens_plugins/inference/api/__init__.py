"""The engine ``api``: any endpoint that speaks OpenAI's chat completions, closed models among them.

- :mod:`~timelens_plugins.inference.api.presets`: how a model is shown a clip; ``gpt`` and ``gemini``, and one's own
- :mod:`~timelens_plugins.inference.api.images`: a clip as texts and images of a message
- :mod:`~timelens_plugins.inference.api.replies`: what an endpoint may send back, and what each of it is taken for
- :mod:`~timelens_plugins.inference.api.endpoint`: one request with its retries, rate limit and key
- :mod:`~timelens_plugins.inference.api.account`: what was asked, answered, refused, repeated and paid
- :mod:`~timelens_plugins.inference.api.engine`: the engine

Needs httpx, which huggingface-hub brings; no client of a vendor.
"""
