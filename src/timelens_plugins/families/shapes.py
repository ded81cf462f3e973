"""Sizes of a vision-language model, by name or from a checkpoint's ``config.json``, and its parameters by part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["SHAPES", "ModelShape", "TextShape", "VisionShape", "read_shape"]


@dataclass(frozen=True)
class TextShape:
    """The language model.

    Attributes:
        layers: of it, of which ``recurrent_layers`` have Gated DeltaNet in the place of attention.
        hidden, intermediate: widths of the residual stream and of the gated MLP.
        heads, kv_heads, head_dim: of attention.
        vocabulary: rows of the embedding.
        tied: the output head is the embedding.
        query_key_norm: queries and keys are normalised per head.
        attention_bias: query, key and value projections have biases.
        output_gate: the query projection also gives a gate of the attention's output.
        key_heads, value_heads, key_dim, value_dim, convolution: of the recurrent layers.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    query_key_norm: bool = True
    attention_bias: bool = False
    output_gate: bool = False
    recurrent_layers: int = 0
    key_heads: int = 0
    value_heads: int = 0
    key_dim: int = 0
    value_dim: int = 0
    convolution: int = 0

    @property
    def query_width(self) -> int:
        """Numbers of all query heads of a token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Numbers of all key heads of a token, as many as of all value heads."""
        return self.kv_heads * self.head_dim

    @property
    def attention_layers(self) -> int:
        """Layers with softmax attention."""
        return self.layers - self.recurrent_layers

    @property
    def recurrent_key_width(self) -> int:
        """Numbers of all keys of a token in a recurrent layer."""
        return self.key_heads * self.key_dim

    @property
    def recurrent_value_width(self) -> int:
        """Numbers of all values of a token in a recurrent layer."""
        return self.value_heads * self.value_dim

    def attention_weights(self) -> int:
        """Matrix weights of a layer's attention."""
        queries = self.query_width * (2 if self.output_gate else 1)
        return self.hidden * (queries + 2 * self.kv_width + self.query_width)

    def recurrent_weights(self) -> int:
        """Matrix weights of a Gated DeltaNet layer: queries, keys, values, gate, two scalars a head, output."""
        values = self.recurrent_value_width
        return self.hidden * (2 * self.recurrent_key_width + 3 * values + 2 * self.value_heads)

    def layer_weights(self) -> int:
        """Matrix weights of all layers: what each token is multiplied with."""
        mixers = self.attention_layers * self.attention_weights() + self.recurrent_layers * self.recurrent_weights()
        return mixers + self.layers * 3 * self.hidden * self.intermediate

    def parameters(self) -> int:
        """All, embedding and head included."""
        small = self.layers * 2 * self.hidden + self.hidden
        if self.query_key_norm:
            small += self.attention_layers * 2 * self.head_dim
        if self.attention_bias:
            small += self.attention_layers * (self.query_width + 2 * self.kv_width)
        channels = 2 * self.recurrent_key_width + self.recurrent_value_width
        small += self.recurrent_layers * (channels * self.convolution + 2 * self.value_heads + self.value_dim)
        embedding = self.vocabulary * self.hidden
        return self.layer_weights() + small + embedding * (1 if self.tied else 2)


@dataclass(frozen=True)
class VisionShape:
    """The vision tower and its mergers.

    Attributes:
        depth, hidden, intermediate, heads: of its blocks.
        patch, merge: pixels along the side of a patch, patches along the side of a token.
        temporal: frames in a patch.
        channels: of a pixel.
        output: width of the language model's tokens.
        deepstack: further mergers, whose output is added to the first layers of the language model.
        positions: learned position embeddings.
        gated: the MLP has a gate, and norms have no bias (Qwen2.5-VL).
        window: pixels along the side of an attention window; None for attention over whole frames.
        full_blocks: blocks with attention over whole frames where there are windows.
    """

    depth: int
    hidden: int
    intermediate: int
    heads: int
    patch: int
    output: int
    merge: int = 2
    temporal: int = 2
    channels: int = 3
    deepstack: int = 0
    positions: int = 0
    gated: bool = False
    window: int | None = None
    full_blocks: int = 0

    @property
    def merged(self) -> int:
        """Width of the patches of one token side by side."""
        return self.hidden * self.merge**2

    @property
    def mergers(self) -> int:
        """The merger and those of deepstack."""
        return 1 + self.deepstack

    @property
    def patch_values(self) -> int:
        """Numbers of a patch: channels, frames, pixels."""
        return self.channels * self.temporal * self.patch**2

    def block_weights(self) -> int:
        """Matrix weights of a block."""
        return 4 * self.hidden**2 + (3 if self.gated else 2) * self.hidden * self.intermediate

    def merger_weights(self) -> int:
        """Matrix weights of one merger."""
        return self.merged * (self.merged + self.output)

    def merger_parameters(self) -> int:
        """Of all mergers."""
        biases = self.merged + self.output
        norm = self.hidden * (1 if self.gated else 2)
        wide_norm = 2 * self.merged
        return self.mergers * (self.merger_weights() + biases) + norm + self.deepstack * wide_norm

    def tower_parameters(self) -> int:
        """Of everything but the mergers."""
        biases = 4 * self.hidden + (2 * self.intermediate if self.gated else self.intermediate) + self.hidden
        norms = 2 * self.hidden * (1 if self.gated else 2)
        embedding = self.patch_values * self.hidden + (0 if self.gated else self.hidden)
        return self.depth * (self.block_weights() + biases + norms) + embedding + self.positions * self.hidden


