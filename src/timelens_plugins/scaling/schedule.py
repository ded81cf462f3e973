"""Hours for the work of the paper: difficulty of TimeLens-100K, reinforcement learning, the full benchmark.

Time is operations over what the devices reach, plus what does not shrink with them: decoding token by token, which is
bound by memory, and the transfer of shards. Everything assumed is a field of :class:`Hardware` or a constant here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from timelens_plugins.families.shapes import ModelShape
from timelens_plugins.scaling.operations import (
    decoding,
    group_operations,
    prompt_operations,
    vision_operations,
)
from timelens_plugins.scaling.work import Work

__all__ = ["BENCHMARK", "TRAINING_SET", "Hardware", "Hours", "StepTime", "hours", "step_time"]

TRAINING_SET = (19_466, 96_586)
"""Videos and moments of TimeLens-100K."""

BENCHMARK = (4_279, 9_404)
"""Videos and moments of TimeLens-Bench, its three sets together."""


@dataclass(frozen=True)
class Hardware:
    """One device, and how it is connected. The defaults are an H100 SXM's datasheet and plain assumptions.

    Attributes:
        peak: operations a second in bf16, dense.
        utilisation: share of the peak that forward and backward reach (MFU); an assumption.
        bandwidth: bytes a second of its memory.
        token_seconds: least time of one decoding step of all completions together, whatever the model: launches of
            kernels by Python; an assumption.
        network: bytes a second between a device and the others; an assumption, as it depends on the cluster.
        memory: bytes.
        together: prompts whose completions are decoded at the same time.
    """

    peak: float = 989e12
    utilisation: float = 0.3
    bandwidth: float = 3.35e12
    token_seconds: float = 0.04
    network: float = 50e9
    memory: float = 80e9
    together: int = 4

    def __post_init__(self) -> None:
        for name in ("peak", "utilisation", "bandwidth", "network", "memory"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ValueError(f"{name} must be a positive number, got {getattr(self, name)}")
        if self.utilisation > 1:
            raise ValueError(f"utilisation is a share of the peak, at most 1, got {self.utilisation}")


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step.

    Attributes:
        compute: operations.
        decode: completions, token by token.
        transfer: weights gathered and gradients reduced, as if nothing of it were hidden behind computation.
        busy: devices that have work.
    """

    compute: float
    decode: float
    transfer: float
    busy: int

    @property
    def total(self) -> float:
        """Of a step."""
        return self.compute + self.decode + self.transfer


@dataclass(frozen=True)
class Hours:
    """Hours of the three parts, and the time of a step."""

    difficulty: float
    training: float
    benchmark: float
    step: StepTime

    @property
    def total(self) -> float:
        """One after the other."""
        return self.difficulty + self.training + self.benchmark


def hours(
    shape: ModelShape,
    work: Work,
    devices: int,
    hardware: Hardware,
    *,
    shared: bool = True,
    checkpointing: bool = True,
    prompts: int = 8,
    steps: int = 100,
    sharded: bool = True,
) -> Hours:
    """What the three parts take, each video as long as ``work`` says.

    Args:
        shape: of the model.
        work: of a video of the training; its lengths are those of the other parts, too.
        devices: in all.
        hardware: of each.
        shared: with shared prefixes, else the repeated batch; questions one by one.
        checkpointing: in training.
        prompts: of an optimizer step, over all devices. A group stays whole on one of them.
        steps: of the training.
        sharded: weights have to be gathered (FSDP2, ZeRO-3).
    """
    step = step_time(
        shape, work, devices, hardware, shared=shared, checkpointing=checkpointing, prompts=prompts, sharded=sharded
    )
    found = [answering(shape, work, devices, hardware, *data, shared) / 3600 for data in (TRAINING_SET, BENCHMARK)]
    return Hours(found[0], steps * step.total / 3600, found[1], step)


def step_time(
    shape: ModelShape,
    work: Work,
    devices: int,
    hardware: Hardware,
    *,
    shared: bool,
    checkpointing: bool,
    prompts: int,
    sharded: bool,
) -> StepTime:
    """Seconds of one optimizer step of ``prompts`` prompts; see :func:`hours`."""
    videos = math.ceil(prompts / work.queries)
    busy = min(devices, videos)
    rounds = math.ceil(videos / devices)
    operations = group_operations(shape, work, shared=shared, checkpointing=checkpointing)
    compute = rounds * (operations.total - operations.decode) / (hardware.peak * hardware.utilisation)
    decode = _decoding(shape, work, rounds, hardware, shared)
    weights, trained = shape.parameters(), shape.trained()
    moved = 4.0 * trained  # gradients, reduced in fp32
    if sharded:  # in bf16: for the rollout, forward and backward of each round
        moved += 2.0 * weights * (1 + rounds * (3 if checkpointing else 2))
    transfer = moved / hardware.network if devices > 1 else 0.0
    return StepTime(compute, decode, transfer, busy)


def answering(
    shape: ModelShape, work: Work, devices: int, hardware: Hardware, videos: int, questions: int, shared: bool
) -> float:
    """Seconds for one greedy answer to each question; a video stays on one device with all its questions."""
    each = replace(work, generations=1, queries=max(1, round(questions / videos)) if shared else 1)
    items = videos if shared else questions
    rounds = math.ceil(items / devices)
    operations = vision_operations(shape, each) + prompt_operations(shape, each)
    compute = rounds * operations / (hardware.peak * hardware.utilisation)
    return compute + _decoding(shape, each, rounds, hardware, True, together=1)


def _decoding(
    shape: ModelShape, work: Work, rounds: int, hardware: Hardware, shared: bool, together: int | None = None
) -> float:
    """Each step of decoding reads all weights, and the keys and values of every prompt that is decoded."""
    together = min(together or hardware.together, rounds) if shared else 1
    text = shape.text
    copies = 1 if shared else work.completions
    cache = 4.0 * text.kv_width * text.attention_layers * work.prompt_tokens * copies * together
    token = max(hardware.token_seconds, (2.0 * shape.parameters() + cache) / hardware.bandwidth)
    token = max(token, together * decoding(shape, work) / work.completion_tokens / (hardware.peak * 0.5))
    return math.ceil(rounds / together) * work.completion_tokens * token
