"""All figures of a plan as JSON types, and the tables that are printed of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from timelens_plugins.families.shapes import ModelShape
from timelens_plugins.scaling.memory import Sharding, step_memory
from timelens_plugins.scaling.operations import group_operations
from timelens_plugins.scaling.schedule import Hardware, hours
from timelens_plugins.scaling.work import Work

__all__ = ["USABLE", "plan", "tables"]

USABLE = 0.9
"""Share of a device's memory that a setting may take: the rest is for the context, fragmentation and buffers."""

_ROADS = {"plain": False, "shared": True}


def plan(
    shape: ModelShape, work: Work, hardware: Hardware, *, gpus: Sequence[int], prompts: int, steps: int
) -> dict[str, Any]:
    """Every figure of ``timelens plan``: bytes, operations, seconds and hours.

    Args:
        shape: of the model.
        work: one video of a step, on each device.
        hardware: of each device.
        gpus: numbers of devices; memory is of the first.
        prompts: of a step, over all devices.
        steps: of the training.
    """
    settings = [
        {"road": road, "sharding": sharding, "checkpointing": checkpointing}
        | _memory(shape, work, hardware, gpus[0], *s)
        for road, shared in _ROADS.items()
        for sharding in get_args(Sharding)
        for checkpointing in (False, True)
        for s in [(shared, sharding, checkpointing)]
    ]
    schedule = []
    for number in gpus:
        for road, shared in _ROADS.items():
            found = hours(shape, work, number, hardware, shared=shared, prompts=prompts, steps=steps)
            schedule.append(
                {"gpus": number, "road": road}
                | asdict(found)
                | {"total": found.total, "step_seconds": found.step.total}
            )
    return {
        "model": {
            "name": shape.name,
            "source": shape.source,
            "parameters": shape.parameters(),
            "trained": shape.trained(),
        },
        "work": asdict(work) | {"prompt_tokens": work.prompt_tokens},
        "hardware": asdict(hardware),
        "prompts": prompts,
        "steps": steps,
        "operations": {
            road: {"tokens": work.tokens(shared)}
            | asdict(group_operations(shape, work, shared=shared))
            | {"total": group_operations(shape, work, shared=shared).total}
            for road, shared in _ROADS.items()
        },
        "settings": settings,
        "hours": schedule,
    }


def _memory(
    shape: ModelShape, work: Work, hardware: Hardware, gpus: int, shared: bool, sharding: Sharding, checkpointing: bool
) -> dict[str, Any]:
    memory = step_memory(
        shape, work, shared=shared, sharding=sharding, checkpointing=checkpointing, precision="bf16", devices=gpus
    )
    return {
        "resident": memory.resident,
        "peak": memory.peak,
        "host_clip": memory.clip,
        "fits": memory.peak <= USABLE * hardware.memory,
    }


def tables(found: Mapping[str, Any]) -> str:
    """For the terminal."""
    model, work, hardware = found["model"], found["work"], found["hardware"]
    first = found["hours"][0]["gpus"]
    parts = [
        f"model      {model['name']}: {model['parameters']:,} parameters, {model['trained']:,} trained "
        f"(from {model['source']})",
        f"prompt     {work['prompt_tokens']:,} tokens, {work['vision_tokens']:,} of them of {work['frames']} frames; "
        f"{work['queries']} x {work['generations']} completions of {work['completion_tokens']} tokens",
        f"GPU        {hardware['memory'] / 1e9:g} GB, {hardware['peak'] / 1e12:g} TFLOPS, of which "
        f"{hardware['utilisation']:.0%} assumed; {hardware['network'] / 1e9:g} GB/s to the others",
        "",
        "One video of a step, in TFLOP (with gradient checkpointing)",
        *_aligned(
            ["", "tokens", "vision", "prefill", "decode", "training", "all"],
            (
                [road, f"{row['tokens']:,}"]
                + [f"{row[name] / 1e12:,.0f}" for name in ("vision", "prefill", "decode", "training", "total")]
                for road, row in found["operations"].items()
            ),
        ),
        "",
        f"Memory of a step on each of {first} GPUs, in GB, one video at a time "
        f"(+ fits in {USABLE:.0%} of {hardware['memory'] / 1e9:g})",
        *_aligned(
            ["", "sharding", "checkpointing", "resident", "peak", ""],
            (
                [
                    row["road"],
                    row["sharding"],
                    "yes" if row["checkpointing"] else "no",
                    f"{row['resident'] / 1e9:.1f}",
                    f"{row['peak'] / 1e9:.1f}",
                    "+" if row["fits"] else "-",
                ]
                for row in found["settings"]
            ),
        ),
        "",
        f"Hours: difficulty of TimeLens-100K, {found['steps']} steps of {found['prompts']} prompts, TimeLens-Bench "
        "(sharded weights)",
        *_aligned(
            ["GPUs", "", "difficulty", "training", "benchmark", "all", "s a step", "GPUs with work"],
            (
                [str(row["gpus"]), row["road"]]
                + [f"{row[name]:.1f}" for name in ("difficulty", "training", "benchmark", "total")]
                + [f"{row['step_seconds']:.1f}", str(row["step"]["busy"])]
                for row in found["hours"]
            ),
        ),
    ]
    return "\n".join(parts)


def _aligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return ["  " + "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
