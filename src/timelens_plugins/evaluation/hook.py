"""Makes lmms-eval find our tasks without a flag, check their videos before it loads a model, and fail with a status.

lmms-eval 0.7 looks for tasks in its own folder and in ``--include_path`` only. :func:`install` therefore wraps
some of its functions, each with the smallest possible change:

- ``TaskManager.initialize_tasks`` also indexes our folder; a name that is taken stays with its owner, and is reported;
- ``utils.load_yaml_config`` finds what ``include: timelens`` means, wherever the file stands, and makes a task's rows
  from its ``timelens:`` part (see :mod:`timelens_plugins.evaluation.specs`);
- ``ModelRegistryV2.get_model_class``, the first thing an evaluation calls, checks that the videos of those requested
  tasks that are ours exist, and that there is something to answer: upstream looks at tasks only once the model is
  loaded, takes a limit of 0 for none, and ends with empty results and status 0 where an offset leaves no row;
- ``EvaluationTracker``'s two functions that save, the command that makes a ``TaskManager``, and the ``make_table`` by
  which it prints results: what fails there ends with exit status 0 (see :mod:`timelens_plugins.evaluation.command`).

``lmms_eval.tasks`` is wrapped right after its import, because importing it where the entry point is loaded would take
seconds and be circular.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType, ModuleType, SimpleNamespace
from typing import Any

from timelens_plugins.evaluation.command import (
    checking_saved_results,
    checking_saved_samples,
    ending_with_status,
    watch,
)
from timelens_plugins.locations import shipped_folder
from timelens_plugins.upstream.lmms_eval import check_registry

__all__ = ["install"]

_WRAPPED = "_timelens_plugins"
_TASKS = "lmms_eval.tasks"
_INCLUDED = "timelens"  # what the YAML file of a task includes to be one of ours


def install() -> None:
    """Wrap now what is imported, and ``lmms_eval.tasks`` when it is; calling it again changes nothing."""
    check_registry()
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    _replace(ModelRegistryV2, "get_model_class", _checking_tasks)
    if (tasks := sys.modules.get(_TASKS)) is not None and hasattr(tasks, "TaskManager"):
        _wrap_task_manager(tasks)
    elif not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _replace(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``wrap(function)`` in the place of a function, once."""
    upstream = getattr(owner, name)
    if not hasattr(upstream, _WRAPPED):
        wrapped = functools.wraps(upstream)(wrap(upstream))
        setattr(wrapped, _WRAPPED, True)
        setattr(owner, name, wrapped)


def _checking_tasks(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def get_model_class(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Upstream hands over the model's name only; the tasks are known to the evaluation that asks for it.
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not ("tasks" in frame.f_locals and frame.f_code.co_name == "simple_evaluate"):
            frame = frame.f_back
        if frame is not None:
            from timelens_plugins.evaluation.specs import specs_of
            from timelens_plugins.evaluation.subsets import check_specs

            asked = frame.f_locals
            specs = specs_of(asked["tasks"], asked.get("task_manager"))
            check_specs(specs, asked.get("limit"), asked.get("offset") or 0)
        return upstream(self, *args, **kwargs)

    return get_model_class


def _wrap_task_manager(module: ModuleType) -> None:
    _replace(module.TaskManager, "initialize_tasks", _indexing_our_folder)
    _replace(module.utils, "load_yaml_config", _reading_specs)


def _reading_specs(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def load_yaml_config(yaml_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        if yaml_path is not None and os.path.basename(yaml_path) == _INCLUDED and not os.path.isfile(yaml_path):
            yaml_path = str(shipped_folder("tasks") / "timelens_original" / "_original")  # plain columns round nothing
        config = upstream(yaml_path, *args, **kwargs)
        if yaml_path is None or kwargs.get("mode", "full") != "full" or _INCLUDED not in config:
            return config
        from timelens_plugins.evaluation.specs import SPEC_KEY, read_spec
        from timelens_plugins.evaluation.task_functions import RowsOf, process_docs

        spec = read_spec(config.pop(SPEC_KEY), config.get("task"), str(yaml_path))
        return config | {"process_docs": RowsOf(process_docs, spec=spec)}

    return load_yaml_config


def _indexing_our_folder(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def initialize_tasks(self: Any, include_path: Any = None, include_defaults: bool = True) -> dict[str, Any]:
        # The first moment of an evaluation at which all of lmms_eval is certain to be imported completely.
        if loggers := sys.modules.get("lmms_eval.loggers.evaluation_tracker"):
            _replace(loggers.EvaluationTracker, "save_results_aggregated", checking_saved_results)
            _replace(loggers.EvaluationTracker, "save_results_samples", checking_saved_samples)
        if command := sys.modules.get("lmms_eval.__main__"):
            _replace(command, "make_table", ending_with_status)
        index: dict[str, Any] = upstream(self, include_path=include_path, include_defaults=include_defaults)
        if not include_defaults:  # the caller wants its own folders and nothing else
            watch(SimpleNamespace(task_index=index))
            return index
        for name, entry in self._get_task_and_group(str(shipped_folder("tasks"))).items():
            taken = index.setdefault(name, entry)
            if taken.get("yaml_path") != entry.get("yaml_path"):
                self.logger.warning(
                    f"timelens-plugins: task name '{name}' belongs to {taken.get('yaml_path')}; ours is not available."
                )
        watch(SimpleNamespace(task_index=index))
        return index

    return initialize_tasks


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds ``lmms_eval.tasks`` as the other finders do, with a loader that wraps it once it ran."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TASKS:
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _WrappingLoader(spec.loader)
                return spec
        return None


class _WrappingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its real loader: inspect, pickle and importlib.resources ask for it.
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _wrap_task_manager(module)
