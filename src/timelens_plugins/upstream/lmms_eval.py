"""Every private name of lmms-eval relied on. Supported: 0.7.3.

The modules of its tasks and of its command cannot be imported where the entry point is loaded, and take seconds:
only what the entry point itself wraps is checked at the start, the rest by ``timelens doctor`` and the tests.
"""

from __future__ import annotations

import functools

from timelens_plugins.upstream import Name, check

__all__ = ["COMMAND", "REGISTRY", "check_registry"]

SUPPORTED = "0.7.3 to below 0.8"

REGISTRY = (
    Name("lmms_eval.models.registry_v2:ModelManifest"),
    Name("lmms_eval.models.registry_v2:ModelRegistryV2.get_model_class", ("self",)),
)

_TRACKER = "lmms_eval.loggers.evaluation_tracker:EvaluationTracker"

COMMAND = (
    Name("lmms_eval.tasks:TaskManager.initialize_tasks", ("self", "include_path", "include_defaults")),
    Name("lmms_eval.tasks:TaskManager._get_task_and_group", ("self", "task_dir")),
    Name("lmms_eval.utils:load_yaml_config", ("yaml_path",)),
    Name("lmms_eval.evaluator:simple_evaluate", line="tasks"),
    # On which processes the model is called: on all of them, unless answers are cached.
    Name("lmms_eval.evaluator:evaluate", line="for reqtype in canonical_reqtypes:"),
    Name("lmms_eval.evaluator:evaluate", line="resps = getattr(lm, reqtype)(cloned_reqs)"),
    Name("lmms_eval.caching.response_cache:ResponseCache.execute", ("self", "lm", "reqtype", "requests")),
    Name(f"{_TRACKER}.save_results_aggregated", ("self", "results"), "_results.json"),
    Name(f"{_TRACKER}.save_results_samples", ("self", "task_name", "samples"), "_samples_{task_name}.jsonl"),
    Name("lmms_eval.__main__:cli_evaluate_single", ("args",), "task_manager = TaskManager("),
    Name("lmms_eval.__main__:cli_evaluate", ("args",), 'eval_logger.error(f"Error during evaluation: {e}'),
    Name("lmms_eval.__main__:cli_evaluate", line="print(make_table(results))"),
    Name("lmms_eval.__main__:cli_evaluate", line="results_list.append(results)"),
    Name("lmms_eval.__main__:cli_evaluate", line="swanlab_logger = None"),
    Name("lmms_eval.__main__:cli_evaluate", line="Logging to Weights and Biases failed"),
    Name("lmms_eval.__main__:cli_evaluate", line="Logging to SwanLab failed"),
    Name("lmms_eval.__main__:cli_evaluate_single", line="Need to specify task to evaluate."),
    Name("lmms_eval.evaluator:simple_evaluate", line='eval_logger.warning(f"[Baseline] Failed for'),
    Name("lmms_eval.evaluator:simple_evaluate", line="[Baseline] Skipping"),
    Name(f"{_TRACKER}.save_results_aggregated", line="Could not save results aggregated"),
    Name(f"{_TRACKER}.save_results_samples", line="Could not save sample results"),
    Name(f"{_TRACKER}.save_results_samples", line="Could not gate the repository"),
)


@functools.cache
def check_registry() -> None:
    """Raises UpstreamChangedError where lmms-eval would not find the model and tasks."""
    check("lmms_eval", SUPPORTED, REGISTRY)
