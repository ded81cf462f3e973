"""Evaluation with several queries a video, in five ways: CPU seconds a query, and whether the answers are equal.

    python benchmarks/evaluate.py --videos 4 --queries 5
    python benchmarks/evaluate.py --family qwen2_5_vl
    python benchmarks/evaluate.py --videos 16 --queries 1 --total-tokens 512 --max-new-tokens 256

The same random model in float32 (``--family``; hidden size 256, 4 layers), the same synthetic clips, greedy answers:

- *together*: the model ``timelens`` as ``lmms-eval`` calls it: a video is decoded, encoded and prefilled once, and the
  answers about many videos are decoded together;
- *cached*: the same with the frames that an earlier run has kept on disk (``cache``);
- *by video*: the same as *together* with the answers about one video at a time;
- *loader*: one query at a time through the model's own ``generate``; a DataLoader prepares the next prompts;
- *lmms-eval*: its own model of the family at the same frame rate and pixel budget.

``--inputs`` shows where the inputs of *loader* and *lmms-eval* for the first query differ, and times nothing.
``--parts`` adds the limit: what no way can do without, each part measured alone, and *together* beside their sum. Every
video is decoded, processed, seen by the vision tower and prefilled once, and the answers share their decoding steps.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import platform
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("FORCE_QWENVL_VIDEO_READER", "decord")

import torch
from lmms_eval.api.instance import Instance
from torch.utils.data import DataLoader
from transformers import GenerationConfig
from transformers.generation.utils import GenerationMixin
from transformers.utils import logging

from timelens_plugins.answers import GROUNDING_PROMPT
from timelens_plugins.clips import load_clip
from timelens_plugins.encodings import build_messages, load_processor
from timelens_plugins.evaluation.model import TimeLens
from timelens_plugins.families.tiny import save_checkpoint
from timelens_plugins.shared_prefix import complete, encode_vision, prefill, share_prompt
from timelens_plugins.synthetic.benchmark import write_training_set
from timelens_plugins.video import sample_frames

PIXELS = {"qwen3_vl": 32 * 32, "qwen2_5_vl": 28 * 28, "qwen3_5": 32 * 32}  # of a vision token
MIN_TOKENS = 16  # of a pair of frames
SYSTEM = "You are a helpful assistant."  # lmms-eval's model always has a system turn

Row = Mapping[str, Any]
Run = Callable[[Sequence[Row]], list[str]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=list(PIXELS), default="qwen3_vl")
    parser.add_argument("--videos", type=int, default=4, help="clips of 12 to 20 s")
    parser.add_argument("--queries", type=int, default=5, help="a video")
    parser.add_argument("--total-tokens", type=int, default=3600, help="vision tokens of a clip, at most")
    parser.add_argument("--max-new-tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--parts", action="store_true", help="also what no way can do without, part by part")
    parser.add_argument("--inputs", action="store_true", help="what loader and lmms-eval give a model, compared")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"hidden_size": 256, "layers": 4, "heads": 8, "kv_heads": 2, "head_dim": 32}
        save_checkpoint(folder / "model", args.family, **sizes, vision_hidden_size=128, vision_depth=4)
        write_training_set(folder / "data", {"charades": args.videos}, size=320, progress=False)
        videos = sorted((folder / "data" / "videos").rglob("*.mp4"))
        rows = [
            {"video": str(video), "text": GROUNDING_PROMPT.format(query=f"event number {i} of the video")}
            for video in videos
            for i in range(args.queries)
        ]
        print(f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} thread(s), torch {torch.__version__}")
        print(f"{args.family}, {len(videos)} videos x {args.queries} queries, {args.max_new_tokens} tokens an answer")
        if args.inputs:
            compare_inputs(folder / "model", args, rows[:1])
            return 0
        seconds: dict[str, float] = {}
        answers: dict[str, list[str]] = {}
        for way in args.ways:
            run = WAYS[way](folder / "model", args)
            run(rows[:: args.queries])  # warms up, and fills the cache
            begin = _cpu_seconds()
            answers[way] = run(rows)
            seconds[way] = (_cpu_seconds() - begin) / len(rows)
        first = args.ways[0]
        for way, value in seconds.items():
            equal = sum(a == b for a, b in zip(answers[first], answers[way], strict=True))
            print(
                f"{way:12}{value:8.3f} CPU s a query{value / seconds[first]:8.2f}x, {equal} of {len(rows)} answers as "
                f"{first}"
            )
        if args.parts:
            measure = _parts(folder / "model", args)
            measure(rows[:1])
            parts, texts = measure(rows)
            limit = sum(parts.values())
            for part, value in parts.items():
                print(f"  {part:10}{value / len(rows):8.3f} CPU s a query{value / limit:8.0%}")
            print(f"  {'sum':10}{limit / len(rows):8.3f} CPU s a query")
            for way, value in seconds.items():
                equal = sum(a == b for a, b in zip(texts, answers[way], strict=True))
                print(f"{way} / sum of parts: {value * len(rows) / limit:.2f}x, {equal} of {len(rows)} answers equal")
    return 0


def compare_inputs(checkpoint: Path, args: argparse.Namespace, rows: Sequence[Row]) -> None:
    """Print what differs between the inputs of two ways: ids, and the largest difference of pixels."""
    given: dict[str, Any] = {}
    generate = GenerationMixin.generate
    for way in ("loader", "lmms-eval"):

        def watched(self: Any, *own: Any, way: str = way, **inputs: Any) -> Any:
            given[way] = inputs
            return generate(self, *own, **inputs)

        with mock.patch.object(GenerationMixin, "generate", watched):
            WAYS[way](checkpoint, args)(rows)
    tokenizer = load_processor(checkpoint).tokenizer
    ours, theirs = (inputs["input_ids"][0].tolist() for inputs in given.values())
    for kind, i, j, k, m in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if kind != "equal":
            print(f"loader {tokenizer.decode(ours[i:j])!r} at {i}, lmms-eval {tokenizer.decode(theirs[k:m])!r} at {k}")
    pixels = [inputs["pixel_values_videos"].float() for inputs in given.values()]
    same = pixels[0].shape == pixels[1].shape
    print(f"largest difference of pixels: {float((pixels[0] - pixels[1]).abs().max()) if same else 'other shapes'}")


def _cpu_seconds() -> float:
    """Of this process and of the workers it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _timelens(checkpoint: Path, args: argparse.Namespace, **options: Any) -> TimeLens:
    return TimeLens(
        pretrained=str(checkpoint),
        device="cpu",
        fps=2.0,
        min_tokens=MIN_TOKENS,
        total_tokens=args.total_tokens,
        system_prompt=SYSTEM,
        **options,
    )


