"""Memory of a GRPO step on one device: what stays, and the peaks of rollout and training above it.

Activations are counted tensor by tensor, as PyTorch's autograd keeps them for transformers' layers with fused attention
(``sdpa`` or flash): two norms, projections, attention, gated MLP. Under bf16 autocast the residual stream and what
norms keep is fp32, all else bf16. Gradients of weights are not there yet when the activations are largest, so a step's
peak is the larger of two moments: the start of backward, and its end. Nothing is counted for fragmentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from timelens_plugins.families.shapes import ModelShape, TextShape
from timelens_plugins.scaling.work import Work

__all__ = ["Precision", "Sharding", "StepMemory", "clip_bytes", "step_memory"]

Precision = Literal["fp32", "bf16"]
"""Of the computation; master weights and the optimizer's state are fp32 in both."""

Sharding = Literal["ddp", "fsdp2", "zero1", "zero2", "zero3"]
"""``ddp`` keeps everything whole; ``fsdp2`` and ``zero3`` shard weights, gradients and the optimizer's state, ``zero2``
the latter two, ``zero1`` the last alone."""

_CHUNK = 256  # scored tokens whose logits exist at the same time on the shared road
_READING = 3.25  # frames as bytes and as fp32, put in the order of patches, and these
_BUCKET = 2 * 500_000_000 * 2  # bytes of DeepSpeed's two buckets of gradients, at its default size, in bf16


@dataclass(frozen=True)
class StepMemory:
    """Bytes on one device.

    Attributes:
        weights, optimizer: what is there between steps.
        gradients: of the trained weights.
        gathered: whole weights, for as long as a rollout lasts, and units of them in training.
        rollout: keys, values and activations while completions are sampled.
        forward: what training keeps at the start of backward, of the video with all its completions.
        layer: of it, what is still there at the end of backward.
        clip: while a clip is read and cut into patches; the host's memory where the model is on a GPU.
    """

    weights: float
    optimizer: float
    gradients: float
    gathered: tuple[float, float]
    rollout: float
    forward: float
    layer: float
    clip: float

    @property
    def resident(self) -> float:
        """Between steps."""
        return self.weights + self.optimizer

    @property
    def above(self) -> float:
        """The peak of a step above what is resident."""
        whole, units = self.gathered
        return max(whole + self.rollout, units + self.forward, units + self.gradients + self.layer)

    @property
    def peak(self) -> float:
        """Of a step."""
        return self.resident + self.above


def step_memory(
    shape: ModelShape,
    work: Work,
    *,
    shared: bool = True,
    checkpointing: bool = True,
    precision: Precision = "bf16",
    sharding: Sharding = "ddp",
    devices: int = 1,
) -> StepMemory:
    """What a step of one video on each device takes, tower frozen, language model and mergers trained, AdamW.

    Args:
        shape: of the model.
        work: of the video.
        shared: by the shared prefix, else by the repeated batch.
        checkpointing: layers keep their input alone, and are computed again in backward.
        precision: of the computation.
        sharding: how the model is shared.
        devices: that share it.
    """
    if sharding not in get_args(Sharding):
        raise ValueError(f"sharding must be one of {', '.join(get_args(Sharding))}, got {sharding!r}")
    weights, optimizer, gradients, gathered = _parameters(shape, precision, sharding, devices)
    number = 4 if precision == "fp32" else 2
    clip = _READING * clip_bytes(shape, work)
    forward, layer = _activations(shape, work, shared, checkpointing, number)
    return StepMemory(
        weights, optimizer, gradients, gathered, _rollout(shape, work, shared, number), forward, layer, clip
    )


def clip_bytes(shape: ModelShape, work: Work) -> float:
    """Pixel values of a clip, in fp32."""
    return 4.0 * work.vision_tokens * shape.vision.merge**2 * shape.vision.patch_values


