"""Makes lmms-eval find our tasks without a flag, check their videos before it loads a model, and fail with a status.

lmms-eval 0.7 looks for tasks in its own folder and in ``--include_path`` only. :func:`install` therefore wraps three
of its functions, each with the smallest possible change:

- ``TaskManager.initialize_tasks`` also indexes our folder; a name that is taken stays with its owner, and is reported;
- ``ModelRegistryV2.get_model_class``, the first thing an evaluation calls, checks that the videos of those requested
  tasks that are ours exist: upstream looks at tasks only once the model is loaded;
- ``evaluator.simple_evaluate``: the command line turns every exception into exit status 0; with tasks of ours it is 1.

``lmms_eval.tasks`` is wrapped right after its import, because importing it where the entry point is loaded would take
seconds and be circular.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType, ModuleType
from typing import Any

from timelens_plugins.locations import shipped_folder

__all__ = ["install"]

_WRAPPED = "_timelens_plugins"
_TASKS = "lmms_eval.tasks"


def install() -> None:
    """Wrap now what is imported, and ``lmms_eval.tasks`` when it is; calling it again changes nothing."""
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
        if frame is not None and (ours := _our_tasks(frame.f_locals["tasks"])):
            from timelens_plugins.evaluation.subsets import check_tasks

            check_tasks(ours)
        return upstream(self, *args, **kwargs)

    return get_model_class


def _failing_with_status(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
        try:
            return upstream(*args, **kwargs)
        except Exception as error:  # whatever it is, it is printed whole and becomes the exit status
            if kwargs.get("cli_args") is None or not _our_tasks(kwargs.get("tasks")):
                raise
            traceback.print_exc()
            print(f"\ntimelens-plugins: the evaluation failed. {error}", file=sys.stderr, flush=True)
            raise SystemExit(1) from error

    return simple_evaluate


def _our_tasks(tasks: Any) -> list[str]:
    named = [tasks] if isinstance(tasks, str) else [task for task in tasks or [] if isinstance(task, str)]
    return [task for task in named if task.startswith(("timelens_bench", "timelens_original"))]


def _wrap_task_manager(module: ModuleType) -> None:
    _replace(module.TaskManager, "initialize_tasks", _indexing_our_folder)


def _indexing_our_folder(upstream: Callable[..., Any]) -> Callable[..., Any]:
    def initialize_tasks(self: Any, include_path: Any = None, include_defaults: bool = True) -> dict[str, Any]:
        # The first moment of an evaluation at which lmms_eval.evaluator is certain to be imported completely.
        if evaluator := sys.modules.get("lmms_eval.evaluator"):
            _replace(evaluator, "simple_evaluate", _failing_with_status)
        index: dict[str, Any] = upstream(self, include_path=include_path, include_defaults=include_defaults)
        if not include_defaults:  # the caller wants its own folders and nothing else
            return index
        for name, entry in self._get_task_and_group(str(shipped_folder("tasks"))).items():
            taken = index.setdefault(name, entry)
            if taken.get("yaml_path") != entry.get("yaml_path"):
                self.logger.warning(
                    f"timelens-plugins: task name '{name}' belongs to {taken.get('yaml_path')}; ours is not available."
                )
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
