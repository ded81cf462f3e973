"""What of vLLM is relied on by ``engine=vllm`` and ``timelens doctor --model``. Its inner engine is not public."""

from __future__ import annotations

from timelens_plugins.upstream import Name

__all__ = ["ENGINE", "PROMPT_IDS", "SUPPORTED", "WEIGHTS"]

SUPPORTED = "0.32"

PROMPT_IDS = (
    Name("vllm:LLM.generate", ("self", "prompts")),
    Name("vllm.sampling_params:SamplingParams"),
    Name("vllm.outputs:RequestOutput.__init__", line="self.prompt_token_ids"),
)
"""Called by ``inspection/vllm_ids.py`` and ``inference/vllm/parity.py``."""

ENGINE = (
    Name("vllm:LLM.enqueue", ("self", "prompts", "sampling_params")),
    Name("vllm:LLM.__init__", line="self.llm_engine ="),
    Name("vllm.v1.engine.llm_engine:LLMEngine.step", ("self",)),
    Name("vllm.v1.engine.llm_engine:LLMEngine.abort_request", ("self", "request_ids")),
    Name("vllm.v1.engine.input_processor:InputProcessor.assign_request_id", line='f"{request.external_req_id}-'),
    Name("vllm.outputs:RequestOutput.__init__", line="self.num_cached_tokens"),
)
"""Called by ``inference/vllm/engine.py``, which tells requests apart by the part of their name that is ours."""

WEIGHTS = (
    Name("vllm.model_executor.model_loader:register_model_loader", ("load_format",)),
    Name(
        "vllm.model_executor.model_loader.base_loader:BaseModelLoader.load_weights", ("self", "model", "model_config")
    ),
    Name("vllm:LLM.collective_rpc", ("self", "method", "timeout", "args", "kwargs")),
    Name("vllm.v1.worker.gpu_worker:Worker.reload_weights"),
    Name("vllm.v1.worker.gpu_model_runner:GPUModelRunner.reload_weights", ("self", "weights_iterator")),
    Name("vllm:LLM.reset_prefix_cache", ("self",)),
    Name("vllm.v1.engine.llm_engine:LLMEngine.reset_encoder_cache", ("self",)),
    Name("vllm:LLM.sleep", ("self", "level")),
    Name("vllm:LLM.wake_up", ("self", "tags")),
)
"""Called by ``grpo/vllm_rollout.py``, whose weights change from rollout to rollout."""