@dataclass(frozen=True)
class ModelShape:
    """A model: its parts, and where the numbers are from."""

    name: str
    text: TextShape
    vision: VisionShape
    source: str

    def parameters(self) -> int:
        """All of them."""
        return self.text.parameters() + self.vision.merger_parameters() + self.vision.tower_parameters()

    def trained(self) -> int:
        """Those of the recipe: the language model and the mergers; the tower is frozen."""
        return self.text.parameters() + self.vision.merger_parameters()


_QWEN3_VISION: dict[str, Any] = {
    "depth": 27,
    "hidden": 1152,
    "intermediate": 4304,
    "heads": 16,
    "patch": 16,
    "positions": 2304,
}

SHAPES: dict[str, ModelShape] = {
    shape.name: shape
    for shape in (
        ModelShape(
            "Qwen2.5-VL-7B",
            TextShape(28, 3584, 18944, 28, 4, 128, 152064, query_key_norm=False, attention_bias=True),
            VisionShape(32, 1280, 3420, 16, 14, 3584, gated=True, window=112, full_blocks=4),
            "the published config.json of Qwen/Qwen2.5-VL-7B-Instruct",
        ),
        ModelShape(
            "Qwen3-VL-8B",
            TextShape(36, 4096, 12288, 32, 8, 128, 151936),
            VisionShape(**_QWEN3_VISION, output=4096, deepstack=3),
            "the published config.json of Qwen/Qwen3-VL-8B-Instruct",
        ),
        ModelShape(
            "Qwen3.5-9B",
            TextShape(
                32,
                4096,
                12288,
                16,
                4,
                256,
                248320,
                output_gate=True,
                recurrent_layers=24,
                key_heads=16,
                value_heads=32,
                key_dim=128,
                value_dim=128,
                convolution=4,
            ),
            VisionShape(**_QWEN3_VISION, output=4096),
            "the defaults of transformers' Qwen3_5TextConfig and Qwen3_5VisionConfig (the tower's output as wide as "
            "the text model)",
        ),
    )
}
"""Shapes known by name."""

_FAMILIES = ("qwen2_5_vl", "qwen3_vl", "qwen3_5")


def read_shape(name: str) -> ModelShape:
    """A shape by its name in :data:`SHAPES`, or from a ``config.json`` or the folder of a checkpoint.

    Raises:
        ValueError: neither, or a model of another family; the message names what is known.
    """
    by_name = {known.lower(): shape for known, shape in SHAPES.items()}
    if name.lower() in by_name:
        return by_name[name.lower()]
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"{name}: neither a known shape ({', '.join(SHAPES)}) nor a checkpoint's config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, Mapping) or config.get("model_type") not in _FAMILIES:
        kind = config.get("model_type") if isinstance(config, Mapping) else None
        raise ValueError(f"{path}: model_type {kind!r} is not one whose cost is known here: {', '.join(_FAMILIES)}")
    try:
        return _from_config(config, str(path))
    except KeyError as error:
        raise ValueError(f"{path}: {error.args[0]} is not stated") from error


def _from_config(config: Mapping[str, Any], source: str) -> ModelShape:
    family = config["model_type"]
    text = config.get("text_config") or config  # older checkpoints of Qwen2.5-VL have it at the top
    vision = config["vision_config"]
    heads = text["num_attention_heads"]
    depth = text["num_hidden_layers"]
    recurrent: dict[str, Any] = {}
    if family == "qwen3_5":
        kinds = text.get("layer_types")
        interval = text.get("full_attention_interval", 4)
        recurrent = {
            "output_gate": True,
            "recurrent_layers": kinds.count("linear_attention") if kinds else depth - depth // interval,
            "key_heads": text["linear_num_key_heads"],
            "value_heads": text["linear_num_value_heads"],
            "key_dim": text["linear_key_head_dim"],
            "value_dim": text["linear_value_head_dim"],
            "convolution": text["linear_conv_kernel_dim"],
        }
    windows = family == "qwen2_5_vl"
    return ModelShape(
        config.get("_name_or_path") or Path(source).parent.name or "model",
        TextShape(
            depth,
            text["hidden_size"],
            text["intermediate_size"],
            heads,
            text["num_key_value_heads"],
            text.get("head_dim") or text["hidden_size"] // heads,
            text["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            query_key_norm=not windows,
            attention_bias=windows or bool(text.get("attention_bias")),
            **recurrent,
        ),
        VisionShape(
            vision["depth"],
            vision["hidden_size"],
            vision["intermediate_size"],
            vision["num_heads"],
            vision["patch_size"],
            vision["out_hidden_size"],
            vision.get("spatial_merge_size", 2),
            vision.get("temporal_patch_size", 2),
            vision.get("in_channels", 3),
            deepstack=len(vision.get("deepstack_visual_indexes", ())) if family == "qwen3_vl" else 0,
            positions=0 if windows else vision["num_position_embeddings"],
            gated=windows,
            window=vision.get("window_size", 112) if windows else None,
            full_blocks=len(vision.get("fullatt_block_indexes", (7, 15, 23, 31))) if windows else 0,
        ),
        source,
    )
