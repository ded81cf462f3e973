"""The engine ``vllm``: a checkpoint in vLLM, which is given our frames, our times and our prompt ids.

- :mod:`~timelens_plugins.inference.vllm.settings`: what can be set
- :mod:`~timelens_plugins.inference.vllm.request`: a prompt as vLLM takes it; what vLLM would compute wrongly
- :mod:`~timelens_plugins.inference.vllm.adapters`: an adapter merged into its base, as vLLM loads it
- :mod:`~timelens_plugins.inference.vllm.parity`: ids and log-probs of the first prompts against transformers
- :mod:`~timelens_plugins.inference.vllm.starting`: vLLM itself
- :mod:`~timelens_plugins.inference.vllm.model`: a checkpoint in transformers, for the comparison, and then in vLLM
- :mod:`~timelens_plugins.inference.vllm.engine`: the engine

vLLM is imported when it is started.
"""
