"""What the ``lmms_eval.models`` entry point loads: the model's manifest, and the hook that adds our tasks.

lmms-eval has entry points for models only; it calls this one whenever its model registry is imported, which every
evaluation does. Nothing heavy may be imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from timelens_plugins.evaluation.hook import install

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest

__all__ = ["manifests"]


def manifests() -> list[ModelManifest]:
    """The models this package brings to lmms-eval; as a side effect its tasks become known too."""
    from lmms_eval.models.registry_v2 import ModelManifest

    install()
    return [ModelManifest(model_id="timelens", chat_class_path="timelens_plugins.evaluation.model.TimeLens")]
