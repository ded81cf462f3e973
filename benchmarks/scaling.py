"""Peaks of memory that ``timelens plan`` foretells against measured ones, on tiny models.

    python benchmarks/scaling.py --require 0.15

Each row is a whole optimizer step of ``benchmarks/grpo_step.py`` in a process of its own: fp32, one prompt, tower
frozen, mergers trained. Compared is the peak above what was resident before the step, when what an earlier step had
left (its clip, its features) was given up; the plan reads the shape from the
same checkpoint's config.json, and is told the lengths that the run had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import grpo_step

from timelens_plugins.scaling import Work, read_shape, step_memory

CONFIGURATIONS = (
    ("qwen3_vl", "shared", False, 2048),
    ("qwen3_vl", "shared", True, 4096),
    ("qwen3_vl", "plain", False, 1024),
    ("qwen3_vl", "plain", True, 1024),
    ("qwen2_5_vl", "shared", False, 2048),
    ("qwen2_5_vl", "plain", False, 1024),
)
"""Family, road, gradient checkpointing, vision tokens."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", type=int, nargs="+", default=range(len(CONFIGURATIONS)), help="rows by number, from 0"
    )
    parser.add_argument("--completions", type=int, default=8)
    parser.add_argument("--require", type=float, help="fail where a plan is off by more than this share")
    args = parser.parse_args()
    print(f"{'':44}{'measured MB':>12}{'plan MB':>9}{'off':>7}")
    worst = 0.0
    for i in args.only:
        family, road, checkpointing, tokens = CONFIGURATIONS[i]
        measured, planned = compare(family, road, checkpointing, tokens, args.completions)
        off = planned / measured - 1
        worst = max(worst, abs(off))
        name = f"{family}, {road}, {tokens} tokens{', checkpointing' if checkpointing else ''}"
        print(f"{name:44}{measured:12.0f}{planned:9.0f}{off:+7.0%}", flush=True)
    if args.require is not None and worst > args.require:
        raise SystemExit(f"a plan is off by {worst:.0%}, more than {args.require:.0%}")
    return 0


def compare(family: str, road: str, checkpointing: bool, tokens: int, completions: int) -> tuple[float, float]:
    """Measured and planned megabytes above what was resident."""
    command = [
        *(sys.executable, grpo_step.__file__, "--family", family, "--prompt-tokens", str(tokens)),
        *("--completions", str(completions), "--tokens", "24", "--fresh"),
        *(["--gradient-checkpointing"] if checkpointing else []),
    ]
    with tempfile.TemporaryDirectory() as folder:
        sizes = argparse.Namespace(family=family, prompt_tokens=tokens, layers=4)
        grpo_step.build(sizes, Path(folder))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "0", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [*command, "--variant", road, "--folder", folder], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{family} {road} failed:\n{done.stderr[-2000:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        shape = read_shape(str(Path(folder) / "model"))
    work = Work(tokens // 64 * 2, tokens, completions, 24)
    memory = step_memory(
        shape, work, shared=road == "shared", checkpointing=checkpointing, precision="fp32", sharding="ddp"
    )
    return found["megabytes"], max(memory.above, memory.clip) / 2**20  # host and device are one here


if __name__ == "__main__":
    sys.exit(main())
