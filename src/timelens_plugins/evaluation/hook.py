"""Makes lmms-eval find our tasks without a flag, and check their videos before it loads a model.

lmms-eval 0.7 looks for tasks in its own folder and in ``--include_path`` only. :func:`install` therefore wraps two of
its functions, each with the smallest possible change:

- ``TaskManager.initialize_tasks`` also indexes our folder; a name that is taken stays with its owner, and is reported;
- ``evaluator.simple_evaluate`` first checks that the videos of the requested tasks of ours exist. Upstream loads the
  model first, and its command line turns every exception into exit status 0; for our tasks a failure exits with 1.

Modules not imported yet are wrapped right after their import, so that installing costs nothing (importing
``lmms_eval.tasks`` takes seconds, and would be circular where the entry point is loaded).
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import sys
import traceback
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from timelens_plugins.locations import shipped_folder

__all__ = ["install"]

_WRAPPED = "_timelens_plugins"


def install() -> None:
    """Wrap now what is imported, and the rest when it is; calling it again changes nothing."""
    for name, wrap in _WRAPS.items():
        module = sys.modules.get(name)
        if module is not None:
            wrap(module)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _wrap_task_manager(module: ModuleType) -> None:
    manager = getattr(module, "TaskManager", None)
    if manager is None:  # the module is still being imported; its own import runs the wrap again
        return
    upstream = manager.initialize_tasks
    if hasattr(upstream, _WRAPPED):
        return

    @functools.wraps(upstream)
    def initialize_tasks(self: Any, include_path: Any = None, include_defaults: bool = True) -> dict[str, Any]:
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

    setattr(initialize_tasks, _WRAPPED, True)
    manager.initialize_tasks = initialize_tasks


def _wrap_simple_evaluate(module: ModuleType) -> None:
    upstream = getattr(module, "simple_evaluate", None)
    if upstream is None or hasattr(upstream, _WRAPPED):
        return

    @functools.wraps(upstream)
    def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
        from timelens_plugins.evaluation.subsets import SUBSETS, check_tasks

        tasks = kwargs.get("tasks", args[2] if len(args) > 2 else None) or []
        ours = [
            task for task in tasks if isinstance(task, str) and (task in SUBSETS or task.startswith(_GROUP_PREFIXES))
        ]
        if not ours:
            return upstream(*args, **kwargs)
        from_command_line = kwargs.get("cli_args") is not None
        try:
            check_tasks(ours)
            return upstream(*args, **kwargs)
        except Exception as error:
            if not from_command_line:
                raise
            if not isinstance(error, (FileNotFoundError, ValueError)):
                traceback.print_exc()
            print(f"timelens-plugins: {error}", file=sys.stderr, flush=True)
            raise SystemExit(1) from error

    setattr(simple_evaluate, _WRAPPED, True)
    module.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]


_GROUP_PREFIXES = ("timelens_bench", "timelens_original")
_WRAPS: dict[str, Callable[[ModuleType], None]] = {
    "lmms_eval.tasks": _wrap_task_manager,
    "lmms_eval.evaluator": _wrap_simple_evaluate,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of ``_WRAPS`` as the other finders do, with a loader that wraps them once they ran."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _WRAPS:
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
        _WRAPS[module.__name__](module)
