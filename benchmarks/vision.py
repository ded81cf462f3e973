"""The vision tower with each of its shortcuts, beside transformers' own: CPU seconds, and whether the outputs agree.

    python benchmarks/vision.py --family qwen3_vl
    python benchmarks/vision.py --family qwen2_5_vl

A random tower with layers of the published width, in float32, on frame pairs of one size. Forward alone, as in a
rollout, and forward with backward, as in training. Each shortcut and the plain tower take turns in one process; times
are medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.utils import logging

from timelens_plugins.shared_prefix.acceleration import batch_frames, project_patches

# With the published width, and the setting that lists layers of another kind.
TOWERS: dict[str, tuple[Any, Any, dict[str, int], str]] = {
    "qwen3_vl": (
        Qwen3VLVisionConfig,
        Qwen3VLVisionModel,
        {"hidden_size": 1152, "intermediate_size": 4304},
        "deepstack_visual_indexes",
    ),
    "qwen2_5_vl": (
        Qwen2_5_VLVisionConfig,
        Qwen2_5_VisionTransformerPretrainedModel,
        {"hidden_size": 1280, "intermediate_size": 3420},
        "fullatt_block_indexes",
    ),
}
SHORTCUTS: dict[str, tuple[Callable[[Any], Callable[[], None]], ...]] = {
    "plain": (),
    "frames in one batch": (batch_frames,),
    "patches by a product": (project_patches,),
    "both": (batch_frames, project_patches),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=["qwen3_vl", "qwen2_5_vl"], default="qwen3_vl")
    parser.add_argument("--hidden-size", type=int, help="of the tower; by default the published one")
    parser.add_argument("--depth", type=int, default=2, help="layers")
    parser.add_argument("--pairs", type=int, default=24, help="of frames")
    parser.add_argument("--tokens", type=int, nargs=2, default=(8, 8), help="rows and columns of a pair, in tokens")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    config_class, tower_class, sizes, places = TOWERS[args.family]
    if args.hidden_size is not None:
        sizes = {"hidden_size": args.hidden_size, "intermediate_size": 4 * args.hidden_size}
    config = config_class(depth=args.depth, **sizes, **{places: [args.depth - 1]})
    tower = tower_class._from_config(config, attn_implementation="sdpa").train()
    side = 2 * args.tokens[0], 2 * args.tokens[1]
    grid = torch.tensor([[args.pairs, *side]])
    values = tower.patch_embed.proj.weight[0].numel()
    pixels = torch.randn(args.pairs * side[0] * side[1], values, generator=torch.Generator().manual_seed(0))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} thread(s), torch {torch.__version__}")
    print(f"{args.family}, hidden size {config.hidden_size}, {args.depth} layers, {args.pairs} pairs of {args.tokens}")
    for kind, work in {"forward": _forward, "forward and backward": _with_backward}.items():
        outputs: dict[str, Tensor] = {}
        seconds: dict[str, list[float]] = {name: [] for name in SHORTCUTS}
        for repeat in range(args.repeats + 1):
            for name, shortcuts in SHORTCUTS.items():
                undo = [shortcut(tower) for shortcut in shortcuts]
                begin = time.process_time()
                outputs[name] = work(tower, pixels, grid)
                if repeat:  # the first warms up
                    seconds[name].append(time.process_time() - begin)
                for one in undo:
                    one()
        plain = statistics.median(seconds["plain"])
        for name, values in seconds.items():
            value = statistics.median(values)
            error = (outputs[name] - outputs["plain"]).abs().max() / outputs["plain"].abs().max()
            print(f"{kind:22}{name:22}{value:8.3f} s{plain / value:8.2f}x   largest difference {error:.0e}")
    return 0


def _forward(tower: Any, pixels: Tensor, grid: Tensor) -> Tensor:
    with torch.no_grad():
        return _output(tower, pixels, grid)


def _with_backward(tower: Any, pixels: Tensor, grid: Tensor) -> Tensor:
    output = _output(tower, pixels, grid)
    output.square().sum().backward()
    tower.zero_grad()
    return output.detach()


def _output(tower: Any, pixels: Tensor, grid: Tensor) -> Tensor:
    found = tower(pixels, grid_thw=grid)
    output: Tensor = found.pooler_output if hasattr(found, "pooler_output") else found[0]
    return output


if __name__ == "__main__":
    raise SystemExit(main())
