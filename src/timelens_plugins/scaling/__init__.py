"""What training and evaluating on videos costs: parameters, operations, memory, hours, from a model's shape alone.

Arithmetic on plain numbers; no torch, no model, no video. What ``timelens plan`` prints, and what is assumed for it, is
in ``docs/scaling.md``. Memory is checked against measured peaks by ``benchmarks/scaling.py``.
"""

from timelens_plugins.families.shapes import SHAPES, ModelShape, TextShape, VisionShape, read_shape
from timelens_plugins.scaling.memory import Sharding, StepMemory, step_memory
from timelens_plugins.scaling.operations import GroupOperations, group_operations
from timelens_plugins.scaling.schedule import Hardware, Hours, hours
from timelens_plugins.scaling.work import Work

__all__ = [
    "SHAPES",
    "GroupOperations",
    "Hardware",
    "Hours",
    "ModelShape",
    "Sharding",
    "StepMemory",
    "TextShape",
    "VisionShape",
    "Work",
    "group_operations",
    "hours",
    "read_shape",
    "step_memory",
]