def _requests(model: Any, rows: Sequence[Row], tokens: int) -> list[Instance]:
    """As lmms-eval makes them for chat models."""

    def messages(row: Row) -> list[dict[str, Any]]:
        parts = [{"type": "video", "url": row["video"]}, {"type": "text", "text": row["text"]}]
        return [{"role": "user", "content": parts}]

    model.task_dict["benchmark"] = {"test": rows}
    generation = {"max_new_tokens": tokens, "temperature": 0.0, "until": []}
    return [
        Instance(
            request_type="generate_until",
            arguments=("", messages, generation, n, "benchmark", "test"),
            idx=0,
            metadata={"task": "benchmark", "doc_id": n, "repeats": 1},
        )
        for n in range(len(rows))
    ]


def _ours(**options: Any) -> Callable[[Path, argparse.Namespace], Run]:
    def load(checkpoint: Path, args: argparse.Namespace) -> Run:
        model = _timelens(checkpoint, args, **options)
        return lambda rows: [r.text for r in model.generate_until(_requests(model, rows, args.max_new_tokens))]

    return load


def _cached(checkpoint: Path, args: argparse.Namespace) -> Run:
    return _ours(cache=str(checkpoint.parent / "frames"))(checkpoint, args)


class _Prompts(torch.utils.data.Dataset[Any]):
    """A processed prompt for each row."""

    def __init__(self, processor: Any, rows: Sequence[Row]) -> None:
        self.processor, self.rows = processor, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        clip = sample_frames(row["video"], self.processor.frame_sampling)
        parts = [{"type": "video", "video": clip}, {"type": "text", "text": row["text"]}]
        return self.processor.apply_chat_template(
            [{"role": "system", "content": [{"type": "text", "text": SYSTEM}]}, {"role": "user", "content": parts}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )


def _loader(checkpoint: Path, args: argparse.Namespace) -> Run:
    model = _timelens(checkpoint, args)
    config = GenerationConfig(do_sample=False, max_new_tokens=args.max_new_tokens, pad_token_id=0)

    def run(rows: Sequence[Row]) -> list[str]:
        def prompts() -> Iterator[Any]:
            return iter(DataLoader(_Prompts(model.processor, rows), batch_size=None, num_workers=1, prefetch_factor=2))

        texts = []
        for inputs in prompts():
            with torch.no_grad():
                output = model.model.generate(**inputs, generation_config=config)
            new = output[0, inputs["input_ids"].shape[1] :]
            texts.append(model.processor.decode(new, skip_special_tokens=True))
        return texts

    return run


def _peer(checkpoint: Path, args: argparse.Namespace) -> Run:
    pixels = PIXELS[args.family]
    options: dict[str, Any] = {"fps": 2.0, "max_num_frames": 768, "min_pixels": MIN_TOKENS * pixels}
    if args.family != "qwen2_5_vl":  # whose budget is that of a frame, which these clips do not reach
        options["total_pixels"] = args.total_tokens * pixels
    module = importlib.import_module(f"lmms_eval.models.chat.{args.family}")
    peer = getattr(module, {"qwen3_vl": "Qwen3_VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_5": "Qwen3_5"}[args.family])
    model = peer(pretrained=str(checkpoint), device="cpu", device_map="cpu", system_prompt=SYSTEM, **options)
    model._model.float()  # it loads bfloat16
    return lambda rows: [r.text for r in model.generate_until(_requests(model, rows, args.max_new_tokens))]


def _parts(checkpoint: Path, args: argparse.Namespace) -> Callable[[Sequence[Row]], tuple[dict[str, float], list[str]]]:
    """CPU seconds of each part of answering, and the answers, in the order of the rows, whose videos come in runs."""
    model = _timelens(checkpoint, args)
    net: Any = model.model.requires_grad_(False)
    processor = model.processor
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=args.max_new_tokens,
        repetition_penalty=net.generation_config.repetition_penalty,
    )

    def run(rows: Sequence[Row]) -> tuple[dict[str, float], list[str]]:
        seconds: dict[str, float] = {}
        texts: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            texts[row["video"]].append(row["text"])

        @contextmanager
        def part(name: str) -> Iterator[None]:
            begin = _cpu_seconds()
            yield
            seconds[name] = _cpu_seconds() - begin

        with part("decode"):
            clips = [sample_frames(video, processor.frame_sampling) for video in texts]
        with part("processor"):
            prompts = []
            for clip, asked in zip(clips, texts.values(), strict=True):
                loaded, encoding = load_clip(processor, clip), processor.encoding
                chats = [build_messages(clip, "", encoding, question=text, system=SYSTEM) for text in asked]
                prompts.append(share_prompt([loaded.prompt(chat) for chat in chats]))
        with part("vision"):
            seen = [(encode_vision(net, shared), queries) for shared, queries in prompts]
        with part("prefill"):
            ready = [prefill(net, shared, queries) for shared, queries in seen]
        with part("answers"):
            found = complete(net, ready, config)
        return seconds, [processor.answer_texts(rows)[0] for rows in found]

    return run


WAYS: dict[str, Callable[[Path, argparse.Namespace], Run]] = {
    "together": _ours(),
    "cached": _cached,
    "by video": _ours(max_rows=1),
    "loader": _loader,
    "lmms-eval": _peer,
}


if __name__ == "__main__":
    raise SystemExit(main())