def _parameters(
    shape: ModelShape, precision: Precision, sharding: Sharding, devices: int
) -> tuple[float, float, float, tuple[float, float]]:
    total, trained = shape.parameters(), shape.trained()
    text = shape.text
    unit = text.vocabulary * text.hidden * (1 if text.tied else 2) + 2 * text.layer_weights() / text.layers
    number = 4 if precision == "fp32" else 2
    if sharding == "ddp":
        cast = 0.0 if precision == "fp32" else 2.0 * total  # autocast keeps the bf16 copy of each weight it has used
        return 4.0 * total, 8.0 * trained, 4.0 * trained, (cast, cast)
    if sharding == "fsdp2":
        shard = 1 / devices
        return 4 * total * shard, 8 * trained * shard, 4 * trained * shard, (number * total, number * unit)
    master = 8.0 if precision == "fp32" else 12.0  # DeepSpeed computes on bf16 weights, and keeps fp32 ones beside
    weights = number * total / (devices if sharding == "zero3" else 1)
    gradients = number * trained / (1 if sharding == "zero1" else devices)
    gathered = (number * total, number * unit) if sharding == "zero3" else (0.0, 0.0)
    buckets = 0.0 if precision == "fp32" else float(_BUCKET)
    return weights, master * trained / devices, gradients + buckets, gathered


def _activations(shape: ModelShape, work: Work, shared: bool, checkpointing: bool, number: int) -> tuple[float, float]:
    """Bytes at the start of backward, and those of a single layer at its end."""
    text, tokens = shape.text, work.tokens(shared)
    layer = tokens * _layer(text, number, shared) / text.layers
    backward = tokens * number * (3 * text.intermediate + 2 * text.hidden)
    stream = 4.0 * text.hidden * tokens
    scored = work.completions * (work.completion_tokens if shared else work.completion_tokens + 1)
    rows = min(_CHUNK, scored) if shared else scored
    logits = rows * text.vocabulary * (number + 2 * 4)
    copies = work.videos(shared)
    mergers = 4.0 * number * shape.vision.mergers * shape.vision.merged * work.vision_tokens * copies
    pixels = 0.0 if shared else copies * clip_bytes(shape, work)
    kept = stream * text.layers + layer if checkpointing else layer * text.layers
    ends = 2 * stream + logits + mergers
    return kept + ends + max(pixels, backward), layer + backward + mergers


def _layer(text: TextShape, number: int, shared: bool) -> float:
    """Bytes that autograd keeps of all layers, a token."""
    norms = 8.0 * 2 * text.hidden
    heads = (4 + number) * (text.query_width + text.kv_width) if text.query_key_norm else 0
    attention = number * (2 * text.query_width + 2 * text.kv_width) + 4 * text.heads
    attention += number * text.query_width * ((1 if shared else 0) + (2 if text.output_gate else 0))
    mlp = number * (4 * text.intermediate + 2 * text.hidden)
    mixed = 2 * text.recurrent_key_width + text.recurrent_value_width
    recurrent = number * (3 * mixed + 6 * text.recurrent_value_width)
    return text.layers * (norms + mlp) + text.attention_layers * (heads + attention) + text.recurrent_layers * recurrent


def _rollout(shape: ModelShape, work: Work, shared: bool, number: int) -> float:
    text, vision = shape.text, shape.vision
    prompts = work.tokens(True) if shared else work.completions * (work.prompt_tokens + work.completion_tokens)
    cache = 2.0 * number * text.kv_width * text.attention_layers * prompts
    state = 4.0 * text.value_heads * text.key_dim * text.value_dim * text.recurrent_layers * work.completions
    rows = 1 if shared else work.completions
    wide = max(2 * text.intermediate, 3 * text.query_width) + 3 * text.hidden
    prefill = number * rows * work.prompt_tokens * wide
    patches = work.vision_tokens * vision.merge**2 * rows
    pixels = rows * clip_bytes(shape, work)
    tower = pixels + number * patches * (2 * vision.intermediate + 3 * vision.hidden)
    features = number * vision.mergers * vision.merged * work.vision_tokens if shared else pixels
    return features + max(tower, cache + state + prefill)
