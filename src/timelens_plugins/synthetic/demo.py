"""The main job on an embedded default: a small synthetic benchmark, a tiny model, the real ``lmms-eval`` command.

The model's weights are random, so its scores say nothing about grounding; what the demo shows is the whole line, from
mp4 files to the table with both readings, beside what answers that ignore the video would score.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from timelens_plugins.metrics import chance_levels
from timelens_plugins.moments import load_moments
from timelens_plugins.synthetic.benchmark import SUBSETS, write_benchmark
from timelens_plugins.synthetic.tiny import save_checkpoint

__all__ = ["run_demo", "run_lmms_eval"]


def run_demo(output: Path, clips: int = 6, seed: int = 0) -> Path:
    """Build everything under ``output``, evaluate, print; returns the folder of lmms-eval's results.

    Args:
        output: folder; what an earlier, interrupted run finished is kept.
        clips: videos in each of the three subsets.
        seed: of the clips and of the weights.

    Raises:
        subprocess.CalledProcessError: lmms-eval failed; its own output says why.
    """
    benchmark = write_benchmark(output / "benchmark", clips, seed=seed)
    checkpoint = output / "model"
    if not (checkpoint / "processor_config.json").is_file():
        save_checkpoint(checkpoint, "qwen3_vl", seed=seed)
    results = output / "results"
    run_lmms_eval(checkpoint, benchmark, results)
    print(_chance_table(benchmark))
    print(f"\nThe model's weights are random. Samples and scores: {results}")
    return results


def run_lmms_eval(checkpoint: Path, benchmark: Path, results: Path, *, max_new_tokens: int = 32) -> None:
    """Evaluate a checkpoint on a folder in TimeLens-Bench's layout with the real command, on the CPU."""
    command = [
        str(Path(sys.executable).with_name("lmms-eval")),
        *("--model", "timelens"),
        *("--model_args", f"pretrained={checkpoint},device=cpu"),
        *("--batch_size", "4"),
        *("--tasks", "timelens_bench"),
        *("--gen_kwargs", f"max_new_tokens={max_new_tokens}"),
        *("--log_samples", "--output_path", str(results)),
    ]
    print("TIMELENS_BENCH_DIR=" + str(benchmark), " ".join(command), flush=True)
    subprocess.run(command, check=True, env=os.environ | {"TIMELENS_BENCH_DIR": str(benchmark)})


def _chance_table(benchmark: Path) -> str:
    lines = ["What answers that ignore the video would score (mIoU):"]
    for subset in SUBSETS:
        moments = load_moments(benchmark / f"{subset}-timelens.json", format="timelens_bench")
        levels = chance_levels([[*m.spans] for m in moments], [m.duration or 0.0 for m in moments], reading="official")
        lines.append(f"  {subset:14s}" + "  ".join(f"{name} {100 * level.miou:.1f}" for name, level in levels.items()))
    return "\n".join(lines)
