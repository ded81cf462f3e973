"""vLLM beside transformers: prompt ids, log-probs and greedy answers of 20 prompts, for three model families.

    make test-vllm                                            # sets up .venv-vllm
    .venv-vllm/bin/python benchmarks/vllm_parity.py
    .venv-vllm/bin/python benchmarks/vllm_parity.py --videos clips/*.mp4
    python benchmarks/vllm_parity.py --model PATH --videos clips/*.mp4 --dtype bfloat16

Without ``--model``: tiny random checkpoints of Qwen3-VL, Qwen2.5-VL (its own video, and TimeLens-7B's images) in
float32 and of Qwen3.5 in bfloat16, as vLLM's linear attention on a CPU takes nothing else. Without ``--videos``: four
synthetic clips. Log-probs are compared for the likely tokens of each step, as long as both have written the same;
*greedy* counts prompts whose 16 tokens are all the same. *cached* is the share of prompt tokens that vLLM found in its
prefix cache, the questions about each clip one after the other. Prints a table in Markdown, and the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path

import torch

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.encodings import build_messages, load_processor
from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.inference.answering import Question
from timelens_plugins.inference.vllm.engine import VllmEngine
from timelens_plugins.inference.vllm.model import VllmModel
from timelens_plugins.inference.vllm.parity import ParityError, check_parity, probe_of
from timelens_plugins.inference.vllm.settings import VllmSettings
from timelens_plugins.inference.vllm.starting import vllm_version
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.video import sample_frames

ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
PROMPTS = 20
QUERIES = (
    "person turn a light on",
    "a red circle appears",
    "a cat jumps off the table",
    "a person closes the door behind them",
    "the second time somebody laughs",
    "a glass falls to the floor",
    "someone walks past the window",
    "a dog lies down",
    "the light goes out again",
    "a woman reads a book on the couch",
)
TINY = (
    ("qwen3_vl", "native", "float32", {"head_dim": 32}),
    ("qwen2_5_vl", "native", "float32", {"head_dim": 32}),
    ("qwen2_5_vl", "interleaved_timestamp", "float32", {"head_dim": 32}),
    ("qwen3_5", "native", "bfloat16", {"heads": 2, "kv_heads": 1, "head_dim": 128}),
)


def row(name: str, path: str, encoding: str | None, dtype: str, videos: list[str], tokens: int) -> str:
    """A line of the table."""
    processor = load_processor(path, encoding, total_tokens=tokens, min_tokens=16)
    settings = VllmSettings(enforce_eager=True, max_model_len=tokens + 1024, parity=0)
    model = VllmModel(path, processor, settings, dtype=dtype)
    questions = [
        Question(v, GROUNDING_PROMPT.format(query=q)) for v in videos for q in QUERIES[: -(-PROMPTS // len(videos))]
    ]
    loaded, probes = model.in_transformers(), []
    for question in questions:
        clip = sample_frames(question.video, processor.frame_sampling)
        asked = build_messages(clip, "", processor.encoding, question=question.text)
        probes.append(probe_of(loaded, processor, f"{question.video}: {question.text}", clip, asked))
    found = []
    engine = VllmEngine(model, {"max_new_tokens": 1})
    list(engine.answer(questions))
    llm = model.start(())
    for probe in probes:
        try:
            found += check_parity(llm, [probe], float("inf"))
        except ParityError as error:
            print(error)
    model.close()
    share = engine.counts["cached"] / engine.counts["prompt"]
    worst = max((one.difference for one in found), default=float("nan"))
    cells = (
        name,
        processor.encoding,
        dtype,
        f"{len(found)} of {len(probes)}",
        f"{worst:.2g}",
        f"{sum(one.greedy for one in found)} of {len(probes)}",
        f"{share:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a checkpoint, in place of the tiny ones")
    parser.add_argument("--videos", nargs="+", help="files, in place of synthetic clips")
    parser.add_argument("--dtype", default="bfloat16", help="of --model")
    parser.add_argument("--total-tokens", type=int, default=1024, help="vision tokens of a clip")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        os.environ |= ON_CPU | dict(os.environ)
    lines = [
        "| model | encoding | dtype | ids equal | log-probs differ by at most | greedy answers equal | cached |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        videos = args.videos
        if videos is None:
            write_training_set(Path(folder, "clips"), {"charades": 4}, size=160, progress=False)
            videos = sorted(map(str, Path(folder, "clips", "videos").rglob("*.mp4")))
        if args.model is not None:
            lines.append(row(Path(args.model).name, args.model, None, args.dtype, videos, args.total_tokens))
        else:
            for family, encoding, dtype, sizes in TINY:
                path = save_checkpoint(Path(folder, family), family, hidden_size=128, **sizes)
                lines.append(row(f"tiny {family}", str(path), encoding, dtype, videos, args.total_tokens))
    print("\n".join(lines))
    print(f"\nvLLM {vllm_version()}, {len(videos)} clips, {platform.processor() or platform.machine()}")


if __name__ == "__main__":
    main()
